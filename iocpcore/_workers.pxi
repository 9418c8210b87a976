# The workers of a proactor, as Python sees them: their memory, the state of their life, and the way to their inboxes.
#
# Ownership: a WorkerPool owns the workers' structs until nothing refers to the pool. Each object that uses a worker
# holds the pool: its Proactor, its threads, each Listener, Load and Session. So a pointer to a worker never dangles. A
# worker that ends shuts its inbox. When close() then lets go of it (let_go()), its port and the memory of its sessions
# and operations are freed, and its last statistics are published. If some of that memory is still in use, the pool and
# all that it keeps are leaked on purpose.
# Threads: under the GIL.


# From RUNNING on, a call that is refused in one state is refused in the later ones too.
cdef enum Life:
    UNMADE      # Proactor.__init__() was not called
    PARENTS     # the parent process has made them; this is a forked child
    RUNNING
    STOPPING    # close() was called, or a callback has raised SystemExit or KeyboardInterrupt
    STOPPED     # the workers have ended
    LEAKED      # close() has given up: the system may still write to their memory, or a thread may still run


@cython.internal
@cython.final
cdef class WorkerPool:
    """The workers of a proactor, and the state of their life."""
    cdef Worker *native
    cdef PyThread_type_lock *ended  # one for each worker; several threads may wait for it in close()
    cdef int count
    cdef Life life
    cdef long process_id    # of the process that has made them
    cdef list kept          # listeners and loads that workers may use
    cdef Py_ssize_t kept_enough     # the length of `kept` at which those that are over are dropped
    cdef object failure     # SystemExit or KeyboardInterrupt of a callback, until it is raised again

    def __dealloc__(self):
        # Worker threads hold a reference, so none is left. Workers that have not stopped are left as they are: they
        # were never closed. In a forked child they are the parent's; at the interpreter's end the objects that they
        # refer to may be gone.
        cdef int i
        if self.life != STOPPED:
            return
        for i in range(self.count):
            if self.ended[i] != NULL:
                PyThread_free_lock(self.ended[i])
        free(self.ended)
        free(self.native)

    cdef int make(self, int count, int backend, bint skip_on_success, int most_sessions) except -1:
        cdef int i
        self.process_id = iocp_process_id()
        self.kept = []
        self.life = STOPPED     # until all workers are made
        self.native = <Worker *> calloc(count, sizeof(Worker))
        self.ended = <PyThread_type_lock *> calloc(count, sizeof(PyThread_type_lock))
        if self.native == NULL or self.ended == NULL:
            raise MemoryError()
        self.count = count
        try:
            for i in range(count):
                self.make_worker(i, backend, skip_on_success)
        except BaseException:
            self.free_each()
            raise
        self.native[0].places.limit.most = most_sessions
        self.life = RUNNING
        return 0

    cdef int make_worker(self, int index, int backend, bint skip_on_success) except -1:
        cdef Worker *worker = &self.native[index]
        worker.ended = self.ended[index] = held_lock()
        cdef int error = worker_init(worker, index, self.native, self.count, backend, skip_on_success)
        if error != 0:
            raise system_error(error)
        worker.attach = attach
        worker.session_ops.deliver = deliver_sessions
        worker.warn_period = nanoseconds("WARNED_EVERY", WARNED_EVERY)
        return 0

    # ---- may this be done now? ----

    cdef int check(self, Life latest) except -1:
        """RuntimeError if they are another process's, or their life is beyond the state `latest`."""
        if self.life == UNMADE:
            raise RuntimeError("Proactor.__init__() was not called")
        if self.process_id != iocp_process_id():    # asked of the system: Python is not told of every fork
            raise RuntimeError("this proactor belongs to the parent process; make a new one after fork")
        if self.life > latest:
            raise RuntimeError("the proactor is closed")
        return 0

    cdef bint lives(self) noexcept:
        """Are they running, or stopping?"""
        return self.life == RUNNING or self.life == STOPPING

    cdef bint is_broken(self, int index):
        return self.native[index].broken != NOT_BROKEN

    cdef int check_port(self, int index) except -1:
        """If the worker's port is broken, raise the error with which its sessions have ended."""
        if self.is_broken(index):
            raise system_error(self.native[index].broken_by)
        return 0

    # ---- messages to them, and objects that they use ----

    cdef int put(self, int index, Message *message, bint closed_is_fine) except -1:
        """Give the message to a worker. If the worker does not take it, free the message and raise an error.

        closed_is_fine: raise nothing if the worker has ended, or its port is broken."""
        self.check(LEAKED)
        if (closed_is_fine or self.life == RUNNING) and inbox_put(&self.native[index], message):
            return 0
        forget_message(message)
        if self.life == RUNNING:
            if not self.is_broken(index):
                raise MemoryError(CANNOT_WAKE)
            if not closed_is_fine:
                self.check_port(index)
        elif not closed_is_fine:
            raise RuntimeError("the proactor is closed")
        return 0

    cdef int keep(self, kept) except -1:
        """Keep an object that workers will use. From time to time, drop those that are over."""
        if len(self.kept) >= self.kept_enough:
            self.forget_over()
            self.kept_enough = 2 * len(self.kept) + 16
        self.kept.append(kept)
        return 0

    cdef int forget_over(self) except -1:
        """Drop the objects that are over. The GIL is held meanwhile: no other thread can add one that would be lost."""
        self.kept = [one for one in self.kept if not is_over(one)]
        return 0

    # ---- choosing a worker ----

    cdef int next_alive(self, int turn, list numbers) except -1:
        """The index of the worker whose turn it is: in the list, or among all workers if that is None. Workers with a
        broken port are skipped."""
        cdef int i, at
        cdef int count = self.count if numbers is None else <int> len(numbers)
        for i in range(count):
            at = (turn + i) % count
            if not self.is_broken(at if numbers is None else numbers[at]):
                return at
        return turn % count

    cdef int emptiest(self):
        """The worker with the fewest sessions."""
        cdef int i, best = 0
        for i in range(1, self.count):
            if iocp_read32(&self.native[i].load) < iocp_read32(&self.native[best].load):
                best = i
        return best

    # ---- statistics ----

    cdef StatsRow row(self, int index):
        """The statistics that the worker has published last."""
        cdef StatsRow row
        AcquireSRWLockExclusive(&self.native[index].published_lock)
        row = self.native[index].published
        ReleaseSRWLockExclusive(&self.native[index].published_lock)
        return row

    cdef list rows(self):
        cdef int i
        return [self.row(i) for i in range(self.count)]

    # ---- their end ----

    cdef void stop_because_of(self, error) noexcept:
        """A callback has raised SystemExit or KeyboardInterrupt. The thread that waits for us will raise it again."""
        cdef int i
        if self.failure is None:
            self.failure = error
        if not self.lives():
            return      # they were leaked, or are being freed, or are the parent's
        self.life = STOPPING
        for i in range(self.count):
            inbox_ask_to_close(&self.native[i], 0)

    cdef void leave_to_parent(self) noexcept:
        """In a forked child: leave the workers to the parent, so that nothing is done twice."""
        cdef int i
        if not self.lives():
            return
        self.life = PARENTS
        for i in range(self.count):
            self.native[i].abandoned = 1

    cdef int raise_failure(self) except -1:
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure
        return 0

    cdef int ask_to_close(self, uint64_t drain) except -1:
        cdef int i
        for i in range(self.count):
            if not inbox_ask_to_close(&self.native[i], drain):
                raise MemoryError(CANNOT_WAKE)
        return 0

    cdef int let_go(self, bint ended) except -1:
        """Called once: free the workers' memory; leak it if they have not ended."""
        if self.life >= STOPPED:
            return 0
        self.life = STOPPED
        if ended and self.free_each():
            self.kept.clear()
            return 0
        Py_INCREF(self)     # never freed: operations or threads that have not ended may still refer to its memory
        if not (ended and self.any_broken()):
            self.life = LEAKED
        return 0

    cdef bint free_each(self):
        """Free each worker's memory, after the callbacks that are still due. False if some memory had to be leaked."""
        cdef int i
        cdef bint drained = True
        for i in range(self.count):
            drained &= worker_free(&self.native[i])
        return drained

    cdef bint any_broken(self):
        """Is a port broken? If so, the log has already said that its sessions were ended."""
        cdef int i
        for i in range(self.count):
            if self.is_broken(i):
                return True
        return False


cdef int forget_message(Message *message) except -1:
    """Free a message that no worker has taken, and its reference to a Python object."""
    cdef void *python = message.python
    message_free(message)
    if python != NULL:
        Py_DECREF(<object> python)
    return 0
