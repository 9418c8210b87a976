# The accept step: start_accept() posts one AcceptEx, on_accept() takes the socket it brings.
#
# Ownership: a listener owns ACCEPTS operations for life; its memory outlives every packet. The accepted socket belongs
# to the caller of on_accept(). No failure of a single connection disarms the listener.
# Threads: the listener's worker.
from cpython.pythread cimport PyThread_release_lock
from iocp cimport (
    DWORD, HANDLE, INVALID_SOCKET, SOCKET, ULONG_PTR, AcceptEx, CancelIoEx, InterlockedExchangeAdd64, WSAGetLastError,
    closesocket, iocp_accept_buffer, iocp_accept_placeholder, iocp_accepted, iocp_associate_shared, iocp_event_close,
    iocp_event_open, iocp_event_use, iocp_linger_off, iocp_stop_listening, iocp_update_accepted)
from port cimport KEY_OPERATION, operation_begin, operation_started, port_associate, port_associate_given
from status cimport status_cancelled, status_exhausted
from structs cimport FAILED, TROUBLE_ACCEPT, Accept, Listener, Worker
from tuning cimport ACCEPTS, ACCEPT_PATIENCE, ACCEPT_RETRY_TIME
from warn cimport report_trouble


cdef inline void listener_init(Listener *listener) noexcept nogil:
    """Initialize zeroed memory: the listener has no sockets yet."""
    cdef int i
    listener.socket = INVALID_SOCKET
    for i in range(ACCEPTS):
        listener.accepts[i].listener = listener
        listener.accepts[i].placeholder = INVALID_SOCKET


cdef inline int call_accept(Listener *listener, Accept *accept) noexcept nogil:
    """AcceptEx; 0, WSA_IO_PENDING or why it failed."""
    cdef DWORD received = 0
    cdef DWORD half = sizeof(accept.addresses) // 2
    if listener.shared:
        iocp_event_use(&accept.event)
    if AcceptEx(listener.socket, accept.placeholder,
                iocp_accept_buffer(accept.addresses, listener.handler.wants_names), 0, half, half, &received,
                &accept.operation.overlapped):
        return 0
    return WSAGetLastError()


cdef inline bint must_wait(Worker *worker, Listener *listener, int error) noexcept nogil:
    """Count a failed accept. True, with a warning, if accepting again at once would only spin."""
    listener.failures += 1
    worker.stats.exhausted += status_exhausted(error)
    if not status_exhausted(error) and listener.failures <= ACCEPT_PATIENCE:
        return False
    report_trouble(worker, TROUBLE_ACCEPT, error)
    return True


cdef inline int start_accept(Worker *worker, Accept *accept) noexcept nogil:
    """Try once to post the accept; 0 or why that failed."""
    cdef Listener *listener = accept.listener
    cdef int error = iocp_accept_placeholder(listener.family, &accept.placeholder)
    if error != 0:
        return error
    operation_begin(worker, &accept.operation)
    accept.in_flight = 1
    accept.updated = 0
    listener.in_flight += 1
    error = call_accept(listener, accept)
    if operation_started(worker, error, False) != FAILED:
        return 0
    accept_ended(accept)
    discard_placeholder(accept)
    return error


cdef inline int post_accept(Worker *worker, Accept *accept) noexcept nogil:
    """Post the accept, and try again at once if that fails; 0, or the last error: then the worker tries again later.

    A start can fail because a connection in the backlog was reset. That is no reason to wait.
    """
    cdef int error = start_accept(worker, accept)
    while error != 0:
        worker.stats.accept_failures += 1
        if must_wait(worker, accept.listener, error):
            worker.retry_at = worker.now + ACCEPT_RETRY_TIME
            break
        error = start_accept(worker, accept)
    return error


cdef inline void discard_placeholder(Accept *accept) noexcept nogil:
    if accept.placeholder != INVALID_SOCKET:
        closesocket(accept.placeholder)
        accept.placeholder = INVALID_SOCKET


cdef inline void accept_ended(Accept *accept) noexcept nogil:
    """The kernel has given the operation back."""
    accept.in_flight = 0
    accept.listener.in_flight -= 1


