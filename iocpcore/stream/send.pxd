# The send step: start_send() hands the front of a session's queue to the kernel in one gathered WSASend, on_send()
# takes the result.
#
# Ownership: the buffers that a send in flight refers to stay at the queue's head, unchanged, until its packet; at most
# one send is in flight, so order is the order of the queue.
# Threads: the session's worker.
from libc.stdint cimport uint64_t
from iocp cimport DWORD, WSABUF, WSAGetLastError, WSASend, iocp_taken
from item cimport item_drop, item_hold
from port cimport operation_begin, operation_started
from queue cimport consume
from structs cimport CLOSING, FAILED, FINISHING, PENDING, Buffer, Session, Started, Worker
from timer cimport timer_set
from tuning cimport SEND_GATHER, SEND_LIMIT


cdef inline DWORD gather(Session *session, WSABUF *wsabufs) noexcept nogil:
    """Describe the queue's front, within the limits of one send; the number of WSABUFs."""
    cdef Buffer *buffer = session.queue.head
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
    """The number of bytes in them all."""
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
    """The send pends: set the time by which the peer must take some of it, and note what it has taken so far."""
    cdef uint64_t send_timeout = session.handler.settings.send_timeout
    if send_timeout != 0:
        timer_set(worker, &session.item, worker.now + send_timeout)
    if send_timeout != 0 or session.state == FINISHING:
        session.taken = iocp_taken(session.socket)


cdef inline bint peer_takes(Worker *worker, Session *session) noexcept nogil:
    """Has the peer taken some of the pending send? With a large send buffer its packet shows that late."""
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


cdef inline bint on_send(Worker *worker, Session *session, int status, DWORD bytes) noexcept nogil:
    """A send has ended, with 0 or an error number; False if the session must end. Bytes count even if it failed."""
    consume(worker, session, bytes)
    if status == 0:
        return True
    if session.state != CLOSING:    # else the reason is known already, and this error follows from it
        session.error = status
    return False
