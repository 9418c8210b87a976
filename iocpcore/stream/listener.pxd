# A listener's connections: the worker that serves each, the wait for a place, and what becomes of them at its end.
#
# Ownership: an accepted socket belongs to the session that is made for it, in this worker or, by a message, in another.
# Threads: the worker of the listener; adopt() runs in the session's.
from cpython.pythread cimport PyThread_release_lock
from iocp cimport (
    DWORD, ERROR_OPERATION_ABORTED, INVALID_SOCKET, SOCKET, WSAENOBUFS, AcquireSRWLockExclusive,
    InterlockedCompareExchange, InterlockedDecrement, InterlockedIncrement, ReleaseSRWLockExclusive, WSAGetLastError,
    closesocket, iocp_accept_waiting, iocp_linger_off, iocp_skip_on_success)
from accept cimport (
    arm, cancel_accepts, close_events, close_listening, count_accepted, count_refused, must_wait, on_accept,
    post_accept, start_listening)
from inbox cimport inbox_put, message_about, message_free
from limit cimport leave_place, served, take_granted, take_place, take_waiting, wait_for_place, wake_all_granted
from port cimport operation_bind, port_associate, port_associate_given
from session cimport introduce, tell_refused
from shutdown cimport drain_has_ended
from status cimport status_exhausted
from steps cimport begin_session, opened
from structs cimport OPEN, TROUBLE_ACCEPT, Accept, Handler, Listener, Message, Operation, Session, Waiting, Worker
from timer cimport earlier
from tuning cimport ACCEPTS, ACCEPT_RETRY_TIME, BACKLOG_MOST
from turn cimport defer
from warn cimport report_trouble


# ---- choosing a worker ----

