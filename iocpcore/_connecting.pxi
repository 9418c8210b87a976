# How connect(), adopt() and a Load hand a new connection to a worker.
#
# Ownership: a message that no worker takes is freed, with its reference to the Session; its socket stays the caller's.
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
    pool.check(RUNNING)     # again: resolving took time, and reading the handler's attributes may have run any code
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
    """Make the Session of the connection that the message asks for. Frees the message if that fails."""
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
    """Give a worker a message that makes a session, and count the session in the worker's load."""
    pool.put(index, message, False)
    InterlockedIncrement(&pool.native[index].load)
    return 0


cdef int put_socket(WorkerPool pool, int index, Message *message, sock) except -1:
    """As put_loaded(), with a socket, which the worker owns from now on. If this fails, it stays the caller's."""
    cdef SOCKET descriptor = descriptor_of(sock)
    if descriptor == INVALID_SOCKET:
        forget_message(message)
        raise ValueError("sock was closed while it was handed over")
    if pool.life != RUNNING:    # making the Session may have run a finalizer, and that may have closed the proactor
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
    """The OSError for a socket that a worker cannot take over."""
    cdef object error = system_error(number)
    if number != ERROR_INVALID_PARAMETER:
        return error
    return OSError(number, f"{error.strerror} (a session or a listener uses this descriptor already)", None, number)
