# Requests to a session: from callbacks in its worker's thread at once, from other threads by a message.
#
# Ownership: a buffer that is sent is the session's from then on.
# Threads: the session's worker.
from iocp cimport (
    ERROR_OPERATION_ABORTED, INVALID_SOCKET, SOCKET, WSAENOBUFS, InterlockedDecrement, WSAGetLastError, closesocket,
    iocp_socket)
from buffer cimport buffer_release
from door cimport session_write_merged
from call cimport schedule_call
from close cimport abort_session, close_session, finish
from connect cimport start_connect
from queue cimport queue_unsent
from session cimport introduce, session_resolve, tell_refused
from shutdown cimport goes_on
from steps cimport advance, begin_session, connected_or_failed, count_connect_failure
from structs cimport (
    BY_ERROR, BY_US, CONNECTING, FAILED, FINISHING, INLINE, OPEN, Buffer, Handler, Message, Session, Started, Worker)
from turn cimport defer


cdef inline bint do_request(Worker *worker, Message *message) noexcept nogil:
    """Do the request, unless the session has gone."""
    cdef Session *session = session_resolve(worker, message.link.slot, message.link.generation)
    if session != NULL:
        session_do(worker, session, message.request)
    return True


cdef inline bint do_send(Worker *worker, Message *message) noexcept nogil:
    session_send(worker, session_resolve(worker, message.link.slot, message.link.generation), message.buffer)
    return True


cdef inline void session_do(Worker *worker, Session *session,
                            void (*request)(Worker *, Session *) noexcept nogil) noexcept nogil:
    request(worker, session)
    defer(worker, &session.item)


cdef inline void request_end(Worker *_worker, Session *session) noexcept nogil:
    session.ending = 1


cdef inline void request_pause(Worker *_worker, Session *session) noexcept nogil:
    session.paused += 1


cdef inline void request_abort(Worker *worker, Session *session) noexcept nogil:
    abort_session(worker, session, BY_US)


cdef inline void request_resume(Worker *worker, Session *session) noexcept nogil:
    session.paused -= 1
    if session.item.calls and (not worker.closing or goes_on(session)):
        schedule_call(worker, &session.item, 0)    # deliver what came in the meantime


cdef inline void request_close(Worker *worker, Session *session) noexcept nogil:
    if session.state == OPEN:
        finish(worker, session, BY_US)
    elif session.state == CONNECTING and queue_unsent(session) != 0:
        session.leaving = 1     # it finishes once it is connected, and has sent that
    elif session.state == CONNECTING:
        close_session(worker, session, BY_US)


cdef inline bint session_takes(Session *session) noexcept nogil:
    """May something more be sent?"""
    return (session.state == OPEN or session.state == CONNECTING) and not session.ending


cdef inline bint still_takes(Session *session) noexcept nogil:
    """May it still queue a send by a caller that could not know that the session finishes?"""
    return session_takes(session) or (
        session.state == FINISHING and not (session.end_sent or session.last_word or session.ending))


cdef inline void session_send(Worker *worker, Session *session, Buffer *buffer) noexcept nogil:
    """Queue a send. One that comes too late counts as unsent, and its link goes on counting it as queued."""
    if session != NULL and still_takes(session):
        if not session_write_merged(worker, session, buffer):
            session.error = WSAENOBUFS
            abort_session(worker, session, BY_ERROR)
        defer(worker, &session.item)
        return
    worker.stats.bytes_unsent += buffer.length
    buffer_release(worker, buffer)


# ---- connecting ----

cdef inline bint do_connect(Worker *worker, Message *message) noexcept nogil:
    """Make a session and start to connect. Without a session the handler is told. False: the message is kept."""
    cdef bint bound = message.socket != INVALID_SOCKET
    cdef Session *session = NULL
    cdef Started started
    cdef int error = session_to_connect(worker, message, &session)
    if error != 0:
        connect_refused(worker, message.handler, error)
        return tell_refused(worker, message, error)
    introduce(message, session)
    started = start_connect(worker, session, message.address, message.address_length, bound)
    if started == INLINE:
        connected_or_failed(worker, session, 0)
    elif started == FAILED:
        close_session(worker, session, BY_ERROR)
    advance(worker, session)
    return True


cdef inline int session_to_connect(Worker *worker, Message *message, Session **session) noexcept nogil:
    """Make a session, and its socket unless one is given; 0 or the system's error number."""
    cdef SOCKET socket = message.socket
    if socket == INVALID_SOCKET:
        socket = iocp_socket(worker.port, message.address.ss_family)
    if socket == INVALID_SOCKET:
        return WSAGetLastError()
    if not worker.closing:
        session[0] = begin_session(worker, socket, CONNECTING, message.handler, NULL)
    if session[0] == NULL:
        closesocket(socket)
        return ERROR_OPERATION_ABORTED if worker.closing else WSAENOBUFS
    return 0


cdef inline void connect_refused(Worker *worker, Handler *handler, int error) noexcept nogil:
    """Count a connect that got no session, and tell its handler."""
    InterlockedDecrement(&worker.load)
    count_connect_failure(worker, error)
    handler.ops.refused(worker, handler, error)
