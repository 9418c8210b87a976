# Listeners as Python sees them, and how each gets the worker that accepts for it.
#
# Ownership: a Listener owns its native listener. The pool keeps the Listener as long as a worker may use that.
# Threads: under the GIL. listen() and close() wait here for the listener's worker. A callback waits for none of its own
# proactor, in close() for none at all, and in listen() for one of another proactor.


@cython.final
cdef class Listener:
    """A listening socket with its accepts posted. Made by Proactor.listen().

    address: the (host, port) that it is bound to; with IPv6 (host, port, flow info, scope id).
    """
    cdef NativeListener *native
    cdef readonly Proactor proactor
    cdef Handler handler
    cdef bint closed                # by close(), or it never listened
    cdef readonly tuple address

    def __cinit__(self):
        self.native = <NativeListener *> calloc(1, sizeof(NativeListener))
        if self.native == NULL:
            raise MemoryError()
        listener_init(self.native)
        self.native.armed = held_lock()
        self.native.unlistened = held_lock()
        self.native.python = <void *> self
        self.closed = True      # until it has a worker

    def __init__(self):
        raise TypeError("a Listener is made by Proactor.listen()")

    def __dealloc__(self):
        if self.native == NULL:
            return
        if self.native.armed != NULL:
            PyThread_free_lock(self.native.armed)
        if self.native.unlistened != NULL:
            PyThread_free_lock(self.native.unlistened)
        free(self.native)

    def __repr__(self):
        if self.address is None:
            return "<iocpcore.Listener that was not made by listen()>"
        host = f"[{self.address[0]}]" if ":" in self.address[0] else self.address[0]
        return f"<iocpcore.Listener {host}:{self.address[1]} {self.handler!r}>"

    @property
    def port(self):
        """The port that it is bound to."""
        return self.address[1]

    def close(self):
        """close()

        Stop accepting. Connections that were accepted already, or wait in the system's queue, are served; its sessions
        go on.

        When it returns the port is free; in a callback of another worker than the listener's, soon after. It waits at
        most 5 seconds for the listener's worker. If a callback keeps that worker busy for longer, it raises
        RuntimeError, and the worker closes the listener after the callback.
        If others share the socket (`shared`), it goes on listening for them, and the connections in its queue are left
        to them.
        """
        if self.proactor is None:
            return      # it never listened
        self.ask_to_close()
        if not in_callback_of_any():
            self.wait_until_unlistened()

    cdef int ask_to_close(self) except -1:
        if not self.closed:
            self.unlisten()
            self.closed = True
        return 0

    def stats(self):
        """stats()

        A frozen snapshot of its counters, a ListenerStats. Works in any thread, and after close()."""
        return ListenerStats(
            accepted=iocp_read64(&self.native.accepted), refused=iocp_read64(&self.native.refused),
            sessions=iocp_read32(&self.native.limit.sessions),
            max_sessions=self.native.limit.most or None)

    cdef int error(self):
        """The error number with which arming it has failed, or 0."""
        cdef int error
        AcquireSRWLockExclusive(&self.native.worker.published_lock)
        error = self.native.error
        ReleaseSRWLockExclusive(&self.native.worker.published_lock)
        return error

    cdef bint answered(self):
        """Has its worker answered? Then the thread that waits for it goes on, once it gets the GIL."""
        cdef bint answered
        AcquireSRWLockExclusive(&self.native.worker.published_lock)
        answered = self.native.answered
        ReleaseSRWLockExclusive(&self.native.worker.published_lock)
        return answered or self.proactor.pool.life == LEAKED

    cdef bint over(self):
        """Will no worker use it again?"""
        return InterlockedCompareExchange(&self.native.holds, 0, 0) == 0

    # ---- getting a worker ----

    cdef object choose_serving(self, workers):
        """The numbers of the workers that serve its sessions, in a new list."""
        cdef int i
        given = range(self.proactor.pool.count) if workers is None else workers
        if not isinstance(given, (list, tuple, range)):
            raise TypeError(f"workers must be a list of their numbers, not {type(workers).__name__}")
        serving = [whole("a worker's number", worker, 0, self.proactor.pool.count - 1) for worker in given]
        if not serving:
            raise ValueError("workers must name at least one worker")
        for i in serving:
            self.native.serving[i // 64] |= <uint64_t> 1 << (i % 64)
        return serving

    cdef int arm(self, list serving, sock) except -1:
        """Give it and its socket to a worker. If this fails before a worker has the socket, the caller still owns it.
        """
        self.proactor.pool.keep(self)
        self.proactor.pool.check(RUNNING)   # again: resolving took time, and handlers and sockets may have run any code
        # From here until a worker has both, no Python code runs that could close the proactor or the socket.
        self.native.socket = descriptor_of(sock)
        if self.native.socket == INVALID_SOCKET:
            raise ValueError("sock was closed while it was handed over")
        self.choose_worker(serving)
        if not self.native.given:
            return self.arm_claimed(sock)
        self.native.lingers = iocp_lingers(self.native.socket)
        cdef int error = iocp_claim(self.native.socket,
                                    NULL if self.native.shared else self.native.worker.port, KEY_OPERATION)
        if error != 0:
            raise listening_error(error)
        try:
            return self.arm_claimed(sock)
        except BaseException:
            if self.closed:     # no worker has it
                iocp_unclaim(self.native.socket)
            raise

    cdef int arm_claimed(self, sock) except -1:
        if self.proactor.driver.here() >= 0:
            self.closed = False     # it has a worker to tell
            let_go_of(sock)
            listen_here(self.native.worker, self.native)
            return 0
        return self.arm_there(sock)

    cdef int choose_worker(self, list serving) except -1:
        """Choose the worker that accepts: in a callback that callback's own, else the workers take turns."""
        cdef int i = self.proactor.driver.here()
        if i < 0:
            i = serving[self.proactor.pool.next_alive(self.proactor.listened, serving)]
            self.proactor.listened += 1
        self.native.worker = &self.proactor.pool.native[i]
        return 0

    cdef int arm_there(self, sock) except -1:
        outer = _waiting.get(PyThread_get_thread_ident())   # set if a signal handler interrupts a listen() and listens
        _waiting[PyThread_get_thread_ident()] = self
        try:
            self.put_unless_in_circle(sock)
            self.wait_until_armed()
        finally:
            if outer is None:
                _waiting.pop(PyThread_get_thread_ident(), None)
            else:
                _waiting[PyThread_get_thread_ident()] = outer
        return 0

    cdef int put_unless_in_circle(self, sock) except -1:
        cdef Message *message
        if in_circle():
            raise RuntimeError("this listen() would wait for ever: the worker that is to listen is itself waiting for "
                               "this thread, in a callback's listen()")
        message = message_about(do_listen, self.native)
        if message == NULL:
            raise MemoryError()
        self.proactor.pool.put(self.native.worker.index, message, False)
        self.closed = False     # it has a worker to tell
        let_go_of(sock)
        return 0

    cdef int wait_until_armed(self) except -1:
        try:
            while not wait_for(self.native.armed, time.monotonic() + 1):
                if self.proactor.pool.life == LEAKED:   # its worker may never come back
                    raise RuntimeError("the proactor is closed")
                self.proactor.driver.check_driven()
        except BaseException:
            self.ask_to_close()
            raise
        return 0

    cdef int unlisten(self) except -1:
        """Stop listening: at once in the worker's own thread, else by a message to the worker."""
        cdef Message *message
        cdef Worker *worker = self.native.worker
        self.proactor.pool.check(LEAKED)
        if self.proactor.driver.here() == worker.index:
            worker.now = iocp_now(worker.port)
            unlisten_here(worker, self.native, True)
            return 0
        if self.over():
            return 0    # its worker has dropped it; perhaps nothing keeps it any more, and a message would outlive it
        message = message_about(do_unlisten, self.native)
        if message == NULL:
            raise MemoryError()
        return self.proactor.pool.put(worker.index, message, True)

    cdef int wait_until_unlistened(self) except -1:
        cdef double deadline = time.monotonic() + MARGIN
        while not wait_for(self.native.unlistened, min(deadline, time.monotonic() + 1)):
            self.proactor.driver.check_driven()
            if time.monotonic() >= deadline:
                raise RuntimeError(f"the listener of port {self.port} is not closed yet: worker "
                                   f"{self.native.worker.index} has been busy for {MARGIN:.0f} s")
        return 0


cdef bint is_over(one):
    return (<Listener> one).over() if isinstance(one, Listener) else (<Load> one).over()


# ---- waiting for a worker ----

_waiting = {}   # {thread in listen(): the listener that it waits for}


cdef bint in_callback_of_any():
    """Is this thread in a callback of any proactor? close() does not wait there: no worker must wait for another."""
    cdef Proactor proactor
    for proactor in _live:
        if proactor.driver.in_callback():
            return True
    return False


cdef bint in_circle():
    """Would this listen() deadlock: does its worker wait in a listen(), perhaps through others, for this thread?"""
    cdef Listener listener
    cdef int step
    thread = PyThread_get_thread_ident()
    for step in range(len(_waiting)):
        listener = _waiting.get(thread)
        if listener is None or listener.answered():
            return False
        thread = listener.native.worker.thread  # 0: the worker is not in a callback
        if thread == PyThread_get_thread_ident():
            return step > 0     # at step 0 the worker's thread has ended, and this one has its identity
    return False


# ---- listening ----

cdef object listening_error(int number):
    """The OSError for a listener that was not armed."""
    cdef object error = system_error(number)
    if number != ERROR_INVALID_PARAMETER:
        return error
    return OSError(number, f"{error.strerror} (another listener or a session uses the socket: listen with shared=True "
                   "in all processes and proactors that share it, each with a descriptor of its own)", None, number)


cdef int set_limits(NativeListener *listener, max_sessions, when_full) except -1:
    if max_sessions is not None:
        listener.limit.most = <LONG> whole("max_sessions", max_sessions, 1, 1 << 30)
    if when_full not in ("wait", "refuse"):
        raise ValueError(f'when_full must be "wait" or "refuse", not {when_full!r}')
    listener.refuses = when_full == "refuse"
    return 0
