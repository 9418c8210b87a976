# The proactor as Python sees it.
#
# Ownership: a Proactor holds its WorkerPool. It is held itself until it is closed (_process.pxi).
# Threads: under the GIL.

cdef class Proactor:
    """Proactor(workers=1, backend=None, *, max_sessions=None, skip_on_success=True, drain=1.0)\n--\n
    Workers, each a thread with a completion port of its own, and their listeners and sessions.

    - workers: how many threads, at most 256; 0: none, and poll() does the work.
    - backend: "auto", or one of backends(); None asks the environment variable IOCPCORE_BACKEND first.
    - max_sessions: how many sessions all listeners together serve at a time; listen() says what happens beyond that.
    - skip_on_success: let operations that succeed at once end without a completion packet, where the system can.
    - drain: seconds that sessions have to finish in a close() without a `drain` of its own, as at the end of a `with`.

    Raises ValueError or TypeError for a bad argument, RuntimeError for a backend that cannot run here, OSError if the
    system refuses a port. It is a context manager: leaving the `with` closes it. If nothing closes it, it lives until
    the interpreter ends, and is closed then with a ResourceWarning, which `python -X dev` shows. A subclass must call
    this `__init__`.

    Attributes: backend (its name), closing (close() was called, or a callback has stopped it).
    """
    cdef WorkerPool pool
    cdef Driver driver
    cdef Progress progress      # of the workers, while close() waits for them
    cdef readonly str backend
    cdef int threads
    cdef int listened
    cdef int posted
    cdef uint64_t drain         # nanoseconds, for a close() without a drain of its own
    cdef str leak               # the error of a close() that has leaked memory
    cdef object __weakref__

    def __cinit__(self):
        self.pool = WorkerPool.__new__(WorkerPool)

    def __init__(self, workers=1, backend=None, *, max_sessions=None, skip_on_success=True, drain=DRAIN):
        if self.pool.life != UNMADE:
            raise RuntimeError("Proactor.__init__() was called twice")
        _start_up()
        cdef int threads = <int> whole("workers", workers, 0, WORKERS_MOST)
        cdef int most = 0 if max_sessions is None else <int> whole("max_sessions", max_sessions, 1, 1 << 30)
        cdef bint skips = truth("skip_on_success", skip_on_success)
        cdef uint64_t time_to_drain = nanoseconds("drain", drain)
        cdef int chosen = _choose_backend(backend)
        self.backend = iocp_backend_name(chosen).decode()
        self.threads = threads
        self.drain = time_to_drain
        self.progress = Progress(self.pool)
        self.driver = new_driver(self.pool, threads == 0)
        self.pool.make(max(1, threads), chosen, skips, most)
        _live.add(self)
        try:
            self.driver.start()
        except BaseException:
            self.close(0)
            raise

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    @property
    def closing(self):
        """True once close() was called, or a callback has raised SystemExit or KeyboardInterrupt."""
        return self.pool.life >= STOPPING

    @property
    def workers(self):
        """The number of worker threads; 0: the proactor is polled."""
        return self.threads

    def __repr__(self):
        count = self.pool.count
        state = "closed" if self.closing else f"{count} worker{'s' * (count != 1)}"
        return f"<iocpcore.Proactor {self.backend}, {state}>"

    def listen(self, handler, host="127.0.0.1", port=0, *, sock=None, shared=False, backlog=None,
               max_sessions=None, when_full="wait", workers=None, **options):
        """listen(handler, host="127.0.0.1", port=0, *, sock=None, shared=False, backlog=None, max_sessions=None,
               when_full="wait", workers=None, **options)

        Accept connections for the handler. When it returns, the accepts are posted. With workers=0 the first thread
        that calls listen() or poll() is the one that polls; in any other thread listen() waits until that one polls.

        - handler: ECHO, DISCARD, or any object with some of the callbacks that Session describes.
        - host: an address or a name; None or "" is every address, IPv4 and IPv6.
        - port: 0 lets the system choose.
        - sock: a TCP socket without TLS that listens already, or is bound, instead of host and port. The listener owns
          it and closes it: pass sock.dup() to keep yours. A duplicate of another holder goes on listening after that.
          On Linux the socket becomes non-blocking for all its holders. SO_LINGER is switched off for its sessions, and
          stays as it is for the socket.
        - shared: other processes, or other proactors, listen on sock too. The system chooses which of them gets a
          connection. On Windows all but one of them must pass shared=True. On Linux it decides only whether close()
          leaves the connections in the system's queue to the others.
        - backlog: how many connections the system holds until they are accepted; None: SOMAXCONN, which suits the
          system. Windows takes at most 200 if a number is given.
        - max_sessions: how many sessions the listener serves at a time; None: no limit but the proactor's.
        - when_full: "wait": further connections wait until a session has ended; "refuse": they are closed at once.
        - workers: the numbers of the workers that serve its sessions; None: all.

        The options of its sessions are those of `Options`.

        Raises OSError with the system's number if the address is in use or cannot be resolved, or, on Windows and
        without shared, if sock belongs to a completion port already.
        Source: AcceptEx, https://learn.microsoft.com/windows/win32/api/mswsock/nf-mswsock-acceptex
        """
        self.pool.check(RUNNING)
        self.driver.claim()
        cdef Listener listener = Listener.__new__(Listener)
        listener.proactor = self
        listener.handler = handler_for(handler, "listen", options)
        listener.native.handler = &listener.handler.native
        set_limits(listener.native, max_sessions, when_full)
        listener.native.shared = truth("shared", shared)
        listener.native.given = sock is not None
        if shared and sock is None:
            raise ValueError("shared=True needs a sock")
        if sock is not None and (host, port) != ("127.0.0.1", 0):
            raise ValueError("pass either sock or host and port: sock has an address already")
        serving = listener.choose_serving(workers)
        if backlog is not None:
            backlog = whole("backlog", backlog, 1, 65535)
        given = sock is not None
        if given:
            _given_socket(sock, backlog)
        else:
            sock = _listening_socket(host, port, backlog, listener.handler.native.settings.no_delay)
        try:
            if IOCP_INHERITS_NO_DELAY:
                listener.native.no_delay = sock.getsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY) != 0
            listener.address = sock.getsockname()
            listener.native.family = sock.family
            listener.arm(serving, sock)
        except BaseException:
            if not given:
                sock.close()    # unless a worker has it by now
            raise
        error = listener.error()
        if error != 0:
            raise listening_error(error)
        return listener

    def connect(self, handler, host, port, *, timeout=None, local_address=None, **options):
        """connect(handler, host, port, *, timeout=None, local_address=None, **options)

        Connect to a server; returns a Session at once. on_connect follows, or on_close with the error.

        - handler: any object with some of the callbacks that Session describes.
        - host: an address or a name, which is resolved in the calling thread. None or "" is this machine.
        - timeout: seconds for the attempt; None: the system's own.
        - local_address: (host, port) to connect from; with IPv6 also (host, port, flow info, scope id). With port 0 the
          system chooses the port, and lets connections to different servers share one, where it can.
        - options: those of `Options`.

        In a callback, the session gets that callback's worker.

        Raises OSError if a host cannot be resolved (socket.gaierror) or the local address cannot be used.
        Source: ConnectEx, https://learn.microsoft.com/windows/win32/api/mswsock/nc-mswsock-lpfn_connectex
        """
        self.pool.check(RUNNING)
        if as_native(handler) is not None or isinstance(handler, Load):
            raise TypeError("connect() takes an object with callbacks; the native client is a Load")
        cdef Handler made = handler_for(handler, "connect", options)
        if timeout is not None:
            made.native.settings.connect_timeout = max(<uint64_t> 1, nanoseconds("timeout", timeout))
        family, address = _resolve(host, port, 1, 0)
        sock = None if local_address is None else _bound_socket(family, local_address)
        try:
            session = connect_session(self, made, family, address, sock)
        except BaseException:
            if sock is not None:
                sock.close()    # unless a worker has it by now
            raise
        return session

    def adopt(self, handler, sock, **options):
        """adopt(handler, sock, **options)

        Serve a connected socket that something else has accepted or connected. The proactor owns it from now on.
        Returns its Session; on_connect follows. The options are those of `Options`. With ECHO or DISCARD there is no
        Session: adopt() returns None, and takes no options.

        If the peer has reset the connection already, on_close has that error. SO_LINGER is switched off; whether the
        socket blocks stays as it is. Raises ValueError if sock is no connected TCP socket, or is an ssl.SSLSocket,
        which would be served without its TLS; OSError if its descriptor was given to a proactor already (a duplicate
        is another descriptor).
        """
        self.pool.check(RUNNING)
        _check_tcp(sock)
        _check_connected(sock)
        cdef Handler native = as_native(handler)    # lives as long as the module: its session keeps no reference
        if native is None:
            native = handler_for(handler, "adopt", options)
        elif options:
            raise TypeError("adopt() takes no options for a native handler")
        cdef Message *message
        cdef Session session = None
        cdef int index
        self.pool.check(RUNNING)    # again: reading the handler's attributes and the socket may have run any code
        index = self.driver.worker_for_another()
        message = message_new(do_serve)
        if message == NULL:
            raise MemoryError()
        message.handler = &native.native
        if isinstance(native, Callbacks):
            session = attach_session(self.pool, message, index, native)
            learn_names(session, descriptor_of(sock))
        put_socket(self.pool, index, message, sock)
        warn_of_backlog(&self.pool.native[index])
        return session

    def post(self, function, *args, worker=None):
        """post(function, *args, worker=None)

        Call the function with these arguments in a worker's thread, soon. What one thread posts to one worker is called
        in order. worker: the worker's number; None: in a callback that callback's own worker, else the workers take
        turns.

        An exception of the function is logged. Raises RuntimeError if the proactor is closed. Functions that were
        posted before that are still called, if need be by the thread that calls close().
        """
        cdef int index
        wrong = why_useless(function)
        if wrong is not None:
            raise TypeError(f"the function to be called, of type {type(function).__name__}, {wrong}")
        self.pool.check(RUNNING)
        if worker is not None:
            index = <int> whole("worker", worker, 0, self.pool.count - 1)
        else:
            index = self.driver.here()
            if index < 0:
                index = self.pool.next_alive(self.posted, None)
                self.posted += 1
        what = (self.pool, function, args)
        cdef Message *message = message_new(do_call)
        if message == NULL:
            raise MemoryError()
        message.python = <void *> what
        Py_INCREF(what)
        self.pool.put(index, message, False)
        warn_of_backlog(&self.pool.native[index])

    def poll(self, timeout=None):
        """poll(timeout=None)

        With workers=0: wait for completion packets for at most `timeout` seconds (None: for ever), handle them, and run
        the callbacks that are due. Returns how many packets there were; 0: the time is over, or something was done
        without a packet.

        Call it from the same thread each time, the first that listened or polled, and not in a callback. Ctrl+C ends
        the wait. Raises RuntimeError in another thread, and when the proactor is closed and all its sessions have
        ended; OSError when the system's port is broken, after all sessions have ended with that error.
        """
        cdef double deadline = INFINITY if timeout is None else after("timeout", timeout)
        self.pool.check(LEAKED)
        return self.driver.poll(deadline)

    def stats(self):
        """stats()

        A frozen snapshot of the counters, a Stats: their sums, and in `workers` the row of each worker. A worker
        publishes its row after each batch of packets. After close(): the last row of each.
        """
        self.pool.check(LEAKED)
        rows = self.pool.rows()
        self.pool.forget_over()
        sums = {name: sum([row[name] for row in rows]) for name in rows[0]}
        workers = tuple([WorkerStats(**in_seconds(row)) for row in rows])
        return Stats(**in_seconds(sums), backend=self.backend, workers=workers)

    def close(self, drain=None):
        """close(drain=None)

        Stop accepting, give sessions `drain` seconds to finish, end those that are left, end the workers. None: the
        constructor's drain.

        - A session whose handler has on_shutdown gets that call, and goes on until the handler ends it.
        - A paused session without on_shutdown goes on too: other threads may send to it, and resume() lets it finish.
        - A session that still connects is given up: only its on_close comes.
        - All other sessions finish: no callback but on_close comes any more. A session has finished when its queue is
          sent and its peer has ended too, or has not ended `linger` seconds after that.

        When `drain` seconds are over, sessions with bytes unsent are aborted, and their on_close has a TimeoutError;
        the others are closed. The callbacks that are due then, perhaps many slow on_close, may take their time. But
        after 5 seconds without progress close() gives up: it leaks the memory that the system may still write to, and
        raises a RuntimeError that names the callback that has not returned, or says how many sessions have operations
        in flight.
        close() may be called again, and by several threads: the shortest drain counts. In a callback it returns at
        once. If a callback has stopped the proactor by SystemExit or KeyboardInterrupt, close() raises that again.
        """
        cdef uint64_t time_to_drain = self.drain if drain is None else nanoseconds("drain", drain)
        self.pool.check(LEAKED)
        if self.pool.life < STOPPED:
            self.driver.own()
        self.pool.life = max(self.pool.life, STOPPING)
        self.progress.drain_until(time.monotonic() + time_to_drain / 1e9)
        if self.pool.life < STOPPED:
            self.pool.ask_to_close(time_to_drain)
            if self.driver.in_callback():
                return
            ended = self.driver.run_to_the_end(self.progress)
            self.pool.check(LEAKED)     # a callback may have forked
            self.let_go(ended)
        _live.discard(self)
        if self.pool.life == LEAKED:
            raise RuntimeError(self.leak)
        self.pool.raise_failure()

    cdef int let_go(self, bint ended) except -1:
        """Let go of the workers, which have ended or make no progress. Of several closing threads the first does it."""
        if self.pool.life < STOPPED:
            self.leak = held_up_by(self.driver, LEAVE_TIME / 1e9 if ended else MARGIN)
            self.pool.let_go(ended)     # which looks again: to put that text together may have run others' code
        return 0


cdef dict in_seconds(dict row):
    """A worker's row for Python: times in seconds instead of nanoseconds."""
    return {**row, "callback_time": row["callback_time"] / 1e9}
