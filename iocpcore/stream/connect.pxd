# The connect step: start_connect() posts ConnectEx, on_connect() says whether there is a connection.
#
# Ownership: the session exists before its connection does, in state CONNECTING; the operation is its `send`, which
# nothing else uses until the connect has ended.
# Threads: the session's worker.
from iocp cimport (
    DWORD, SOCKADDR_STORAGE, ConnectEx, WSAGetLastError, iocp_bind_for_connect, iocp_skip_on_success,
    iocp_update_connected, sockaddr)
from item cimport item_drop, item_hold
from port cimport operation_begin, operation_started, port_associate, port_associate_given
from structs cimport FAILED, OPEN, Session, Started, Worker
from timer cimport timer_set


cdef inline int prepare_connect(Worker *worker, Session *session, int family) noexcept nogil:
    """Bind and associate the socket; 0 or the system's error number. Without a family it is bound already."""
    cdef int error = iocp_bind_for_connect(session.socket, family) if family != 0 else 0
    if error == 0:
        error = (port_associate(worker, session.socket) if family != 0
                 else port_associate_given(worker, session.socket))
    if error == 0 and worker.skip_on_success:
        session.skips = iocp_skip_on_success(session.socket)
    return error


cdef inline int call_connect(Session *session, const SOCKADDR_STORAGE *address, int length) noexcept nogil:
    """ConnectEx; 0, WSA_IO_PENDING or why it failed."""
    cdef DWORD sent = 0
    if ConnectEx(session.socket, <const sockaddr *> address, length, NULL, 0, &sent, &session.send.overlapped):
        return 0
    return WSAGetLastError()


cdef inline Started start_connect(Worker *worker, Session *session, const SOCKADDR_STORAGE *address,
                                  int length, bint bound) noexcept nogil:
    """FAILED: session.error says why."""
    cdef Started started
    cdef int error = prepare_connect(worker, session, 0 if bound else address.ss_family)
    if error != 0:
        session.error = error
        return FAILED
    operation_begin(worker, &session.send)
    item_hold(&session.item)
    if session.handler.settings.connect_timeout != 0:
        timer_set(worker, &session.item, worker.now + session.handler.settings.connect_timeout)
    error = call_connect(session, address, length)
    started = operation_started(worker, error, session.skips)
    if started == FAILED:
        connect_ended(session)
        session.error = error
    return started


cdef inline void connect_ended(Session *session) noexcept nogil:
    """The kernel has given the operation back."""
    item_drop(&session.item)


cdef inline bint on_connect(Worker *worker, Session *session, int status) noexcept nogil:
    """A connect has ended, with 0 or an error number; False if there is no connection: session.error says why."""
    if status == 0:
        status = iocp_update_connected(session.socket)
    if status != 0:
        session.error = status
        return False
    session.state = OPEN
    session.connected = 1
    session.active_at = worker.now
    session.sent_at = worker.now
    worker.stats.connected += 1
    return True
