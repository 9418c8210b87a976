# A session's deadlines: when its present state has lasted long enough, and what spares it then.
#
# What has come in time, and is in no packet that was dequeued, spares the session: is_spared() asks the system.
# Ownership: none is taken.
# Threads: the session's worker.
from libc.stdint cimport uint64_t
from iocp cimport WSAETIMEDOUT, iocp_has_come, iocp_has_ended
from close cimport close_session, time_to_finish
from send cimport peer_takes
from session cimport is_receiving
from structs cimport BY_TIMEOUT, CLOSING, CONNECTING, FINISHING, OPEN, RECEIVE_POSTED, Session, Worker
from timer cimport earlier
from tuning cimport DRAIN_TIME, IDLE_TIME


cdef inline uint64_t deadline_of(Session *session) noexcept nogil:
    """When its present state has lasted long enough, 0: never."""
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
    """Where no time is for ever."""
    return at + time if time != 0 else 0


cdef inline uint64_t timeout_of(Session *session) noexcept nogil:
    """When an open session is given up, 0: never."""
    cdef uint64_t idle_timeout = session.handler.settings.idle_timeout
    return earlier(stalled_deadline(session), deadline_after(max(session.active_at, session.sent_at), idle_timeout))


cdef inline uint64_t stalled_deadline(Session *session) noexcept nogil:
    """When an open session is given up whose peer takes nothing, 0: it has nothing to take, or any time."""
    return deadline_after(session.sent_at, session.handler.settings.send_timeout) if session.sending else 0


cdef inline uint64_t idle_buffer_deadline(Session *session) noexcept nogil:
    """When an open session is to give its receive buffer back, 0: it has none, or is about to."""
    if session.receive == RECEIVE_POSTED:
        return session.active_at + IDLE_TIME
    return 0


cdef inline bint is_too_late(Worker *worker, Session *session) noexcept nogil:
    """Has the peer, or the connect, had its time?"""
    cdef uint64_t by
    if session.state == FINISHING:
        return True
    by = deadline_of(session) if session.state == CONNECTING else timeout_of(session)
    return by != 0 and by <= worker.seen_at


cdef inline bint is_spared(Worker *worker, Session *session) noexcept nogil:
    """Has it, or its peer, done something in time that is yet to be handled: in a packet, or in the ready list?"""
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
    """Its peer has taken nothing for too long, whatever it may send."""
    cdef uint64_t by = stalled_deadline(session)
    return session.state == OPEN and by != 0 and by <= worker.seen_at


cdef inline void end_sparing(Worker *worker, Session *session) noexcept nogil:
    """A session that finishes was spared for what came now, and that was not its peer's end: it has had its time."""
    if deadline_of(session) <= worker.seen_at and not is_spared(worker, session):
        time_out(worker, session)


cdef inline void time_out(Worker *worker, Session *session) noexcept nogil:
    """When all was sent, and nobody wants to wait for the peer's end, that is no timeout."""
    if session.state == FINISHING and session.end_sent:
        close_session(worker, session, BY_TIMEOUT if session.handler.settings.linger != 0 else session.reason)
    else:
        session.error = WSAETIMEDOUT
        close_session(worker, session, BY_TIMEOUT)


cdef inline bint have_ended(Session *session) noexcept nogil:
    """Its cancelled operations, though the worker has yet to come to their packets: slow callbacks may keep it busy."""
    return (iocp_has_ended(session.socket, &session.item.operation.overlapped)
            and iocp_has_ended(session.socket, &session.send.overlapped))
