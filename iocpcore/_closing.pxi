# How close() waits for the workers: for how long, and what its error says if they do not end.
#
# Threads: under the GIL.


@cython.internal
@cython.final
cdef class Progress:
    """Do the closing workers still make progress?"""
    cdef WorkerPool pool
    cdef double close_by    # time.monotonic() when the drain is over
    cdef uint64_t done      # done_by_now() when it was last called
    cdef double done_at     # ... and when it had last grown, or the drain went on; 0: no call since drain_until()

    def __cinit__(self, WorkerPool pool):
        self.pool = pool
        self.close_by = INFINITY

    cdef int drain_until(self, double close_by) except -1:
        """Of several drains the shortest counts. The margin after it starts again with each close(): between two calls
        of close() a polled worker makes no progress."""
        self.close_by = min(self.close_by, close_by)
        self.done_at = 0
        return 0

    cdef uint64_t done_by_now(self) noexcept:
        """A number that grows with the workers' progress: with each callback as it begins, and with each batch of
        packets. Callbacks are counted with the GIL, so that this thread sees each one."""
        cdef int i
        cdef uint64_t done = 0
        for i in range(self.pool.count):
            done += self.pool.native[i].stats.callbacks + self.pool.row(i).packets
        return done

    cdef bint expected(self) except -1:
        """Is it worth waiting on? False once the drain is over and MARGIN seconds have passed without progress, or if
        the workers have been leaked."""
        cdef uint64_t done = self.done_by_now()
        cdef double now = time.monotonic()
        if done != self.done or now < self.close_by or self.done_at == 0:
            self.done = done
            self.done_at = now
        return now < self.done_at + MARGIN and self.pool.life != LEAKED


cdef str held_up_by(Driver driver, double seconds):
    """The error of a close() that gives up: which callback has not returned, or how many operations are in flight."""
    cdef int i
    held = [hold_up(driver, &driver.pool.native[i]) for i in range(driver.pool.count)]
    return (f"close() timed out after {seconds:g} s without progress: {'; '.join([one for one in held if one])}. "
            "The memory in use was leaked on purpose.")


cdef str hold_up(Driver driver, Worker *worker):
    """What keeps this worker from ending, or None."""
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
    """The callback that the worker is in, its handler and its session. The handler is named by its type: its repr() is
    the user's code."""
    cdef Session session
    cdef str name = <str> worker.callback
    callee = <object> worker.callee
    if name is POSTED:
        return f"{name}, {function_name(callee)}"
    session = callee
    kind = "a closed session" if session.handler is None else session.handler.kind
    return f"{name} of {kind}, session {session.number}"
