# A session's deadlines: when its present state has lasted too long, and what spares it then.
#
# A completion that came in time, but was not dequeued yet, spares the session: is_spared() asks the system for it.
# Ownership: none is taken.
# Threads: the session's worker.
from libc.stdint cimport uint64_t
from iocp cimport WSAETIMEDOUT, iocp_has_come, iocp_has_ended
from close cimport close_session, time_to_finish
from queue cimport queue_unsent
from send cimport peer_takes
from session cimport is_receiving
from structs cimport BY_TIMEOUT, CLOSING, CONNECTING, FINISHING, OPEN, RECEIVE_POSTED, Session, Worker
from timer cimport earlier
from tuning cimport DRAIN_TIME, IDLE_TIME


cdef inline uint64_t deadline_of(Session *session) noexcept nogil:
    """When its present state has lasted too long, 0: never."""
    if session.state == CLOSING:
        return session.closing_at + DRAIN_TIME
    if session.state == FINISHING:
        return session.closing_at + time_to_finish(session)
    if session.state == CONNECTING:
        return deadline_after(session.sent_at, session.handler.settings.connect_timeout)
    if session.state == OPEN:
        return earlier(timeout_of(session), idle_buffer_deadline(session))
    return 0


cdef inline uint64_t deadline_after(uint64_t at, uint64_t time) noexcept nogil:
    """0, which means never, if `time` is 0."""
    return at + time if time != 0 else 0


cdef inline uint64_t timeout_of(Session *session) noexcept nogil:
    """When an open session is given up, 0: never."""
    cdef uint64_t idle_timeout = session.handler.settings.idle_timeout
    return earlier(stalled_deadline(session), deadline_after(max(session.active_at, session.sent_at), idle_timeout))


cdef inline uint64_t stalled_deadline(Session *session) noexcept nogil:
    """When an open session is given up because its peer takes nothing; 0: no send pends, or there is no timeout."""
    return deadline_after(session.sent_at, session.handler.settings.send_timeout) if session.sending else 0


cdef inline uint64_t idle_buffer_deadline(Session *session) noexcept nogil:
    """When an open session is to give its receive buffer back; 0: it has none, or is giving it back."""
    if session.receive == RECEIVE_POSTED:
        return session.active_at + IDLE_TIME
    return 0


cdef inline bint is_too_late(Worker *worker, Session *session) noexcept nogil:
    """Is the time of the peer, or of the connect, over? If not, only the receive buffer is to go back."""
    cdef uint64_t by
    if session.state == FINISHING:
        return True
    by = deadline_of(session) if session.state == CONNECTING else timeout_of(session)
    return by != 0 and by <= worker.seen_at


cdef inline bint is_spared(Worker *worker, Session *session) noexcept nogil:
    """Is something still to be handled that the session or its peer did in time: a completion, a turn, a callback?"""
    if session.state == CONNECTING:
        return iocp_has_come(session.socket, &session.send.overlapped)
    if session.sending and (iocp_has_come(session.socket, &session.send.overlapped) or peer_takes(worker, session)):
        return True
    if is_stalled(worker, session):
        return False
    if session.item.ready or session.item.calling:
        return True
    return is_receiving(session) and iocp_has_come(session.socket, &session.item.operation.overlapped)


cdef inline bint is_stalled(Worker *worker, Session *session) noexcept nogil:
    """Has its peer taken nothing for too long? Data that it sends is no excuse."""
    cdef uint64_t by = stalled_deadline(session)
    return session.state == OPEN and by != 0 and by <= worker.seen_at


cdef inline void end_sparing(Worker *worker, Session *session) noexcept nogil:
    """A finishing session has received data, not its peer's end: close it if it is too late and not spared."""
    if deadline_of(session) <= worker.seen_at and not is_spared(worker, session):
        time_out(worker, session)


cdef inline void time_out(Worker *worker, Session *session) noexcept nogil:
    """Close the session. If all was sent and linger is 0, that is no timeout."""
    if session.state == FINISHING and queue_unsent(session) == 0:
        close_session(worker, session, BY_TIMEOUT if session.handler.settings.linger != 0 else session.reason)
    else:
        session.error = WSAETIMEDOUT
        close_session(worker, session, BY_TIMEOUT)


cdef inline bint have_ended(Session *session) noexcept nogil:
    """Have its operations ended, with packets not yet dequeued? Slow callbacks may keep the worker busy."""
    return (iocp_has_ended(session.socket, &session.item.operation.overlapped)
            and iocp_has_ended(session.socket, &session.send.overlapped))
