# The receive step: start_receive() posts buffers, on_receive() takes the result.
#
# A receive has one buffer as a rule. After one that fills all of its buffers the next has four times as many; after one
# that leaves three quarters empty, half as many. So a large message comes in few pieces, and a session with small
# messages holds one buffer. A session that was idle, is one of many, or receives much first posts a zero-byte receive,
# which holds none.
# Ownership: the posted buffers are session.posted, a chain; the kernel may write to all of them until the packet. Then
# those that stayed empty go back. The operation holds its session meanwhile.
# Threads: the session's worker.
from iocp cimport DWORD, WSABUF, WSAENOBUFS, WSAGetLastError, WSARecv, unlikely
from buffer cimport buffer_take, chain_cut, chain_release
from door cimport input_append
from item cimport item_drop, item_hold
from link cimport link_count_received
from port cimport operation_begin, operation_started
from status cimport status_cancelled
from structs cimport (
    FAILED, RECEIVED_DATA, RECEIVED_END, RECEIVED_ERROR, RECEIVED_NOTHING, RECEIVE_DUE, RECEIVE_NONE, RECEIVE_POSTED,
    RECEIVE_WAITING, RECEIVE_YIELDING, Buffer, Received, Session, Started, Worker)
from tuning cimport CONTENDED_MORE, IDLE_TIME, LARGE_TIME, RECEIVE_GATHER, RECEIVE_SIZE, SELDOM

cdef inline bint reclaims(Worker *worker) noexcept nogil:
    """Is an idle session's receive cancelled, so that its buffer can go back?"""
    return worker.reclaims


cdef inline bint take_posted(Worker *worker, Session *session) noexcept nogil:
    """Make sure that there are buffers to receive into; False without memory."""
    if session.posted == NULL:
        session.posted = buffer_take(worker)
        if session.posted == NULL:
            return False
        if session.more_buffers == 0:
            return True
    elif session.more_buffers == 0 and session.posted.next == NULL:
        return True
    take_more(worker, session)
    return True


cdef inline void take_more(Worker *worker, Session *session) noexcept nogil:
    """Have as many buffers beside the first as planned, few under contention. Without memory fewer will do."""
    cdef Buffer *last = session.posted
    cdef int _more, most = session.more_buffers
    if worker.contended:
        most = min(most, CONTENDED_MORE)
    for _more in range(most):
        if last.next == NULL:
            last.next = buffer_take(worker)
            if last.next == NULL:
                return
        last = last.next
    chain_cut(worker, last)


cdef inline int receive_into_several(Session *session, DWORD *received) noexcept nogil:
    """As call_receive(), for several buffers."""
    cdef WSABUF buffers[RECEIVE_GATHER]
    cdef Buffer *buffer = session.posted
    cdef unsigned int left = session.handler.settings.receive_size
    cdef DWORD flags = 0
    cdef DWORD count = 0
    while buffer != NULL:
        buffers[count].buf = buffer.data
        buffers[count].len = min(left, RECEIVE_SIZE)
        left -= buffers[count].len
        count += 1
        buffer = buffer.next
    if WSARecv(session.socket, buffers, count, received, &flags, &session.item.operation.overlapped, NULL) == 0:
        return 0
    return WSAGetLastError()


cdef inline int call_receive(Session *session, DWORD *received) noexcept nogil:
    """WSARecv; 0, WSA_IO_PENDING or why it failed."""
    cdef WSABUF buffer
    cdef DWORD flags = 0
    buffer.buf = NULL
    buffer.len = 0
    if session.posted != NULL:
        if session.posted.next != NULL:
            return receive_into_several(session, received)
        buffer.buf = session.posted.data
        buffer.len = min(session.handler.settings.receive_size, RECEIVE_SIZE)
    if WSARecv(session.socket, &buffer, 1, received, &flags, &session.item.operation.overlapped, NULL) == 0:
        return 0
    return WSAGetLastError()


