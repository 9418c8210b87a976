# Closing as close() sees it: for how long it waits for the workers, and what it says if that was in vain.
#
# Threads: under the GIL.


@cython.internal
@cython.final
cdef class Progress:
    """Do the workers that are to end still get anything done?"""
    cdef WorkerPool pool
    cdef double close_by    # time.monotonic() when the drain is over
    cdef uint64_t done      # by the workers, when last looked at
    cdef double done_at     # ... and when that had last grown; 0: nobody has looked yet

    def __cinit__(self, WorkerPool pool):
        self.pool = pool
        self.close_by = INFINITY

    cdef int drain_until(self, double close_by) except -1:
        """Of several drains the shortest counts. The margin after it begins anew: between two calls of close() a
        polled worker gets nothing done."""
        self.close_by = min(self.close_by, close_by)
        self.done_at = 0
        return 0

    cdef uint64_t done_by_now(self) noexcept:
        """Grows with whatever the workers get done; with callbacks, which are counted with the GIL, one by one."""
        cdef int i
        cdef uint64_t done = 0
        for i in range(self.pool.count):
            done += self.pool.native[i].stats.callbacks + self.pool.row(i).packets
        return done

    cdef bint expected(self) except -1:
        """False if the drain is over, and the workers have got nothing done for MARGIN seconds; or are left behind."""
        cdef uint64_t done = self.done_by_now()
        cdef double now = time.monotonic()
        if done != self.done or now < self.close_by or self.done_at == 0:
            self.done = done
            self.done_at = now
        return now < self.done_at + MARGIN and self.pool.life != LEAKED


cdef str held_up_by(Driver driver, double seconds):
    """What close() says when it gives up: which callback has not returned, or what is still in flight."""
    cdef int i
    held = [hold_up(driver, &driver.pool.native[i]) for i in range(driver.pool.count)]
    return (f"close() timed out after {seconds:g} s without progress: {'; '.join([one for one in held if one])}. "
            "The memory in use was leaked on purpose.")


cdef str hold_up(Driver driver, Worker *worker):
    """What this worker has left undone, or None."""
    cdef StatsRow row = driver.pool.row(worker.index)
    runs = driver.is_running(worker.index)
    if runs and worker.callback != NULL:
        return f"worker {worker.index} is in {callback_of(worker)}"
    if row.active > 0:
        have = "session has" if row.active == 1 else "sessions have"
        return f"worker {worker.index}: {row.active} {have} operations in flight"
    if row.in_flight > 0:
        are = "operation is" if row.in_flight == 1 else "operations are"
        return f"worker {worker.index}: {row.in_flight} {are} in flight"
    return f"worker {worker.index} has not ended" if runs else None


cdef str callback_of(Worker *worker):
    """Which it is in, whose, and of which session: by the names of types, for a repr() is the user's code."""
    cdef Session session
    cdef str name = <str> worker.callback
    callee = <object> worker.callee
    if name is POSTED:
        return f"{name}, {function_name(callee)}"
    session = callee
    kind = "a closed session" if session.handler is None else session.handler.kind
    return f"{name} of {kind}, session {session.number}"
