# Drivers give a proactor's workers their turns: in threads of their own, or in the thread that calls poll().
#
# Ownership: a driver holds the pool; a worker's thread holds its driver.
# Threads: under the GIL, except the loop of a worker's thread and one turn of poll(), which run without it.


@cython.internal
cdef class Driver:
    """The calls that a proactor makes to its driver."""
    cdef WorkerPool pool

    cdef int start(self) except -1:
        """The workers may work from now on."""
        return 0

    cdef void claim(self) noexcept:
        """Make this thread the one that polls, unless another one is already."""

    cdef int own(self) except -1:
        """RuntimeError unless this thread may end the workers."""
        return 0

    cdef int check_driven(self) except -1:
        """RuntimeError if nothing will ever give the workers a turn."""
        return 0

    cdef unsigned int poll(self, double deadline) except? 0:
        """Give the worker turns until it has done something. Returns how many packets it had."""
        raise RuntimeError("this proactor has worker threads and is not polled; make one with workers=0 to poll it")

    cdef bint run_to_the_end(self, Progress progress) except -1:
        """Wait until the workers have ended; False if they make no progress."""
        raise NotImplementedError

    cdef bint is_running(self, int index):
        """Does the worker's thread still run? A polled worker has none."""
        return False

    cdef int here(self):
        """The number of the worker that this thread may act on at once, being in the worker's callback; else -1."""
        cdef int i
        cdef unsigned long thread = PyThread_get_thread_ident()
        for i in range(self.pool.count if self.pool.lives() else 0):
            if self.pool.native[i].thread == thread:
                return i
        return -1

    cdef int worker_for_another(self):
        """The worker for a new session: in a callback that callback's own, else the one with the fewest sessions."""
        cdef int here = self.here()
        return here if here >= 0 else self.pool.emptiest()

    cdef bint in_callback(self):
        """Is this thread in a callback of the proactor?"""
        return self.here() >= 0


@cython.internal
@cython.final
cdef class Threads(Driver):
    """Each worker has a thread, and gives itself its turns until it has ended."""
    cdef list threads
    cdef set begun          # numbers of the workers whose thread has entered the loop

    def __cinit__(self):
        self.threads = []
        self.begun = set()

    cdef int start(self) except -1:
        cdef int i
        for i in range(self.pool.count):
            self.threads.append(
                threading.Thread(target=self._run, args=(i,), name=f"iocpcore-worker-{i}", daemon=True))
            self.threads[i].start()
        return 0

    def _run(self, int index):
        """The body of a worker's thread. If close() came first, this thread must not touch the workers any more."""
        cdef Worker *worker = &self.pool.native[index]
        if self.pool.life != RUNNING:
            return
        self.begun.add(index)
        with nogil:
            worker_run(worker)
        if self.pool.process_id != iocp_process_id():
            self.pool.raise_failure()   # the callback has called sys.exit() in the child
            logging.getLogger("iocpcore").error(
                "a callback that called fork() has returned in the child process: the proactor belongs to the parent")

    cdef bint run_to_the_end(self, Progress progress) except -1:
        """Wait until all workers that have begun have ended; False if they make no progress.

        Thread.join() cannot tell: if a signal interrupts it, it takes the thread for dead. A thread whose start() was
        interrupted may still begin, but does nothing, because the proactor is closing.
        """
        cdef int i
        for i in sorted(self.begun):
            while not wait_for(self.pool.ended[i], time.monotonic() + 0.1):
                if not progress.expected():
                    return False
            self.threads[i].join(MARGIN)
        return True

    cdef bint is_running(self, int index):
        if index not in self.begun:
            return False
        if not PyThread_acquire_lock(self.pool.ended[index], NOWAIT_LOCK):
            return True
        PyThread_release_lock(self.pool.ended[index])
        return False