cdef inline int arm(Worker *worker, Listener *listener) noexcept nogil:
    """Post accepts until those in flight and the waiting connections are ACCEPTS together; 0 or the first error."""
    cdef int i, error, first_error = 0
    for i in range(ACCEPTS):
        if not listener.accepts[i].in_flight and listener.in_flight + listener.waiting < ACCEPTS:
            error = post_accept(worker, &listener.accepts[i])
            if error != 0 and first_error == 0:
                first_error = error
    return first_error


cdef inline int associate(Worker *worker, Listener *listener) noexcept nogil:
    """Make its accepts end at the worker's port; 0 or the system's error number."""
    cdef Accept *accept
    cdef int i, error
    if not listener.shared:
        return (port_associate_given(worker, listener.socket) if listener.given
                else port_associate(worker, listener.socket))
    error = iocp_associate_shared(listener.socket, worker.port, KEY_OPERATION)
    for i in range(ACCEPTS):
        accept = &listener.accepts[i]
        if error == 0:
            error = iocp_event_open(&accept.event, worker.port, KEY_OPERATION, &accept.operation.overlapped)
    return error


cdef inline void close_events(Listener *listener) noexcept nogil:
    """Called when nothing is in flight. From now on nothing refers to the accepts, and their memory may be freed."""
    cdef int i
    for i in range(ACCEPTS):
        iocp_event_close(&listener.accepts[i].event)


cdef inline int start_listening(Worker *worker, Listener *listener) noexcept nogil:
    """Associate and arm; 0 if at least one accept is posted, else the system's error number."""
    cdef int error = associate(worker, listener)
    if error != 0:
        return error
    error = arm(worker, listener)
    return 0 if listener.in_flight > 0 else error


cdef inline void count_accepted(Worker *worker, Listener *listener) noexcept nogil:
    worker.stats.accepted += 1
    InterlockedExchangeAdd64(&listener.accepted, 1)


cdef inline void count_refused(Worker *worker, Listener *listener) noexcept nogil:
    """Count a connection that was closed at once; without a listener it was given to adopt()."""
    worker.stats.refused += 1
    if listener != NULL:
        InterlockedExchangeAdd64(&listener.refused, 1)


cdef inline void cancel_accepts(Listener *listener) noexcept nogil:
    """They still end by packets. Each is cancelled alone: another proactor may have accepts on the same socket."""
    cdef int i
    for i in range(ACCEPTS):
        if listener.accepts[i].in_flight:
            CancelIoEx(<HANDLE> <ULONG_PTR> listener.socket, &listener.accepts[i].operation.overlapped)


cdef inline void update_accepted(Listener *listener) noexcept nogil:
    """Update accepted sockets whose packets are still to come: Windows cannot once the listening socket is closed."""
    cdef Accept *accept
    cdef int i
    for i in range(ACCEPTS):
        accept = &listener.accepts[i]
        if accept.in_flight and accept.operation.overlapped.Internal == 0:
            accept.updated = iocp_update_accepted(
                iocp_accepted(accept.placeholder, &accept.operation.overlapped), listener.socket) == 0


cdef inline void close_listening(Listener *listener) noexcept nogil:
    """Close the listening socket, and release the lock of a thread that waits for that."""
    update_accepted(listener)
    if not listener.given:      # a forked child may hold the socket: connections to it would wait there for ever
        iocp_stop_listening(listener.socket)
    closesocket(listener.socket)
    listener.socket = INVALID_SOCKET
    PyThread_release_lock(listener.unlistened)


cdef inline SOCKET on_accept(Worker *worker, Accept *accept, int status) noexcept nogil:
    """An accept has ended, with 0 or an error number: the connected socket, or INVALID_SOCKET."""
    cdef Listener *listener = accept.listener
    cdef SOCKET socket
    accept_ended(accept)
    if status != 0:
        discard_placeholder(accept)
        if not (listener.closing and status_cancelled(status)):
            worker.stats.accept_failures += 1
        return INVALID_SOCKET
    listener.failures = 0
    socket = iocp_accepted(accept.placeholder, &accept.operation.overlapped)
    accept.placeholder = INVALID_SOCKET
    if listener.lingers:
        iocp_linger_off(socket)     # else close could block the worker, or reset the connection after all was sent
    count_accepted(worker, listener)
    if not accept.updated:
        status = iocp_update_accepted(socket, listener.socket)
    if status != 0:
        closesocket(socket)
        count_refused(worker, listener)
        return INVALID_SOCKET
    return socket
