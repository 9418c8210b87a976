# The end of a session: finish() sends the queue and waits for the peer's end, abort_session() cancels all operations.
#
# Ownership: nothing is freed here. The worker releases the session when nothing of it is in flight. If that takes
# longer than DRAIN_TIME, its socket is closed first, and its memory is kept until the packets come.
# Threads: the session's worker.
from libc.stdint cimport uint64_t
from iocp cimport HANDLE, INVALID_SOCKET, ULONG_PTR, CancelIoEx, iocp_shutdown_send, iocp_taken
from door cimport input_discard
from link cimport link_finish
from queue cimport queue_unsent
from session cimport session_close_socket, session_reset_at_close
from shutdown cimport drain_has_ended
from structs cimport CALL_RECEIVE, CLOSING, FINISHING, Session, Worker
from timer cimport timer_set
from tuning cimport DRAIN_TIME, STALL_TIME


cdef inline void cancel_operations(Session *session) noexcept nogil:
    """Its operations still end by their packets. If there is nothing to cancel, that is no error."""
    CancelIoEx(<HANDLE> <ULONG_PTR> session.socket, NULL)


cdef inline void drop_calls(Worker *worker, Session *session) noexcept nogil:
    """Drop the callbacks that are due, and input that is not delivered. Only on_close will come."""
    if session.item.calls & CALL_RECEIVE:
        input_discard(worker, session)
    session.item.calls = 0


cdef inline uint64_t time_to_finish(Session *session) noexcept nogil:
    """How long a finishing session waits for its peer to take more or, when all is sent, to end."""
    cdef uint64_t send_timeout = session.handler.settings.send_timeout
    if drain_has_ended(session.worker):
        return DRAIN_TIME
    if session.end_sent:
        return session.handler.settings.linger
    return send_timeout if send_timeout != 0 else STALL_TIME


cdef inline void finish(Worker *worker, Session *session, unsigned char reason) noexcept nogil:
    """Send what is queued, then wait for the peer's end: closing with unread input would destroy data already sent."""
    drop_calls(worker, session)
    link_finish(session.link)
    session.state = FINISHING
    session.reason = reason
    session.closing_at = worker.now
    if session.sending:
        session.taken = iocp_taken(session.socket)
    timer_set(worker, &session.item, worker.now + time_to_finish(session))


cdef inline void shut_sending(Worker *worker, Session *session) noexcept nogil:
    """The queue is empty: end our sending side. If that fails the peer is gone, and a receive will say so."""
    session.end_sent = 1
    session.closing_at = worker.now
    iocp_shutdown_send(session.socket)
    if session.state == FINISHING:
        timer_set(worker, &session.item, worker.now + time_to_finish(session))


cdef inline void close_session(Worker *worker, Session *session, unsigned char reason) noexcept nogil:
    """Start nothing more; operations in flight are cancelled and end by their packets.

    With bytes unsent the peer sees a reset, so that it does not take a part for the whole.
    """
    if session.state == CLOSING:
        return
    if queue_unsent(session) != 0:
        session_reset_at_close(session)
    drop_calls(worker, session)
    link_finish(session.link)
    session.state = CLOSING
    session.reason = reason
    session.closing_at = worker.now
    if session.item.in_flight > 0:
        cancel_operations(session)
        timer_set(worker, &session.item, worker.now + DRAIN_TIME)


cdef inline void abort_session(Worker *worker, Session *session, unsigned char reason) noexcept nogil:
    """As close_session(), and the peer sees a reset in any case."""
    if session.state != CLOSING:
        session_reset_at_close(session)
        close_session(worker, session, reason)


cdef inline void close_undrained(Worker *worker, Session *session) noexcept nogil:
    """Its operations did not end in time: close the socket under them. Their memory is kept until they end."""
    if session.socket != INVALID_SOCKET:
        worker.stats.undrained += 1
        session_close_socket(session)
