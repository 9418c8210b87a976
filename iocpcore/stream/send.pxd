# The send step: enqueue() appends to a session's queue, start_send() hands its front to the kernel in one gathered
# WSASend, on_send() takes what became of it.
#
# Ownership: queued buffers belong to the session. Those that a send in flight refers to stay at the queue's head,
# unchanged, until its packet; at most one send is in flight, so order is the order of enqueue().
# Threads: the session's worker.
from libc.stdint cimport uint64_t
from iocp cimport DWORD, WSABUF, InterlockedExchange, WSAGetLastError, WSASend, iocp_read32, iocp_read64, iocp_taken
from buffer cimport buffer_append, buffer_copy_here, buffer_has_room, buffer_release
from item cimport item_drop, item_hold
from link cimport link_count_sent, link_queued
from port cimport operation_begin, operation_started
from structs cimport CLOSING, COPIED, FAILED, FINISHING, PENDING, Buffer, Link, Session, Started, Worker
from timer cimport timer_set
from tuning cimport SEND_GATHER, SEND_LIMIT


cdef inline void enqueue(Worker *worker, Session *session, Buffer *buffer) noexcept nogil:
    """The queue owns the buffer from now on. A buffer without bytes would be a send that says nothing: not queued."""
    if buffer.length == 0:
        buffer_release(worker, buffer)
        return
    buffer.next = NULL
    if session.queue_head == NULL:
        session.queue_head = buffer
    else:
        session.queue_tail.next = buffer
    session.queue_tail = buffer
    session.queue_buffers += 1
    session.queue_bytes += buffer.length
    worker.stats.bytes_queued += buffer.length


cdef inline void enqueue_chain(Worker *worker, Session *session, Buffer *buffer) noexcept nogil:
    cdef Buffer *after
    while buffer != NULL:
        after = buffer.next
        enqueue(worker, session, buffer)
        buffer = after


cdef inline void enqueue_merged(Worker *worker, Session *session, Buffer *buffer) noexcept nogil:
    """As enqueue(); a small copy joins the one before it: so a hundred of them are one WSABUF."""
    cdef Buffer *tail = session.queue_tail
    if session.queue_head == NULL or buffer.kind != COPIED or not buffer_has_room(tail, buffer.length):
        enqueue(worker, session, buffer)
        return
    enqueue_bytes(worker, session, buffer.data, buffer.length)
    buffer_release(worker, buffer)


cdef inline bint enqueue_bytes(Worker *worker, Session *session, const char *data, size_t length) noexcept nogil:
    """Append a copy; False without memory."""
    cdef Buffer *tail = session.queue_tail
    if session.queue_head == NULL or not buffer_has_room(tail, length):
        tail = buffer_copy_here(worker, data, length)
        if tail == NULL:
            return False
        enqueue(worker, session, tail)
        return True
    buffer_append(tail, data, length)
    session.queue_bytes += length
    worker.stats.bytes_queued += length
    return True


cdef inline bint queue_above_water(Session *session) noexcept nogil:
    """Buffers count too: a peer that sends single bytes would fill memory with nearly empty ones."""
    return session.queue_bytes >= session.handler.settings.high_water or session.queue_buffers >= SEND_GATHER


cdef inline bint queue_drained(Session *session) noexcept nogil:
    """A sender was told to wait, and need not any more. Asked once for each time."""
    cdef Link *link = session.link
    if not iocp_read32(&link.above):
        return False
    if link_queued(link) > <size_t> iocp_read64(&link.low_water):
        return False
    InterlockedExchange(&link.above, 0)
    return True


cdef inline DWORD gather(Session *session, WSABUF *wsabufs) noexcept nogil:
    """Describe the queue's front, within the limits of one send; the number of WSABUFs."""
    cdef Buffer *buffer = session.queue_head
    cdef DWORD count = 0
    cdef size_t left = SEND_LIMIT
    while buffer != NULL and count < SEND_GATHER and left > 0:
        wsabufs[count].buf = buffer.data
        wsabufs[count].len = <DWORD> min(buffer.length, left)
        left -= wsabufs[count].len
        count += 1
        buffer = buffer.next
    return count


cdef inline size_t gathered(const WSABUF *wsabufs, DWORD count) noexcept nogil:
    """Bytes of them all."""
    cdef size_t bytes = 0
    cdef DWORD i
    for i in range(count):
        bytes += wsabufs[i].len
    return bytes


cdef inline Started start_send(Worker *worker, Session *session, DWORD *sent) noexcept nogil:
    """Send the front of a queue that is not empty. INLINE: `sent` bytes have gone."""
    cdef WSABUF wsabufs[SEND_GATHER]
    cdef DWORD count = gather(session, wsabufs)
    cdef int error = 0
    cdef Started started
    operation_begin(worker, &session.send)
    session.sending = 1
    session.sent_at = worker.now
    item_hold(&session.item)
    if WSASend(session.socket, wsabufs, count, sent, 0, &session.send.overlapped, NULL) != 0:
        error = WSAGetLastError()
    started = operation_started(worker, error, session.skips)
    if started == FAILED:
        send_ended(session)
        session.error = error
    elif started == PENDING:
        await_progress(worker, session)
    return started


cdef inline void await_progress(Worker *worker, Session *session) noexcept nogil:
    """The send pends. A peer that takes nothing of it for too long will be given up."""
    cdef uint64_t send_timeout = session.handler.settings.send_timeout
    if send_timeout != 0:
        timer_set(worker, &session.item, worker.now + send_timeout)
    if send_timeout != 0 or session.state == FINISHING:
        session.taken = iocp_taken(session.socket)


cdef inline bint peer_takes(Worker *worker, Session *session) noexcept nogil:
    """Has it taken some of the send that pends? A system with much room for sending ends one in large steps."""
    cdef uint64_t taken = iocp_taken(session.socket)
    if taken <= session.taken:
        return False
    session.taken = taken
    session.sent_at = session.closing_at = worker.now
    return True


cdef inline void send_ended(Session *session) noexcept nogil:
    """The kernel has given the operation back."""
    session.sending = 0
    item_drop(&session.item)


cdef inline void consume(Worker *worker, Session *session, size_t bytes) noexcept nogil:
    """So many bytes of the queue's front have gone."""
    cdef Buffer *buffer
    cdef size_t step
    session.queue_bytes -= bytes
    if bytes > 0:
        session.sent_at = worker.now
        if session.link != NULL:
            link_count_sent(session.link, bytes)
    worker.stats.bytes_queued -= bytes
    worker.stats.bytes_sent += bytes
    while bytes > 0:
        buffer = session.queue_head
        step = min(buffer.length, bytes)
        bytes -= step
        if step < buffer.length:
            buffer.data += step
            buffer.length -= step
            return
        session.queue_head = buffer.next
        session.queue_buffers -= 1
        buffer_release(worker, buffer)


cdef inline bint on_send(Worker *worker, Session *session, int status, DWORD bytes) noexcept nogil:
    """A send has ended, with 0 or an error number; False if the session must end. Bytes count even if it failed."""
    consume(worker, session, bytes)
    if status == 0:
        return True
    if session.state != CLOSING:    # else why it ends is known, and this is what came of it
        session.error = status
    return False
