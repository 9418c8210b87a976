# The receive step: start_receive() posts a buffer, on_receive() takes what became of it.
#
# Ownership: the posted buffer is session.input; the kernel writes to it until the packet. A session holds itself in
# flight meanwhile. An idle session, or one of many, first posts a zero-byte receive, which holds no buffer.
# Threads: the session's worker.
from iocp cimport DWORD, OVERLAPPED, WSABUF, WSAENOBUFS, WSAGetLastError, WSARecv
from libc.string cimport memset
from buffer cimport buffer_release, buffer_take
from link cimport link_count_received
from mutant cimport (
    FAILED_START_KEPT, IDLE_DATA_DROPPED, RECEIVE_NOT_COUNTED, WRITTEN_AFTER_SUBMIT, mutant)
from operation cimport FAILED, INLINE, RECEIVE, Session, Started, Worker
from port cimport operation_begin, operation_started
from session cimport session_drop, session_hold
from status cimport status_cancelled

cdef enum Received:
    RECEIVED_DATA       # in session.input
    RECEIVED_NOTHING    # the buffer was given back, or the zero-byte receive says that there is something
    RECEIVED_END        # the peer has finished sending
    RECEIVED_ERROR      # session.error says why


cdef inline int call_receive(Session *session, DWORD *received) noexcept nogil:
    """WSARecv; 0, WSA_IO_PENDING or why it failed."""
    cdef WSABUF buffer
    cdef DWORD flags = 0
    buffer.buf = NULL if session.input == NULL else session.input.data
    buffer.len = 0 if session.input == NULL else session.handler.settings.receive_size
    if WSARecv(session.socket, &buffer, 1, received, &flags, &session.receive.overlapped, NULL) == 0:
        return 0
    return WSAGetLastError()


cdef inline Started start_receive(Worker *worker, Session *session, bint waiting, DWORD *received) noexcept nogil:
    """Post a receive: of a buffer, or of zero bytes if it is only `waiting`. INLINE: `received` bytes are there."""
    cdef int error
    cdef Started started
    if waiting and session.input != NULL:
        buffer_release(worker, session.input)
        session.input = NULL
    if not waiting and session.input == NULL:
        session.input = buffer_take(worker, session.handler.settings.receive_size)
        if session.input == NULL:
            session.error = WSAENOBUFS
            return FAILED
    operation_begin(worker, &session.receive, RECEIVE, session)
    session.receiving = 1
    session.waiting = waiting
    session.data_waits = 0
    if not mutant(RECEIVE_NOT_COUNTED):
        session_hold(session)
    error = call_receive(session, received)
    if mutant(WRITTEN_AFTER_SUBMIT):
        memset(&session.receive.overlapped, 0, sizeof(OVERLAPPED))
    started = operation_started(worker, error, session.skips)
    if started == FAILED:
        if not mutant(FAILED_START_KEPT):
            end_receive(session)
        session.error = error
    return started


cdef inline void end_receive(Session *session) noexcept nogil:
    """The kernel has given the operation back."""
    session.receiving = 0
    if not mutant(RECEIVE_NOT_COUNTED):
        session_drop(session)


cdef inline Received on_receive(Worker *worker, Session *session, int status, DWORD bytes) noexcept nogil:
    """A receive has ended, with 0 or an error number. Its operation is over when end_receive() was called, later."""
    cdef bint waiting = session.waiting
    cdef bint yielding = session.yielding
    session.waiting = 0
    session.yielding = 0
    if yielding and (status_cancelled(status) or mutant(IDLE_DATA_DROPPED)):
        buffer_release(worker, session.input)
        session.input = NULL
        return RECEIVED_NOTHING
    if status != 0:
        session.error = status
        return RECEIVED_ERROR
    session.active_at = worker.now
    session.data_waits = waiting
    if waiting:
        return RECEIVED_NOTHING
    if bytes == 0:
        session.peer_ended = 1
        return RECEIVED_END
    session.input.length = bytes
    worker.stats.bytes_received += bytes
    if session.link != NULL:
        link_count_received(session.link, bytes)
    return RECEIVED_DATA
