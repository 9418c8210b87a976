# Delivery: calls the callbacks that are due after a batch, and the functions that were posted.
#
# Ownership: the native session holds one reference to its Session, from the moment both refer to each other until
# on_close has returned.
# Threads: each worker's own thread, with the GIL; and the thread that calls close(), for workers that have ended.

cdef void attach(Worker *worker, Item *first) noexcept nogil:
    with gil:
        worker.attached_at = iocp_now(worker.port)
        deliver_all(worker, first)


cdef void deliver_all(Worker *worker, Item *item) noexcept:
    cdef unsigned long before = worker.thread
    worker.thread = PyThread_get_thread_ident()
    if warnings_are_due(worker):
        tell_warnings(worker)
    deliver_messages(worker)
    while item != NULL and not worker.abandoned:
        item = item.ops.deliver(worker, item)
    worker.thread = before
    drop_pinned(worker)


cdef Item *deliver_sessions(Worker *worker, Item *item) noexcept:
    cdef NativeSession *session
    while item != NULL and item.ops == &worker.session_ops and not worker.abandoned:
        session = <NativeSession *> item
        deliver(worker, session)
        if session.queue_bytes > RECEIVE_SIZE and not worker.abandoned:
            # Send this data before the next callback makes as much again, so that its data reuses the memory of this.
            send_early(worker, session)
            drop_pinned(worker)
        item = item.next_call
    return item


cdef void drop_pinned(Worker *worker) noexcept:
    cdef Buffer *buffer = worker.unpinned
    cdef Buffer *after
    worker.unpinned = NULL
    while buffer != NULL:
        after = buffer.next
        Py_DECREF(<object> buffer.pinned)
        free(buffer)
        buffer = after


cdef void deliver_messages(Worker *worker) noexcept:
    """Call the functions that were posted, and on_close for connections that were never made."""
    cdef Message *message = worker.python.head
    cdef Message *after
    worker.python.head = NULL
    while message != NULL and not worker.abandoned:
        after = message.next
        deliver_message(worker, message.error, <object> message.python)
        Py_DECREF(<object> message.python)
        message_free(message)
        message = after


cdef str POSTED = "a function that was posted"


cdef void deliver_message(Worker *worker, int error, object what) noexcept:
    cdef Session session
    if isinstance(what, Session):
        session = what
        warn_unheard(worker, session, error)
        tell_closed(worker, session, system_error(error))
        return
    pool, function, arguments = what
    enter(worker, POSTED, function)
    try:
        function(*arguments)
    except BaseException as raised:
        failed(worker, pool, raised, "the function %r that was posted", (function,))
    worker.callback = NULL


cdef void failed(Worker *worker, WorkerPool pool, object error, str what, tuple arguments) noexcept:
    """A callback has raised this error. The logger alone formats `what`, for a repr() among its arguments may raise."""
    worker.stats.callback_errors += 1
    if isinstance(error, (KeyboardInterrupt, SystemExit)):
        pool.stop_because_of(error)
        return
    ending = log_error(error, what + " raised an exception", arguments)
    if ending is not None:
        pool.stop_because_of(ending)


cdef void session_failed(Worker *worker, NativeSession *native, Session session, object error, str name) noexcept:
    cdef WorkerPool pool = session.pool
    if native != NULL and not worker.abandoned:
        session.ending = session.leaving = True
        session.cause = error
        worker.now = iocp_now(worker.port)
        abort_session(worker, native, BY_EXCEPTION)
        native.reason = BY_EXCEPTION    # even if the callback had closed or aborted the session before it raised
        native.error = WSAECONNABORTED
    failed(worker, pool, error, "%s of session %d with %s", (name, session.number, session.peername))


cdef void deliver(Worker *worker, NativeSession *native) noexcept:
    """Call the session's callbacks that are due, as far as its state still allows them."""
    cdef unsigned char due = native.item.calls
    cdef Session session
    native.item.calls = 0
    if due & CALL_CONNECT and native.state == OPEN:
        introduce_session(worker, native)
    if native.python == NULL:
        return
    session = <Session> native.python
    if due & CALL_CONNECT:
        deliver_call(worker, native, session, session.handler.on_connect, "on_connect")
    if due & CALL_RECEIVE:
        deliver_data(worker, native, session)
    if due & ~(CALL_CONNECT | CALL_RECEIVE) == 0:
        return
    if due & CALL_END:
        if session.paused and native.state == OPEN:
            native.item.calls |= CALL_END
        else:
            deliver_call(worker, native, session, session.handler.on_end, "on_end")
    if due & CALL_DRAIN:
        deliver_call(worker, native, session, session.handler.on_drain, "on_drain")
    if due & CALL_SHUTDOWN:
        deliver_call(worker, native, session, session.handler.on_shutdown, "on_shutdown")
    if due & CALL_CLOSE and not worker.abandoned:
        native.close_told = 1
        native.python = NULL
        if not native.connected:
            warn_unheard(worker, session, native.error)
        native.handler = &nobody.native     # its own may be freed with the Session; the native one may wait for packets
        native.ops = &nobody.native.ops
        tell_closed(worker, session, error_of(native, session))
        Py_DECREF(session)


