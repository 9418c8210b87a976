# Sessions as Python sees them.
#
# Ownership: a Session holds its link, never the native session. The native session holds one reference to the Session,
# from the moment both refer to each other until on_close has returned.
# Threads: all of this under the GIL. A Session's methods may be called in any thread. In the worker's own thread they
# act at once, unless the inbox has something older; in every other case they go through the inbox.


class SessionClosed(ConnectionError):
    """send() was called on a session that has ended, or after its end(), close() or abort()."""
    __module__ = "iocpcore"     # where programs import it from; shown in tracebacks


class SendLimitExceeded(BufferError):
    """send() was called on a session that has `send_limit` bytes queued already."""
    __module__ = "iocpcore"


cdef uint64_t sessions_made = 0     # by this process


@cython.final
cdef class Session:
    """A connection. Made by listen(), connect() and adopt(); its methods may be called in any thread.

    When it has ended, send() raises SessionClosed; end(), pause(), resume(), close() and abort() do nothing.

    The callbacks of its handler, each optional: on_connect(session), on_receive(session, data), on_drain(session),
    on_end(session), on_shutdown(session), on_close(session, error).

    on_shutdown comes once, when the proactor begins to close, to each session that is open then, paused or not. To a
    session that is accepted while the proactor closes it comes after on_connect and the data that came with it. A
    session whose handler has on_shutdown goes on as before until the handler ends it or the drain is over. If several
    callbacks are due at once, their order is: on_connect, on_receive, on_end, on_drain, on_shutdown, on_close.

    - data: for your own use; None at first.
    - listener: the Listener that accepted it; None if connect() or adopt() made it.
    """
    cdef WorkerPool pool
    cdef Link *link
    cdef Callbacks handler          # None once it is closed
    cdef readonly Listener listener     # None if connect() or adopt() made it
    cdef public object data             # the user's own
    cdef uint64_t number
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
        """True once it was closed or aborted, is finishing, or has ended: no callback but on_close comes any more."""
        return self.leaving or self.is_closed() or link_finishes(self.link)

    @property
    def closed(self):
        """True from its on_close on, and once its proactor has ended."""
        return self.is_closed()

    @property
    def peername(self):
        """The peer's (host, port), with IPv6 (host, port, flow info, scope id). None if it is not known, as with a
        socket that was given to adopt() after its peer had reset it."""
        return address_of(&self.peer)

    @property
    def sockname(self):
        """Our own address, in the form of peername; None before the session is connected."""
        return address_of(&self.own)

    @property
    def unsent(self):
        """Bytes that send() has taken, but the system has not. In on_close: the bytes that will never be sent."""
        return link_queued(self.link)

    @cython.binding(False)  # the interpreter has a shorter way to plain methods of C
    def send(self, data):
        """send($self, data)\n--\n
        Queue bytes for sending, in the order of the calls, whichever threads make them. Returns False if more than
        `high_water` bytes are queued now, else True. After a False, on_drain is called once `low_water` bytes are left.

        data: any contiguous buffer. A bytes object of more than 16 KiB is referred to until it is sent. All other data
        is copied, so that its buffer may be changed at once. Empty data sends nothing.

        Raises SessionClosed if the session has ended, or end(), close() or abort() was called; SendLimitExceeded if
        `send_limit` bytes are queued already. `unsent` counts the bytes that are still queued when a connection breaks.
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

        Set this session's high_water and low_water, in bytes (see `Options`). low: None is a quarter of high. With
        high=0 any queued byte is too much, as in asyncio's transports.
        """
        cdef uint64_t high_water = whole("high", high, 0, QUEUE_MOST)
        cdef uint64_t low_water = high_water // 4 if low is None else whole("low", low, 0, high_water)
        self.link.high_water = high_water
        InterlockedExchange64(&self.link.low_water, low_water)

    def end(self):
        """end()

        End the sending side when the queue is sent: the peer sees the end of the stream. Receiving goes on."""
        self.ask(request_end)
        self.ending = True

    def pause(self):
        """pause()

        Stop receiving: no on_receive and no on_end come until resume(). What the peer sends meanwhile waits in the
        system, and when that is full the peer has to wait. A reset by the peer is not noticed either, until resume() or
        a send(). An idle_timeout does end a session that stays paused."""
        cdef Worker *worker = self.native_worker()
        cdef NativeSession *native = NULL
        if self.paused:
            return
        # In a callback it acts at once, whatever the inbox holds: data and the peer's end, even if next, have to wait.
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

        Send what is queued, end the sending side, wait for the peer's end at most `linger` seconds, then close. No
        callback but on_close comes any more.

        While the session still connects and nothing is queued, the attempt is given up."""
        self.ask(request_close)
        self.ending = self.leaving = True

    def abort(self):
        """abort()

        Close at once: the peer sees a reset, and queued bytes are lost. on_close has no error, because you asked for
        the loss; `unsent` says how many bytes it was."""
        self.ask(request_abort)
        self.ending = self.leaving = self.aborted = True

    def stats(self):
        """stats()

        A frozen snapshot of its counters, a SessionStats. Works in any thread, and after its end."""
        return SessionStats(
            bytes_received=link_received(self.link), bytes_sent=link_sent(self.link),
            bytes_queued=link_queued(self.link))

    # ---- inside ----

    cdef bint is_closed(self) noexcept:
        return self.over or self.pool.life >= STOPPED

    cdef Worker *native_worker(self) except? NULL:
        """NULL if the session or its proactor has ended. RuntimeError in a forked child."""
        if self.is_closed():
            return NULL
        if self.pool.life == PARENTS:
            raise RuntimeError("this session belongs to the parent process")
        return &self.pool.native[self.worker]

    cdef NativeSession *here(self, Worker *worker) noexcept:
        """The native session, if this thread may act on it at once. NULL: go through the inbox, or it has ended."""
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
            raise SessionClosed(f"{self!r} no longer takes data to send")
        settings = &self.handler.native.settings
        queued = link_queued(self.link)
        if settings.send_limit != 0 and queued >= settings.send_limit:
            raise SendLimitExceeded(f"{self!r} has {queued} bytes queued, and a send_limit of {settings.send_limit}")
        if length == 0:
            return iocp_read32(&self.link.above) == 0
        native = self.here(worker)
        link_give(self.link, length)
        if queued + length > <size_t> self.link.high_water:
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
        return queued + length <= <size_t> self.link.high_water

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
        raise SessionClosed(f"{self!r} no longer takes data to send")

    cdef Message *message(self, bint (*run)(Worker *, Message *) noexcept nogil) except NULL:
        cdef Message *message = message_new(run)
        if message == NULL:
            raise MemoryError()
        message.link = link_hold(self.link)
        return message

    cdef int ask(self, void (*request)(Worker *, NativeSession *) noexcept nogil) except -1:
        """Make a request to the worker, at once or through the inbox. Does nothing if the session has ended."""
        cdef Worker *worker = self.native_worker()
        cdef NativeSession *native
        cdef Message *message
        if worker == NULL:
            return 0
        native = self.here(worker)
        if native != NULL:
            worker.now = iocp_now(worker.port)      # the callback may have run for long, or the last poll be long ago
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
        """The worker has not taken the message: free it. MemoryError, unless the worker, and so the session, has ended.
        """
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
    session.link.high_water = handler.native.settings.high_water
    session.link.low_water = handler.native.settings.low_water
    return session
