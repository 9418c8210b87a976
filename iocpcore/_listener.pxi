# Listeners as Python sees them.

cdef class Listener:
    """A listening socket with its accepts posted. Made by Proactor.listen().

    address: (host, port) as bound; with IPv6 flow info and scope behind them.
    """
    cdef NativeListener *native
    cdef readonly Proactor proactor
    cdef Handler handler
    cdef int worker                 # by number: its memory may be gone when the listener is closed
    cdef bint closed                # by close(), or it never listened
    cdef readonly tuple address

    def __cinit__(self):
        self.native = <NativeListener *> calloc(1, sizeof(NativeListener))
        if self.native == NULL:
            raise MemoryError()
        listener_init(self.native)
        self.native.armed = held_lock()
        self.native.python = <void *> self
        self.closed = True      # until it has a worker

    def __init__(self):
        raise TypeError("a Listener is made by Proactor.listen()")

    def __dealloc__(self):
        if self.native != NULL and self.native.armed != NULL:
            PyThread_free_lock(self.native.armed)
        free(self.native)

    def __repr__(self):
        return f"<iocpcore.Listener {self.address[0]}:{self.address[1]} {self.handler!r}>"

    @property
    def port(self):
        """The port it is bound to."""
        return self.address[1]

    def close(self):
        """close()

        Accept no more; returns at once. Its sessions go on."""
        cdef InboxItem *item
        if self.closed:
            return
        item = inbox_item_about(DO_UNLISTEN, self.native)
        if item == NULL:
            raise MemoryError()
        self.proactor.put(self.worker, item, True)
        self.closed = True

    def stats(self):
        """stats()

        A frozen snapshot of its counters, a ListenerStats; in any thread, and after close()."""
        return ListenerStats(
            accepted=iocp_read64(&self.native.accepted), refused=iocp_read64(&self.native.refused),
            sessions=InterlockedCompareExchange(&self.native.limit.sessions, 0, 0),
            max_sessions=self.native.limit.most or None)

    cdef bint over(self):
        """No worker will look at it again."""
        return InterlockedCompareExchange(&self.native.holds, 0, 0) == 0


cdef bint is_over(one):
    return (<Listener> one).over() if isinstance(one, Listener) else (<Load> one).over()
