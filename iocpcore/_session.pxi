# Sessions as Python sees them.
#
# Ownership: a Session holds its link, never the native session. The native session holds one reference to the Session,
# from the moment both know each other until on_close has returned.
# Threads: all of this under the GIL. Session's methods may be called in any thread: in the worker's own they act at
# once, unless the inbox has something older; else they go through it.


class SessionClosed(ConnectionError):
    """Sending on a session that has ended, or whose sending side was ended."""
    __module__ = "iocpcore"     # where programs find it, and tracebacks say


class SendLimitExceeded(BufferError):
    """A session has `send_limit` bytes queued already."""
    __module__ = "iocpcore"


cdef uint64_t sessions_made = 0     # by this process


@cython.final
cdef class Session:
    """A connection. Made by listen(), connect() and adopt(); its methods may be called in any thread.

    After its end too: only send() raises then, the others do nothing.

    handler's callbacks, each optional: on_connect(session), on_receive(session, data), on_drain(session),
    on_end(session), on_shutdown(session), on_close(session, error).

    on_shutdown comes once, when the proactor begins to close, to each session that is open then, paused or not; to one
    that is accepted while it closes, right after its on_connect. A session whose handler has it goes on as before until
    the handler ends it or the drain is over. Of several callbacks that are due at once the order is: on_connect,
    on_receive, on_end, on_drain, on_shutdown, on_close.

    - data: the user's own, None at first.
    - listener: which has accepted it; None if we connected, or adopted it.
    """
    cdef WorkerPool pool
    cdef Link *link
    cdef Callbacks handler          # None once it is closed
    cdef readonly Listener listener     # None if we connected, or adopted it
    cdef public object data             # the user's own
    cdef uint64_t number
    cdef size_t high_water
    cdef int worker
    cdef bint paused
    cdef bint ending                # end(), close() or abort() was called, or it is closed
    cdef bint leaving               # close() or abort() was called
    cdef bint aborted               # abort() was called
    cdef bint over                  # on_close has been called, or never will be
    cdef object cause               # what a callback has raised, until on_close
    cdef sockaddr_in6 own
    cdef sockaddr_in6 peer
    cdef object __weakref__

    def __cinit__(self):
        self.link = link_new()
        if self.link == NULL:
            raise MemoryError()
        self.ending = self.leaving = self.over = True   # until it has a proactor

    def __init__(self):
        raise TypeError("a Session is made by listen(), connect() or adopt()")

    def __dealloc__(self):
        if self.link != NULL:
            link_drop(self.link)

    def __repr__(self):
        state = "closed" if self.closed else "closing" if self.closing else "ended" if self.ending else "open"
        return f"<iocpcore.Session {self.number} {self.peername} {state}>"

    @property
    def id(self):
        """A number that no other session of this process has, or will have."""
        return self.number

    @property
    def closing(self):
        """It was closed or aborted, or it finishes, or has ended: no callback but on_close comes any more."""
        return self.leaving or self.is_closed() or link_finishes(self.link)

    @property
    def closed(self):
        """Its on_close has been called, or is being called; or its proactor has gone."""
        return self.is_closed()

    @property
    def peername(self):
        """The peer's (host, port), with IPv6 flow info and scope behind them; None if it is not known: of a socket
        given to adopt() after its peer had reset."""
        return address_of(&self.peer)

    @property
    def sockname(self):
        """Our own (host, port), as peername; None before it is connected."""
        return address_of(&self.own)

    @property
    def unsent(self):
        """Bytes that send() has taken and the system has not. In on_close: those that will never be sent."""
        return link_queued(self.link)

    @cython.binding(False)  # the interpreter has a shorter way to plain methods of C
    def send(self, data):
        """send($self, data)\n--\n
        Queue bytes for sending; order is the order of the calls, those of other threads included. True, or False if
        more than `high_water` bytes are queued now: then on_drain will be called once `low_water` are left.

        data: any contiguous buffer. A bytes object of more than 16 KiB is referred to until it is sent; others are
        copied, and may be changed at once. Of nothing nothing is sent.

        Raises SessionClosed if the session has ended, or end() or close() was called; SendLimitExceeded if `send_limit`
        bytes are queued already. What is still queued when a connection breaks is counted by `unsent`.
        Source: WSASend, https://learn.microsoft.com/windows/win32/api/winsock2/nf-winsock2-wsasend
        """
        cdef Py_buffer view
        if PyBytes_CheckExact(data):
            return self.send_bytes(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), <void *> data)
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            return self.send_bytes(<const char *> view.buf, view.len, NULL)
        finally:
            PyBuffer_Release(&view)

    def set_water_marks(self, high, low=None):
        """set_water_marks(high, low=None)

        For this session, as high_water and low_water of `Options`, in bytes; low: None is a quarter of high.
        high may be 0: whatever is queued is too much, as asyncio's transports have it.
        """
        cdef uint64_t high_water = whole("high", high, 0, QUEUE_MOST)
        cdef uint64_t low_water = high_water // 4 if low is None else whole("low", low, 0, high_water)
        self.high_water = high_water
        InterlockedExchange64(&self.link.low_water, low_water)

    def end(self):
        """end()

        Finish sending when what is queued has gone; receiving goes on. The peer sees the end of the stream."""
        self.ask(request_end)
        self.ending = True

    def pause(self):
        """pause()

        No on_receive and no on_end until resume(): what the peer sends meanwhile waits, and makes it wait. Nobody
        looks whether it has reset the connection either, until resume() or a send(); with idle_timeout a session that
        stays paused ends all the same."""
        cdef Worker *worker = self.native_worker()
        cdef NativeSession *native = NULL
        if self.paused:
            return
        # In a callback at once, whatever the inbox holds: what comes next, the peer's end too, has to wait.
        if worker != NULL and worker.thread == PyThread_get_thread_ident():
            native = session_resolve(worker, self.link.slot, self.link.generation)
        if native != NULL:
            session_do(worker, native, request_pause)
        else:
            self.ask(request_pause)
        self.paused = True

    def resume(self):
        """resume()

        Receive again."""
        if self.paused:
            self.ask(request_resume)
            self.paused = False

    def close(self):
        """close()

        Send what is queued, end, wait for the peer's end at most `linger` seconds, close. Only on_close comes now.

        While it still connects and nothing is queued, the attempt is given up."""
        self.ask(request_close)
        self.ending = self.leaving = True

    def abort(self):
        """abort()

        Close at once; the peer sees a reset, and what is queued is lost. on_close has no error then, for the loss was
        asked for; `unsent` says how much it was."""
        self.ask(request_abort)
        self.ending = self.leaving = self.aborted = True

    def stats(self):
        """stats()

        A frozen snapshot of its counters, a SessionStats; in any thread, and after its end."""
        return SessionStats(
            bytes_received=link_received(self.link), bytes_sent=link_sent(self.link),
            bytes_queued=link_queued(self.link))

    # ---- how ----

    cdef bint is_closed(self) noexcept:
        return self.over or self.pool.life >= STOPPED

    cdef Worker *native_worker(self) except? NULL:
        """NULL if it has gone."""
        if self.is_closed():
            return NULL
        if self.pool.life == PARENTS:
            raise RuntimeError("this session belongs to the parent process")
        return &self.pool.native[self.worker]

    cdef NativeSession *here(self, Worker *worker) noexcept:
        """The native session, or NULL: this thread must go through the inbox, or it has gone."""
        if worker.thread != PyThread_get_thread_ident():
            return NULL
        if not inbox_is_empty(worker):
            return NULL
        return session_resolve(worker, self.link.slot, self.link.generation)

    cdef bint send_bytes(self, const char *data, size_t length, void *pinned) except -1:
        cdef Worker *worker = self.native_worker()
        cdef Settings *settings
        cdef NativeSession *native
        cdef size_t queued
        if self.ending or worker == NULL or link_finishes(self.link):
            raise SessionClosed(f"{self!r} takes no more to send")
        settings = &self.handler.native.settings
        queued = link_queued(self.link)
        if settings.send_limit != 0 and queued >= settings.send_limit:
            raise SendLimitExceeded(f"{self!r} has {queued} bytes queued")
        if length == 0:
            return iocp_read32(&self.link.above) == 0
        native = self.here(worker)
        link_give(self.link, length)
        if queued + length > self.high_water:
            InterlockedExchange(&self.link.above, 1)    # before the worker can send any of it
        if length <= RECEIVE_SIZE:
            pinned = NULL
        try:
            if native != NULL:
                self.send_here(worker, native, data, length, pinned)
            else:
                self.send_there(worker, data, length, pinned)
        except BaseException:
            link_give(self.link, -<long long> length)
            raise
        return queued + length <= self.high_water

    cdef int send_here(self, Worker *worker, NativeSession *native, const char *data, size_t length,
                       void *pinned) except -1:
        cdef Buffer *buffer
        if pinned == NULL:
            if not session_write_copy(worker, native, data, length):
                raise MemoryError()
        else:
            buffer = pin(pinned, data, length)
            if not session_write(worker, native, buffer):
                raise MemoryError()
        defer(worker, &native.item)
        return 0

    cdef int send_there(self, Worker *worker, const char *data, size_t length, void *pinned) except -1:
        cdef Message *message
        cdef size_t room = length
        if length <= RECEIVE_SIZE and inbox_join(worker, self.link, data, length, &room):
            warn_of_backlog(worker)
            return 0
        message = self.message(do_send)
        try:
            message.buffer = pin(pinned, data, length) if pinned != NULL else copy(data, length, room)
        except BaseException:
            message_free(message)
            raise
        if inbox_put(worker, message):
            warn_of_backlog(worker)
            return 0
        if pinned != NULL:
            Py_DECREF(<object> pinned)
        free(message.buffer)
        self.not_taken(worker, message)
        raise SessionClosed(f"{self!r} takes no more to send")

    cdef Message *message(self, bint (*run)(Worker *, Message *) noexcept nogil) except NULL:
        cdef Message *message = message_new(run)
        if message == NULL:
            raise MemoryError()
        message.link = link_hold(self.link)
        return message

    cdef int ask(self, void (*request)(Worker *, NativeSession *) noexcept nogil) except -1:
        """The worker, to do that; nothing if the session has gone."""
        cdef Worker *worker = self.native_worker()
        cdef NativeSession *native
        cdef Message *message
        if worker == NULL:
            return 0
        native = self.here(worker)
        if native != NULL:
            worker.now = iocp_now(worker.port)      # a callback may have lasted long, or the poll before it be long ago
            session_do(worker, native, request)
            return 0
        message = self.message(do_request)
        message.request = request
        if not inbox_put(worker, message):
            self.not_taken(worker, message)
        else:
            warn_of_backlog(worker)
        return 0

    cdef int not_taken(self, Worker *worker, Message *message) except -1:
        """By the worker: MemoryError, unless it has ended, and with it the session."""
        cdef bint ended = inbox_is_shut(worker)
        message_free(message)
        if not ended and not self.pool.is_broken(self.worker):
            raise MemoryError(CANNOT_WAKE)
        return 0


cdef Buffer *pin(void *pinned, const char *data, size_t length) except NULL:
    cdef Buffer *buffer = buffer_pin(pinned, data, length)
    if buffer == NULL:
        raise MemoryError()
    Py_INCREF(<object> pinned)
    return buffer


cdef Buffer *copy(const char *data, size_t length, size_t room) except NULL:
    cdef Buffer *buffer = buffer_copy(data, length, room)
    if buffer == NULL:
        raise MemoryError()
    return buffer


cdef Session new_session(WorkerPool pool, int worker, Callbacks handler):
    global sessions_made
    cdef Session session = Session.__new__(Session)
    session.ending = session.leaving = session.over = False
    session.pool = pool
    session.worker = worker
    session.handler = handler
    sessions_made += 1
    session.number = sessions_made
    session.high_water = handler.native.settings.high_water
    session.link.low_water = handler.native.settings.low_water
    return session