cdef inline Started start_receive(Worker *worker, Session *session, bint waiting, DWORD *received) noexcept nogil:
    """Post a receive: into buffers, or of zero bytes if it is only `waiting`. INLINE: `received` bytes are there."""
    cdef int error
    cdef Started started
    cdef unsigned char before = session.receive
    if waiting:
        release_posted(worker, session)
        session.filled = 0
    elif not take_posted(worker, session):
        session.error = WSAENOBUFS
        return FAILED
    operation_begin(worker, &session.item.operation)
    session.receive = RECEIVE_WAITING if waiting else RECEIVE_POSTED
    item_hold(&session.item)
    error = call_receive(session, received)
    started = operation_started(worker, error, session.skips)
    if started == FAILED:
        session.receive = before
        receive_ended(session)
        session.error = error
    return started


cdef inline void receive_ended(Session *session) noexcept nogil:
    """The kernel has given the operation back."""
    item_drop(&session.item)


cdef inline void release_posted(Worker *worker, Session *session) noexcept nogil:
    chain_release(worker, session.posted)
    session.posted = NULL


cdef inline unsigned int posted_count(Session *session) noexcept nogil:
    cdef Buffer *buffer = session.posted.next
    cdef unsigned int count = 1
    while buffer != NULL:
        count += 1
        buffer = buffer.next
    return count


cdef inline unsigned int buffers_for(unsigned int bytes) noexcept nogil:
    cdef unsigned int count = 1
    while count * RECEIVE_SIZE < bytes:
        count += 1
    return count


cdef inline void plan_next(Session *session, unsigned int bytes) noexcept nogil:
    """Plan how many buffers the next receive has, after one that brought `bytes` bytes into the present ones."""
    cdef unsigned int most = session.handler.settings.receive_size
    cdef unsigned int count = posted_count(session)
    cdef unsigned int room = min(count * RECEIVE_SIZE, most)
    cdef bint full = bytes == room
    if full:
        count = buffers_for(min(<unsigned int> (4 * room), most))
    elif 4 * bytes <= room:
        count >>= 1
    session.more_buffers = <unsigned char> (count - 1)
    session.filled = full and count > 1


cdef inline void divide(Worker *worker, Session *session, unsigned int bytes) noexcept nogil:
    """Several buffers, or a full one: set the length of each, and release those that hold nothing."""
    cdef Buffer *buffer = session.posted
    plan_next(session, bytes)
    if bytes > RECEIVE_SIZE:
        worker.large_until = worker.now + LARGE_TIME
    while bytes > RECEIVE_SIZE:
        buffer.length = RECEIVE_SIZE
        bytes -= RECEIVE_SIZE
        buffer = buffer.next
    buffer.length = bytes
    chain_cut(worker, buffer)


cdef inline void note_waiting(Worker *worker, Session *session) noexcept nogil:
    """There is data to receive. A session that was idle will likely be idle again: let it wait without a buffer."""
    session.receive = RECEIVE_DUE
    if worker.now - session.active_at >= IDLE_TIME:
        session.seldom = SELDOM
    elif session.seldom != 0:
        session.seldom -= 1
    session.active_at = worker.now


cdef inline Received on_receive(Worker *worker, Session *session, int status, DWORD bytes) noexcept nogil:
    """A receive has ended, with 0 or an error number; its data is in session.inbound, or in posted for a layer.

    The operation holds the session until the caller calls receive_ended().
    """
    cdef unsigned char was = session.receive
    session.receive = RECEIVE_NONE
    session.filled = 0
    if unlikely(was == RECEIVE_YIELDING):
        session.seldom = SELDOM
        if status_cancelled(status) and reclaims(worker):
            release_posted(worker, session)
            session.more_buffers = 0
            return RECEIVED_NOTHING
    if status != 0:
        session.error = status
        return RECEIVED_ERROR
    if was == RECEIVE_WAITING:
        note_waiting(worker, session)
        return RECEIVED_NOTHING
    session.active_at = worker.now
    if bytes == 0:
        session.peer_ended = 1
        release_posted(worker, session)  # the session may go on sending for long
        return RECEIVED_END
    session.posted.length = bytes
    if unlikely(bytes >= RECEIVE_SIZE or session.posted.next != NULL):
        divide(worker, session, bytes)
    worker.stats.bytes_received += bytes
    if session.layer == NULL:
        input_append(session, session.posted)
        session.posted = NULL
        if session.link != NULL:
            link_count_received(session.link, bytes)
    return RECEIVED_DATA