@cython.internal
@cython.final
cdef class Polled(Driver):
    """The only worker has its turns in poll(), always in the same thread: the first that listens or polls.

    The worker's `thread` is that thread from then on, also between two callbacks.
    """
    cdef bint polling
    cdef unsigned long poller   # the system's number of the thread that polls

    cdef void claim(self) noexcept:
        if self.pool.native[0].thread == 0:
            self.pool.native[0].thread = PyThread_get_thread_ident()
            self.poller = PyThread_get_thread_native_id()

    cdef int own(self) except -1:
        """RuntimeError unless this is the thread that polls. No other may take over: the system's port may be bound to
        that thread."""
        self.pool.check(STOPPING)
        self.claim()
        if not self.polled_here():
            ended = "" if self.poller_lives() else ", which has ended without closing it"
            raise RuntimeError(f"this proactor is polled by another thread{ended}")
        return 0

    cdef bint polled_here(self) noexcept:
        """Is this the thread that polls? Python's identity alone does not tell: a new thread may get that of an ended
        one."""
        return (self.pool.native[0].thread == PyThread_get_thread_ident()
                and self.poller == PyThread_get_thread_native_id())

    cdef bint poller_lives(self) except -1:
        cdef unsigned long thread = self.pool.native[0].thread
        if thread == PyThread_get_thread_ident():
            return self.polled_here()
        return thread in sys._current_frames()

    cdef int check_driven(self) except -1:
        if self.pool.life < STOPPED and not self.poller_lives():
            self.own()      # raises
        return 0

    cdef int here(self):
        return 0 if self.pool.lives() and self.polled_here() else -1

    cdef bint in_callback(self):
        return self.polling and self.here() >= 0

    cdef int check_poll(self) except -1:
        self.own()
        self.pool.check_port(0)
        if worker_over(&self.pool.native[0]):    # a callback has closed it, and close() was not called again
            raise RuntimeError("the proactor is closed")
        if self.polling:
            raise RuntimeError("poll() was called in a callback")
        return 0

    cdef unsigned int poll(self, double deadline) except? 0:
        cdef unsigned int count
        cdef uint64_t before
        self.check_poll()
        before = self.done_without_packets()
        while True:
            count = self.turn(deadline - time.monotonic())
            PyErr_CheckSignals()
            self.pool.raise_failure()
            self.pool.check(LEAKED)     # a callback may have forked
            while self.pool.is_broken(0) and not worker_over(&self.pool.native[0]):
                self.turn(0)    # ends the sessions that are left
            self.pool.check_port(0)
            if (count > 0 or time.monotonic() >= deadline or self.pool.life >= STOPPING
                    or self.done_without_packets() != before):
                break
        if self.pool.life < STOPPED:    # a callback may have closed us
            iocp_submit(self.pool.native[0].port)   # do not leave this to the next poll(), which may come much later
        return count

    cdef unsigned int turn(self, double seconds):
        """One turn, for at most a tenth of a second, so that signals are noticed. Returns how many packets it had."""
        cdef DWORD milliseconds = <DWORD> (min(max(seconds, 0), 0.1) * 1000 + 0.999)
        cdef Worker *worker = &self.pool.native[0]
        cdef unsigned int count
        if self.pool.life >= STOPPED:   # a signal's handler has closed it
            return 0
        self.polling = True
        with nogil:
            count = worker_turn(worker, milliseconds)
        self.polling = False
        return count

    cdef uint64_t done_without_packets(self):
        return self.pool.native[0].stats.inline_successes + self.pool.native[0].stats.callbacks

    cdef bint run_to_the_end(self, Progress progress) except -1:
        while self.pool.life < STOPPED and not worker_over(&self.pool.native[0]):   # a signal handler may close too
            if not progress.expected():
                return False
            self.turn(0.1)
            PyErr_CheckSignals()
        return True


cdef Driver new_driver(WorkerPool pool, bint polled):
    cdef Driver driver = Polled.__new__(Polled) if polled else Threads.__new__(Threads)
    driver.pool = pool
    return driver
