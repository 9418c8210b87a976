# Connections that Python asks for: how connect(), adopt() and a Load give one to a worker.
#
# Ownership: a message that could not be given is freed, with its reference to the Session; a socket stays its owner's.
# Threads: under the GIL, in any thread.


cdef int connect_native(WorkerPool pool, NativeHandler *handler, int index, int family, tuple address) except -1:
    pool.check(RUNNING)
    cdef Message *message = connect_message(family, address)
    message.handler = handler
    put_loaded(pool, index, message)
    warn_of_backlog(&pool.native[index])
    return 0


cdef Session connect_session(Proactor proactor, Handler handler, int family, tuple address, sock):
    cdef WorkerPool pool = proactor.pool
    pool.check(RUNNING)     # resolving takes its time, and the handler's attributes run others' code
    cdef int index = proactor.driver.worker_for_another()
    cdef Message *message = connect_message(family, address)
    cdef Session session = attach_session(pool, message, index, handler)
    message.handler = &handler.native
    memcpy(&session.peer, message.address, sizeof(sockaddr_in6))
    if sock is not None:
        put_socket(pool, index, message, sock)
    else:
        put_loaded(pool, index, message)
    warn_of_backlog(&pool.native[index])
    return session


cdef Session attach_session(WorkerPool pool, Message *message, int index, Handler handler):
    """The Session of a connection that the message asks for; frees the message if it cannot be made."""
    cdef Session session
    try:
        session = new_session(pool, index, handler)
    except BaseException:
        message_free(message)
        raise
    message.link = link_hold(session.link)
    message.python = <void *> session
    Py_INCREF(session)
    return session


cdef int put_loaded(WorkerPool pool, int index, Message *message) except -1:
    """Give the message, which makes a session, to a worker, whose load it is from now on."""
    pool.put(index, message, False)
    InterlockedIncrement(&pool.native[index].load)
    return 0


cdef int put_socket(WorkerPool pool, int index, Message *message, sock) except -1:
    """So too, with a socket, which is the worker's from now on. If that fails, it stays its owner's."""
    cdef SOCKET descriptor = descriptor_of(sock)
    if descriptor == INVALID_SOCKET:
        forget_message(message)
        raise ValueError("sock was closed while it was handed over")
    if pool.life != RUNNING:    # making the Session may have run a finalizer, and that others' code
        forget_message(message)
        raise RuntimeError("the proactor is closed")
    cdef int error = iocp_claim(descriptor, pool.native[index].port, KEY_OPERATION)
    if error != 0:
        forget_message(message)
        raise taken_error(error)
    message.socket = descriptor
    try:
        put_loaded(pool, index, message)
    except BaseException:
        iocp_unclaim(descriptor)
        raise
    let_go_of(sock)
    return 0


cdef Message *connect_message(int family, tuple address) except NULL:
    cdef Message *message = message_new(do_connect)
    if message != NULL:
        message.address = <SOCKADDR_STORAGE *> calloc(1, sizeof(SOCKADDR_STORAGE))
    if message == NULL or message.address == NULL:
        if message != NULL:
            message_free(message)
        raise MemoryError()
    try:
        message.address_length = socket_address(family, address, message.address)
    except BaseException:
        message_free(message)
        raise
    return message


cdef object taken_error(int number):
    """Why a given socket cannot be had."""
    cdef object error = system_error(number)
    if number != ERROR_INVALID_PARAMETER:
        return error
    return OSError(number, f"{error.strerror} (a session or a listener has this descriptor already)", None, number)
