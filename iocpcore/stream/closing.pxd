# Closing a worker: sessions finish within the drain, the rest is aborted, and operations that never end are leaked.
#
# Ownership: memory of operations still in flight when the worker leaves is the kernel's for ever: leaked, never freed.
# Threads: the worker's own.
from libc.stdint cimport uint64_t
from iocp cimport ERROR_OPERATION_ABORTED, WSAETIMEDOUT, InterlockedExchange
from call cimport calls_are_due
from close cimport abort_session, close_session, close_undrained, finish, shut_sending
from inbox cimport inbox_shut, run_inbox
from listener cimport refuse_waiting, serve_granted, unlisten
from queue cimport queue_unsent
from session cimport session_at, session_slots
from shutdown cimport drain_has_ended, drain_time_is_over, expect_shutdown, tell_shutdowns
from steps cimport advance, must_be_told, tell_end
from structs cimport (
    BROKEN, BY_ERROR, BY_US, CLOSING, CONNECTING, LEFT_BEHIND, NOT_BROKEN, OPEN, TROUBLE_DEQUEUE, Listener, Session,
    Worker)
from timer cimport timer_set
from tuning cimport DRAIN_TIME, LEAVE_TIME
from warn cimport report_trouble


cdef inline void close_worker(Worker *worker, uint64_t by) noexcept nogil:
    """Stop listening and connecting; let sessions finish until `by`. Later requests can only bring that nearer."""
    cdef Listener *listener
    cdef Listener *after
    if worker.closing:
        if worker.close_at != 0:    # else the drain is over already
            worker.close_at = by
        return
    worker.closing = 1
    worker.close_at = by
    listener = worker.listeners
    while listener != NULL:
        after = listener.next
        unlisten(worker, listener, False)
        listener = after
    close_sessions(worker)


cdef inline void close_sessions(Worker *worker) noexcept nogil:
    """Called when closing begins, and again when the drain is over."""
    cdef Session *session
    cdef unsigned int i
    for i in range(session_slots(worker)):
        session = session_at(worker, i)
        if session == NULL:
            continue
        if session.state == CONNECTING:
            session.error = ERROR_OPERATION_ABORTED if queue_unsent(session) != 0 else 0
            abort_session(worker, session, BY_US)
        elif drain_has_ended(worker):
            end_session(worker, session)
        else:
            expect_shutdown(worker, session)
        advance(worker, session)    # which finishes it, if it has no reason to go on


cdef inline void end_session(Worker *worker, Session *session) noexcept nogil:
    """The drain is over. With bytes unsent the session is reset; if all is sent, a slow peer can still read that."""
    if session.state == CLOSING:
        return
    if queue_unsent(session) != 0:
        session.error = WSAETIMEDOUT
        abort_session(worker, session, BY_US)
        return
    if session.layer != NULL and not session.end_sent:
        finish_at_once(worker, session)
        return
    if not session.end_sent:
        shut_sending(worker, session)
    close_session(worker, session, session.reason)


cdef inline void finish_at_once(Worker *worker, Session *session) noexcept nogil:
    """Close it when its layer's last word has gone, without waiting for the peer's end. time_to_finish() bounds it."""
    if session.state == OPEN:
        finish(worker, session, session.reason)
    session.peer_ended = 1
    session.closing_at = worker.now
    timer_set(worker, &session.item, worker.now + DRAIN_TIME)


cdef inline bint must_end_drain(Worker *worker) noexcept nogil:
    """Is the drain time over, and has on_shutdown been scheduled wherever it is wanted?"""
    return drain_time_is_over(worker) and worker.shutdown_over


cdef inline void close_listeners(Worker *worker) noexcept nogil:
    """Close the connections that wait for a place, and the listening sockets at once."""
    cdef Listener *listener = worker.listeners
    cdef Listener *after
    while listener != NULL:
        after = listener.next
        refuse_waiting(worker, listener)
        unlisten(worker, listener, True)
        listener = after


cdef inline void end_drain(Worker *worker) noexcept nogil:
    """The drain time is over: close listeners and sessions, and set when the worker leaves."""
    worker.close_at = 0
    worker.done = done_by(worker)
    worker.leave_at = worker.now + LEAVE_TIME
    serve_granted(worker)
    close_listeners(worker)
    close_sessions(worker)


cdef inline uint64_t done_by(Worker *worker) noexcept nogil:
    """A count that grows with progress. After end_drain() nothing begins, so it grows for a bounded time."""
    return worker.stats.packets + worker.stats.callbacks + worker.stats.undrained


cdef inline void leave_later(Worker *worker) noexcept nogil:
    """While there is progress, the worker stays: many slow on_close callbacks, for example, get the time they need."""
    cdef uint64_t done = done_by(worker)
    if done != worker.done:
        worker.done = done
        worker.leave_at = worker.now + LEAVE_TIME


cdef inline void go_on_closing(Worker *worker) noexcept nogil:
    """The next step of closing, at the end of each turn."""
    if worker.leave_at != 0:
        leave_later(worker)
    elif must_end_drain(worker):
        end_drain(worker)
    elif worker.shutdown_due or drain_time_is_over(worker):
        tell_shutdowns(worker)


cdef inline void on_broken_port(Worker *worker) noexcept nogil:
    """End all sessions with the error, so that peers and handlers learn of it; then leave.

    Cancelled operations may still end by packets that the port makes itself. When the next dequeue fails, there are
    none left.
    """
    if worker.broken != NOT_BROKEN:
        leave_behind(worker)
        return
    worker.broken = BROKEN
    report_trouble(worker, TROUBLE_DEQUEUE, worker.broken_by)
    InterlockedExchange(&worker.load, 1 << 30)  # no other worker hands it a session
    break_sessions(worker)
    inbox_shut(worker, False)
    close_worker(worker, worker.now)
    end_drain(worker)
    run_inbox(worker)


cdef inline void break_sessions(Worker *worker) noexcept nogil:
    cdef Session *session
    cdef unsigned int i
    for i in range(session_slots(worker)):
        session = session_at(worker, i)
        if session == NULL or session.state == CLOSING:
            continue
        session.error = worker.broken_by
        abort_session(worker, session, BY_ERROR)
        advance(worker, session)


cdef inline void leave_behind(Worker *worker) noexcept nogil:
    """Leak the operations in flight, which the kernel has for ever. Their peers and handlers are told."""
    cdef Session *session
    cdef unsigned int i
    for i in range(session_slots(worker)):
        session = session_at(worker, i)
        if session == NULL or session.state != CLOSING or session.item.in_flight == 0:
            continue
        close_undrained(worker, session)
        if must_be_told(session):
            tell_end(worker, session)
        else:
            session.ops.closed(worker, session)
    worker.broken = LEFT_BEHIND


cdef inline bint worker_over(Worker *worker) noexcept nogil:
    """Is nothing left to wait for, or has waiting been in vain? Then operations in flight are leaked, never freed."""
    if worker.broken == LEFT_BEHIND and not calls_are_due(worker):
        return True
    if worker.abandoned:
        return True
    if not worker.closing:
        return False
    if worker.sessions.active == 0 and worker.listeners == NULL and not calls_are_due(worker):
        return inbox_shut(worker, True)
    return worker.leave_at != 0 and worker.leave_at <= worker.now and inbox_shut(worker, False)