cdef void introduce_session(Worker *worker, NativeSession *native) noexcept:
    """Let the native session and its Session refer to each other. An accepted session gets its Session here."""
    cdef Session session
    cdef Listener listener
    try:
        if native.python == NULL:
            listener = <Listener> native.listener.python
            session = new_session(listener.proactor.pool, worker.index, listener.handler)
            session.listener = listener
            session.link.slot = native.slot
            session.link.generation = native.generation
            native.link = link_hold(session.link)
            native.python = <void *> session
            Py_INCREF(session)
        session = <Session> native.python
        learn_names(session, native.socket)
    except MemoryError as error:
        native.error = WSAENOBUFS
        abort_session(worker, native, BY_ERROR)


cdef inline void enter(Worker *worker, str name, object callee) noexcept:
    """A callback begins. It counts as progress for close(), which names it if it gives up before its return."""
    worker.stats.callbacks += 1
    worker.callback = <void *> name
    worker.callee = <void *> callee


cdef void learn_names(Session session, SOCKET socket) noexcept:
    """Fill in the addresses that the Session does not have yet. After a reset the system may not know the peer's."""
    cdef SOCKADDR_STORAGE name
    if session.own.sin6_family == 0:
        iocp_own_name(socket, &name)
        if name.ss_family != 0:
            memcpy(&session.own, &name, sizeof(sockaddr_in6))
    if session.peer.sin6_family == 0:
        iocp_peer_name(socket, &name)
        if name.ss_family != 0:
            memcpy(&session.peer, &name, sizeof(sockaddr_in6))


cdef inline bint is_to_hear(NativeSession *native, Session session) noexcept:
    """May callbacks other than on_close be called? Not after close() or abort(), even while these are in the inbox."""
    return native.state == OPEN and not session.leaving and not native.worker.abandoned


cdef inline void deliver_call(Worker *worker, NativeSession *native, Session session, object callback,
                              str name) noexcept:
    if callback is None or not is_to_hear(native, session):
        return
    enter(worker, name, session)
    try:
        callback(session)
    except BaseException as error:
        session_failed(worker, native, session, error, name)
    worker.callback = NULL


cdef bytes input_of(Worker *worker, NativeSession *native):
    """The received bytes, in one piece."""
    cdef Buffer *buffer = native.inbound
    cdef bytes data
    cdef char *to
    if buffer.next == NULL:
        data = PyBytes_FromStringAndSize(buffer.data, buffer.length)
    else:
        data = PyBytes_FromStringAndSize(NULL, chain_length(buffer))
        to = PyBytes_AS_STRING(data)
        while buffer != NULL:
            memcpy(to, buffer.data, buffer.length)
            to += buffer.length
            buffer = buffer.next
    input_consumed(worker, native)
    return data


cdef inline void deliver_data(Worker *worker, NativeSession *native, Session session) noexcept:
    if not is_to_hear(native, session) or session.handler.on_receive is None:
        input_discard(worker, native)
        return
    if session.paused:
        native.item.calls |= CALL_RECEIVE
        return
    enter(worker, "on_receive", session)
    try:
        session.handler.on_receive(session, input_of(worker, native))
    except BaseException as error:
        session_failed(worker, native, session, error, "on_receive")
    worker.callback = NULL


cdef object error_of(NativeSession *native, Session session):
    """The error for on_close; None if nothing was lost, or abort() was called."""
    cdef int number = native.error
    if number == 0 and not session.aborted and link_queued(session.link) > 0:
        number = WSAECONNABORTED    # another thread called send() when the session had just ended
    if number == 0:
        return None
    cdef object error = system_error(number)
    if session.cause is not None:
        error.__cause__ = session.cause
    return error


cdef void tell_closed(Worker *worker, Session session, object error) noexcept:
    cdef object on_close = session.handler.on_close
    session.over = session.ending = True
    session.cause = None    # breaks a cycle: it refers to the callback's frame, and the frame to the session
    if on_close is not None:
        enter(worker, "on_close", session)
        try:
            on_close(session, error)
        except BaseException as raised:
            session_failed(worker, NULL, session, raised, "on_close")
        worker.callback = NULL
    session.handler = None
