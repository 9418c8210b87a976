# Listeners as Python sees them.

@cython.final
cdef class Listener:
    """A listening socket with its accepts posted. Made by Proactor.listen().

    address: (host, port) as bound; with IPv6 flow info and scope behind them.
    """
    cdef NativeListener *native
    cdef readonly Proactor proactor
    cdef Handler handler
    cdef int worker                 # which accepts, by number
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
        """The port it is bound to."""
        return self.address[1]

    def close(self):
        """close()

        Accept no more. Connections that were accepted, or wait in the system's queue, are served; its sessions go on.

        When it returns the port is free; in a callback of another worker than the listener's, soon after. It waits for
        that worker at most 5 seconds: RuntimeError if a callback keeps it for longer; it closes the listener then.
        A socket that others share (`shared`) goes on listening there, and its queue is theirs.
        """
        if self.proactor is None:
            return      # it never listened
        self.ask_to_close()
        if not in_callback_of_any():
            self.proactor.wait_until_unlistened(self)

    cdef int ask_to_close(self) except -1:
        if not self.closed:
            self.proactor.unlisten(self)
            self.closed = True
        return 0

    def stats(self):
        """stats()

        A frozen snapshot of its counters, a ListenerStats; in any thread, and after close()."""
        return ListenerStats(
            accepted=iocp_read64(&self.native.accepted), refused=iocp_read64(&self.native.refused),
            sessions=iocp_read32(&self.native.limit.sessions),
            max_sessions=self.native.limit.most or None)

    cdef int error(self):
        """Why it was not armed, or 0."""
        cdef int error
        AcquireSRWLockExclusive(&self.native.worker.published_lock)
        error = self.native.error
        ReleaseSRWLockExclusive(&self.native.worker.published_lock)
        return error

    cdef bint answered(self):
        """Whoever waits for its worker goes on, though perhaps it has not had the GIL since."""
        cdef bint answered
        AcquireSRWLockExclusive(&self.native.worker.published_lock)
        answered = self.native.answered
        ReleaseSRWLockExclusive(&self.native.worker.published_lock)
        return answered or self.proactor.pool.life == LEAKED

    cdef bint over(self):
        """No worker will look at it again."""
        return InterlockedCompareExchange(&self.native.holds, 0, 0) == 0


cdef bint is_over(one):
    return (<Listener> one).over() if isinstance(one, Listener) else (<Load> one).over()


# ---- waiting for a worker ----

_waiting = {}   # threads in listen(): thread -> the listener whose worker they wait for


cdef bint in_callback_of_any():
    """Is this thread a worker's, of any proactor? Workers never wait for workers."""
    cdef Proactor proactor
    for proactor in _live:
        if proactor.driver.in_callback():
            return True
    return False


cdef bint in_circle():
    """Does this thread wait for a worker whose thread waits, perhaps through others, for this one?"""
    cdef Listener listener
    cdef int step
    thread = PyThread_get_thread_ident()
    for step in range(len(_waiting)):
        listener = _waiting.get(thread)
        if listener is None or listener.answered():
            return False
        thread = listener.native.worker.thread  # 0: it is not in a callback
        if thread == PyThread_get_thread_ident():
            return step > 0     # else that one has ended, and we have its identity
    return False


# ---- listening ----

cdef object listening_error(int number):
    """Why a listener was not armed."""
    cdef object error = system_error(number)
    if number != ERROR_INVALID_PARAMETER:
        return error
    return OSError(number, f"{error.strerror} (another listener, or a session, has the socket: listen with shared=True "
                   "in all processes and proactors that share it, each with a descriptor of its own)", None, number)


cdef int set_limits(NativeListener *listener, max_sessions, when_full) except -1:
    if max_sessions is not None:
        listener.limit.most = <LONG> whole("max_sessions", max_sessions, 1, 1 << 30)
    if when_full not in ("wait", "refuse"):
        raise ValueError(f'when_full must be "wait" or "refuse", not {when_full!r}')
    listener.refuses = when_full == "refuse"
    return 0