cdef inline int worker_load(Listener *listener, Worker *worker) noexcept nogil:
    """How many sessions it has; the largest int if it may not serve this listener's."""
    if not listener.serving[worker.index // 64] >> (worker.index % 64) & 1:
        return 0x7FFFFFFF
    return InterlockedCompareExchange(&worker.load, 0, 0)


cdef inline Worker *reserve_place(Worker *worker, Listener *listener) noexcept nogil:
    """Choose the worker with the fewest sessions, this one on a tie, and count the new session there."""
    cdef Worker *best = worker
    cdef Worker *peer
    cdef int i, load, least = worker_load(listener, worker)
    for i in range(worker.peer_count):
        peer = &worker.peers[i]
        load = worker_load(listener, peer)
        if load < least:
            best = peer
            least = load
    InterlockedIncrement(&best.load)
    return best


cdef inline void refuse(Worker *worker, Worker *reserved, Listener *listener, SOCKET socket) noexcept nogil:
    """Close the socket, and free what was reserved for it: its worker's count and its place."""
    closesocket(socket)
    InterlockedDecrement(&reserved.load)
    if listener != NULL:
        leave_place(worker, listener)
    count_refused(worker, listener)


cdef inline void hand_over(Worker *worker, Listener *listener, SOCKET socket) noexcept nogil:
    """Give a socket with a place to the worker with the fewest sessions; serve it here if that takes no message."""
    cdef Worker *best = reserve_place(worker, listener)
    cdef Message *message
    if best == worker:
        serve_here(worker, listener, socket)
        return
    message = message_about(do_serve, listener)
    if message == NULL:
        refuse(worker, best, listener, socket)
        return
    message.handler = listener.handler
    message.socket = socket
    if not inbox_put(best, message):
        message_free(message)
        InterlockedDecrement(&best.load)
        InterlockedIncrement(&worker.load)
        serve_here(worker, listener, socket)


cdef inline int associate_fresh(Worker *worker, Listener *listener, SOCKET socket) noexcept nogil:
    """0 or the system's error number. Without a listener the socket was given to adopt()."""
    return port_associate_given(worker, socket) if listener == NULL else port_associate(worker, socket)


cdef inline void serve_here(Worker *worker, Listener *listener, SOCKET socket) noexcept nogil:
    """Serve an accepted socket in this worker; its place is reserved."""
    cdef Session *session = NULL
    serve_socket(worker, listener.handler, listener, socket, &session)


cdef inline int serve_socket(Worker *worker, Handler *handler, Listener *listener, SOCKET socket,
                             Session **adopted) noexcept nogil:
    """Serve a fresh socket here; its place is reserved. 0, or the system's error number: then the socket is closed."""
    cdef Session *session = NULL
    cdef int error
    if listener == NULL:
        iocp_linger_off(socket)     # else close could block the worker, or reset the connection after all was sent
    error = ERROR_OPERATION_ABORTED if drain_has_ended(worker) else associate_fresh(worker, listener, socket)
    if error == 0:
        session = begin_session(worker, socket, OPEN, handler, listener)
        error = WSAENOBUFS if session == NULL else 0
    if error != 0:
        refuse(worker, worker, listener, socket)
        if not worker.closing:
            report_trouble(worker, TROUBLE_ACCEPT, error)
        return error
    if worker.skip_on_success:
        session.skips = iocp_skip_on_success(socket)
    if listener == NULL:
        worker.stats.adopted += 1
    opened(worker, session)
    defer(worker, &session.item)
    adopted[0] = session
    return 0


cdef inline void serve(Worker *worker, Listener *listener, SOCKET socket) noexcept nogil:
    """Hand the socket over if there is a place; else refuse it, or let it wait for one."""
    if not drain_has_ended(worker) and take_place(worker, listener):
        hand_over(worker, listener, socket)
    elif drain_has_ended(worker) or listener.refuses or not wait_for_place(worker, listener, socket):
        closesocket(socket)
        count_refused(worker, listener)


cdef inline void serve_granted(Worker *worker) noexcept nogil:
    """Hand over the connections that have waited and got a place, and post accepts for others."""
    cdef Waiting *granted = take_granted(worker)
    cdef Waiting *after
    cdef Listener *listener
    while granted != NULL:
        after = granted.next
        listener = granted.listener
        hand_over(worker, listener, served(granted))
        if listener.closing:
            forget_drained(worker, listener)
        else:
            arm(worker, listener)
        granted = after


cdef inline void refuse_waiting(Worker *worker, Listener *listener) noexcept nogil:
    """Close the connections that wait: they will not get a place any more."""
    cdef Waiting *waiting = take_waiting(worker, listener)
    cdef Waiting *after
    while waiting != NULL:
        after = waiting.next
        closesocket(served(waiting))
        count_refused(worker, listener)
        waiting = after


# ---- accepts ----

cdef inline void accepted_or_failed(Worker *worker, Accept *accept, int status) noexcept nogil:
    """Serve the connection, if one came, and post the accept again: at once, unless that would only spin."""
    cdef Listener *listener = accept.listener
    cdef SOCKET socket = on_accept(worker, accept, status)
    if socket != INVALID_SOCKET:
        serve(worker, listener, socket)
    if listener.closing:
        close_drained(worker, listener)
        return
    if status != 0 and must_wait(worker, listener, status):
        worker.retry_at = worker.now + ACCEPT_RETRY_TIME
    elif listener.in_flight + listener.waiting < ACCEPTS:
        post_accept(worker, accept)


cdef inline void accept_completed(Worker *worker, Operation *operation, int status, DWORD _bytes) noexcept nogil:
    accepted_or_failed(worker, <Accept *> operation.owner, status)


cdef inline void retry_accepts(Worker *worker) noexcept nogil:
    """Post accepts that could not be posted, and close listeners that are closing though accepts have not ended."""
    cdef Listener *listener = worker.listeners
    cdef Listener *after
    worker.retry_at = 0
    wake_all_granted(worker)
    while listener != NULL:
        after = listener.next
        if listener.closing:
            unlisten(worker, listener, True)
        else:
            arm(worker, listener)
        listener = after


# ---- listening and closing ----

cdef inline void listen(Worker *worker, Listener *listener) noexcept nogil:
    cdef int i
    for i in range(ACCEPTS):
        operation_bind(&listener.accepts[i].operation, accept_completed, &listener.accepts[i])
    listener.next = worker.listeners
    worker.listeners = listener
    InterlockedIncrement(&listener.holds)
    cdef int error = ERROR_OPERATION_ABORTED if worker.closing else start_listening(worker, listener)
    if error != 0:
        listener.closing = 1
        close_listening(listener)
        forget_drained(worker, listener)
    AcquireSRWLockExclusive(&worker.published_lock)
    listener.error = error
    listener.answered = 1
    ReleaseSRWLockExclusive(&worker.published_lock)
    PyThread_release_lock(listener.armed)


cdef inline void forget_drained(Worker *worker, Listener *listener) noexcept nogil:
    """Take a closed listener off the worker's list, once it has nothing in flight and no connection waits."""
    cdef Listener **at = &worker.listeners
    if listener.in_flight > 0 or listener.waiting > 0 or listener.socket != INVALID_SOCKET:
        return
    while at[0] != NULL and at[0] != listener:
        at = &at[0].next
    if at[0] == NULL:
        return      # it was forgotten already
    close_events(listener)
    at[0] = listener.next
    InterlockedDecrement(&listener.holds)


cdef inline void unlisten(Worker *worker, Listener *listener, bint at_once) noexcept nogil:
    """Accept no more; accepted connections are served. With `at_once` the port is free on return, else soon.

    Soon is when the accepts have ended: each may still bring a connection, and on Windows this needs the listening
    socket once more.
    """
    if not listener.closing:
        listener.closing = 1
        cancel_accepts(listener)
    if at_once:
        close_port(worker, listener)
    elif listener.in_flight > 0:
        worker.retry_at = earlier(worker.retry_at, worker.now + ACCEPT_RETRY_TIME)
    close_drained(worker, listener)


cdef inline void close_drained(Worker *worker, Listener *listener) noexcept nogil:
    if listener.in_flight == 0:
        close_port(worker, listener)
    forget_drained(worker, listener)


cdef inline void close_port(Worker *worker, Listener *listener) noexcept nogil:
    if listener.socket == INVALID_SOCKET:
        return
    if not listener.shared:
        take_backlog(worker, listener)
    close_listening(listener)


cdef inline void take_backlog(Worker *worker, Listener *listener) noexcept nogil:
    """Serve the connections in the system's backlog: closing the socket would reset them."""
    cdef SOCKET socket
    cdef int error, _taken
    for _taken in range(0 if drain_has_ended(worker) else BACKLOG_MOST):
        socket = iocp_accept_waiting(listener.socket)
        error = WSAGetLastError()
        if socket == INVALID_SOCKET:
            if status_exhausted(error):     # the rest of the backlog will be reset
                must_wait(worker, listener, error)
            return
        if listener.lingers:
            iocp_linger_off(socket)
        count_accepted(worker, listener)
        serve(worker, listener, socket)


# ---- messages ----

cdef inline bint do_serve(Worker *worker, Message *message) noexcept nogil:
    """Serve a socket that was accepted or given. False: the message is kept."""
    cdef Session *session = NULL
    cdef int error = serve_socket(worker, message.handler, message.listener, message.socket, &session)
    if error != 0:
        return tell_refused(worker, message, error)
    introduce(message, session)
    return True


cdef inline bint do_listen(Worker *worker, Message *message) noexcept nogil:
    listen(worker, message.listener)
    return True


cdef inline bint do_unlisten(Worker *worker, Message *message) noexcept nogil:
    unlisten(worker, message.listener, False)
    return True
