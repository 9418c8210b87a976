# on_shutdown: when a worker closes, each session whose handler has it gets it once, after data that came before.
#
# Ownership: none is taken.
# Threads: the session's worker.
from iocp cimport iocp_has_come
from call cimport schedule_call
from session cimport is_receiving, session_at, session_slots
from structs cimport (
    CALL_CONNECT, CALL_RECEIVE, CALL_SHUTDOWN, OPEN, RECEIVED_NOTHING, RECEIVED_PART, RECEIVE_DUE, Received, Session,
    Worker)


cdef inline bint drain_has_ended(Worker *worker) noexcept nogil:
    """Does the worker close, and has it ended the drain?"""
    return worker.closing and worker.close_at == 0


cdef inline bint drain_time_is_over(Worker *worker) noexcept nogil:
    return worker.close_at != 0 and worker.close_at <= worker.now


cdef inline bint goes_on(Session *session) noexcept nogil:
    """Does it go on although its worker closes? Its handler has on_shutdown, or has paused it, or awaits on_connect."""
    return session.handler.wants & CALL_SHUTDOWN or session.paused > 0 or session.item.calls & CALL_CONNECT


cdef inline void expect_shutdown(Worker *worker, Session *session) noexcept nogil:
    if session.handler.wants & CALL_SHUTDOWN:
        session.shutdown_due = worker.shutdown_due = 1


cdef inline void tell_shutdown(Worker *worker, Session *session) noexcept nogil:
    session.shutdown_due = 0
    if session.state == OPEN:
        schedule_call(worker, &session.item, CALL_SHUTDOWN)


cdef inline void go_on_to_shutdown(Worker *worker, Session *session, Received received) noexcept nogil:
    """The awaited receive has ended. If it gave the handler nothing, look again before on_shutdown."""
    if received != RECEIVED_NOTHING and received != RECEIVED_PART:
        tell_shutdown(worker, session)
    else:
        worker.shutdown_due = 1     # look again


cdef inline bint is_to_hear(Session *session) noexcept nogil:
    """Has its peer sent something that its handler has not been given?"""
    if session.state != OPEN or session.paused or session.peer_ended:
        return False
    if is_receiving(session):
        return iocp_has_come(session.socket, &session.item.operation.overlapped)
    if session.receive == RECEIVE_DUE or session.item.ready:
        return True
    return session.item.calls & (CALL_CONNECT | CALL_RECEIVE) != 0


cdef inline void tell_shutdowns(Worker *worker) noexcept nogil:
    """At a turn's end: schedule on_shutdown. Data that has come goes first: in on_shutdown a handler may close.

    A session waits for one receive, not until there is no more data: a peer that floods always has more. Once the
    drain time is over, no session waits: even with a drain of 0 each gets its on_shutdown.
    """
    cdef bint is_over = drain_time_is_over(worker)
    cdef Session *session
    cdef unsigned int i
    worker.shutdown_due = 0
    worker.shutdown_over = is_over
    for i in range(session_slots(worker)):
        session = session_at(worker, i)
        if session == NULL or not session.shutdown_due:
            continue
        if is_over or not is_to_hear(session):
            tell_shutdown(worker, session)
        elif not is_receiving(session):
            worker.shutdown_due = 1     # data may wait that it has not received yet: look again
