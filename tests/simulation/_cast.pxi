# The cast: Python's side of a run. Sessions of handlers, foreign threads that call from outside, connects to be made.
#
# A call by a foreign thread is simulated between turns, and within callbacks as if the thread had taken the GIL from a
# callback that waits: the worker's thread is not the caller's, so the call goes through the inbox.
# Ownership: a Run holds its Cast. After a violation a Cast may never be freed, because the memory under it is
# discarded: it keeps one reference too many.
# Threads: the world's.

cdef int held = 0       # how often the world's thread has taken the GIL, nested

cdef enum:
    CHOICES = 16
    PIECES = 3
    DIALS = 6

cdef int tokens = 0     # alive


cdef class Token:
    """Each posted function has one; it must be freed when that is over."""

    def __cinit__(self):
        global tokens
        tokens += 1

    def __dealloc__(self):
        global tokens
        tokens -= 1


class Mishap(Exception):
    """Callbacks raise this."""


EXPECTED = (SessionClosed, SendLimitExceeded, MemoryError, RuntimeError, Mishap)    # from a call from outside
logging.getLogger("iocpcore").disabled = True


cdef class Cast:
    cdef Run *run
    cdef Proactor proactor
    cdef list talks             # of all sessions that there were
    cdef list handles           # Sessions that the user keeps
    cdef list debtors           # Sessions that are still to be resumed or ended
    cdef list pinned            # bytes objects that were sent and may be referred to
    cdef uint64_t whims         # a callback does something else one time in so many; 0: never
    cdef uint64_t calls         # a foreign thread calls one time in so many; 0: never
    cdef uint64_t callbacks
    cdef uint64_t errors
    cdef uint64_t posted
    cdef uint64_t post_called
    cdef uint64_t last_called[WORKERS]  # the number of its last posted function

    # ---- calls of a session's owner ----

    cdef bint say(self, Session session, Talk talk, size_t count, bint outside) except -1:
        """Send the next bytes; returns send()'s result."""
        cdef NativeSession *native = native_of(session)
        cdef bint takes = native != NULL and session_takes(native) and not talk.finished
        tell(talk, "send() from outside" if outside else "send()")
        try:
            went = self.send(session, next_bytes(talk, count), outside)
        except BaseException as error:
            must(not isinstance(error, SessionClosed) or not takes or self.run.closing, talk,
                 "send() says that an open session is closed")
            must(not isinstance(error, SessionClosed) or talk.finished or session.closing, talk,
                 "send() says that the session is closed, and closing is False")
            talk.failures += 1
            raise
        must(takes or native == NULL or outside or not inbox_is_empty(native.worker), talk,
             "send() took bytes that it cannot send")
        must(not session.closing, talk, "send() took bytes although closing is True")
        talk.sent += count
        if not went and talk.drained_told:
            talk.owed = True
            talk.falses += 1
        return went

    cdef object send(self, Session session, bytes piece, bint outside):
        cdef Worker *worker = &self.run.workers[session.worker]
        cdef unsigned long thread = worker.thread
        cdef object data = self.in_some_form(piece)
        if outside:
            worker.thread = 0
        try:
            return session.send(data)
        finally:
            worker.thread = thread
            if isinstance(data, bytearray):
                data[:] = bytes(len(data))      # it is ours again: the core must have copied it

    cdef object in_some_form(self, bytes piece):
        cdef uint64_t form = sim_below(4)
        if form == 0:
            return bytearray(piece)
        if form == 1:
            return memoryview(piece)
        if len(piece) > RECEIVE_SIZE:
            self.pinned.append(piece)
        return piece

    cdef int say_some(self, Session session, Talk talk, bint outside) except -1:
        cdef uint64_t left = talk.budget - talk.sent
        if left == 0 or talk.finished:
            return 0
        self.say(session, talk, sim_scale(1, min(left, <uint64_t> (60000 if sim_one_in(4) else 2000))), outside)
        return 0

    cdef int pause(self, Session session, Talk talk) except -1:
        tell(talk, "pause()")
        session.pause()
        talk.paused = talk.was_paused = True
        self.owe(session, talk)
        return 0

    cdef int resume(self, Session session, Talk talk) except -1:
        tell(talk, "resume()")
        session.resume()
        talk.paused = talk.held = False
        return 0

    cdef int owe(self, Session session, Talk talk) except -1:
        """Something must be done for the session, later: see pay()."""
        if not talk.debt:
            talk.debt = True
            self.debtors.append(session)
            self.run.debts += 1
        return 0

    cdef int finish(self, Session session, Talk talk) except -1:
        """All is sent: end the session or, if the peer has ended, perhaps close it."""
        if not talk.ended:
            excuse(talk, "it was ended early")
        if sim_below(2) or not talk.ended:
            tell(talk, "end()")
            session.end()
        else:
            self.close(session, talk)
        talk.finished = True
        return 0

    cdef int close(self, Session session, Talk talk) except -1:
        tell(talk, "close()")
        session.close()
        talk.finished = talk.leaving = True
        return 0

    cdef int leave(self, Session session, Talk talk) except -1:
        """Its proactor closes: close the session now or later. Others last until the drain is over."""
        if sim_below(2):
            self.close(session, talk)
        else:
            self.owe(session, talk)
        return 0

    cdef int abort(self, Session session, Talk talk) except -1:
        tell(talk, "abort()")
        excuse(talk, "it was aborted")
        session.abort()
        talk.aborted = True
        talk.finished = talk.leaving = True
        return 0

    cdef int post(self) except -1:
        worker = <int> sim_below(self.run.count) if sim_below(2) else None
        self.proactor.post(self.on_post, Token(), self.posted + 1, worker=worker)
        self.posted += 1
        sim_tell("a function is posted")
        return 0

    def on_post(self, token, uint64_t number):
        cdef int here = self.proactor.driver.here()
        sim_tell("a function that was posted is called")
        self.callbacks += 1
        self.post_called += 1
        if here < 0 or number <= self.last_called[here]:
            sim_violation("posted functions are called in a wrong order, or by a wrong worker")
        self.last_called[here] = number
        try:
            self.act_on_somebody(True)
        except BaseException:
            self.errors += 1
            raise

    cdef int dial(self) except -1:
        """Connect to a server that echoes."""
        cdef Callbacks handler
        cdef Session session
        cdef Talk talk
        cdef Actor actor = new_actor(self, False, True)
        options = choose_options(self.run, -1)
        handler = handler_for(new_handler(actor), "connect", options)
        use_layer(&handler.native)
        if sim_below(2):
            handler.native.settings.connect_timeout = sim_scale(1000000, 4000000000)
        session = connect_session(self.proactor, handler, _socket.AF_INET, ("127.0.0.1", 9), None)
        sim_tell("connect()")
        self.run.dialled += 1
        talk = actor.meet(session)
        if sim_layered() and not options.keys().isdisjoint(("idle_timeout", "send_timeout")):
            excuse(talk, "it may be closed for a timeout, without a last word")
        if sim_below(2):
            self.say_some(session, talk, False)
        return 0

    # ---- at random ----

    cdef int act(self, Session session, Talk talk, bint inside) except -1:
        """Do something unusual. `inside`: in a callback, of this session or another."""
        cdef uint64_t choice = sim_below(CHOICES)
        if choice == 0:
            excuse(talk, "it was closed early")
            self.close(session, talk)
        elif choice == 1 and sim_below(2):
            self.abort(session, talk)
        elif choice == 2 and inside and sim_below(2):
            self.raise_something()
        elif choice == 3 or choice == 4:
            self.post()
        elif choice < 7:
            self.pause(session, talk)
        elif choice == 7:
            self.resume(session, talk)
        elif choice == 8 and not talk.echoes and not talk.dialled:
            self.finish(session, talk)
        elif choice == 9:
            self.look(session, talk)
        elif choice == 10:
            self.act_on_somebody(inside)
        elif not talk.echoes:
            self.say_some(session, talk, sim_below(2))
            self.say_some(session, talk, False)
        return 0

    cdef int raise_something(self) except -1:
        if not sim_one_in(8):
            raise Mishap()
        sim_tell("a callback stops all")
        warn(self.run, True)
        raise (KeyboardInterrupt if sim_below(2) else SystemExit)()

    cdef int look(self, Session session, Talk talk) except -1:
        must(repr(session).startswith("<iocpcore.Session") and session.unsent <= talk.sent, talk,
             "its repr() or unsent is wrong")
        must(repr(session).endswith("closing>" if session.closing and not session.closed else
                                    "closed>" if session.closed else "ended>" if talk.finished else "open>"), talk,
             "its repr() contradicts closing and closed")
        return 0

    cdef int act_on_somebody(self, bint inside) except -1:
        cdef Session session
        if not self.handles:
            return 0
        session = self.handles[sim_below(len(self.handles))]
        if (<Talk> session.data).closed:
            self.try_closed(session, session.data)
        else:
            self.act(session, session.data, inside)
        return 0

    cdef int try_closed(self, Session session, Talk talk) except -1:
        """A session that has gone takes every call, and only send() raises."""
        session.pause()
        session.resume()
        session.end()
        session.close()
        session.abort()
        try:
            session.send(b"late")
        except SessionClosed:
            return 0
        must(False, talk, "send() took bytes after on_close")
        return 0

    # ---- from outside ----

    cdef void act_from_outside(self) noexcept:
        """What a foreign thread does."""
        try:
            if self.run.dials > 0 and sim_one_in(4):
                self.run.dials -= 1
                self.dial()
            if self.run.closing and self.debtors and sim_one_in(4):
                self.say_to_debtor()
            if self.debtors and sim_one_in(4):
                self.pay()
            elif sim_one_in(self.calls):
                self.act_on_somebody(False)
            if self.handles and sim_one_in(16):
                self.handles.pop(sim_below(len(self.handles)))
            if sim_one_in(self.calls):
                self.post()
        except EXPECTED:
            pass
        except BaseException as error:
            unexpected(error)

    cdef int say_to_debtor(self) except -1:
        """Send while the worker closes: a session that goes on must send that too."""
        cdef Session session = self.debtors[sim_below(len(self.debtors))]
        cdef Talk talk = session.data
        if not talk.closed and not talk.echoes:
            self.say_some(session, talk, True)
        return 0

    cdef int pay(self) except -1:
        """Do for one of the debtors what it waits for."""
        cdef Session session = self.debtors[sim_below(len(self.debtors))]
        cdef Talk talk = session.data
        if talk.paused and not talk.closed:
            self.resume(session, talk)
        if talk.ended and not talk.finished and not talk.closed:
            self.finish(session, talk)
        if talk.shut and not talk.leaving and not talk.closed:
            self.close(session, talk)
        self.debtors.remove(session)
        talk.debt = False
        self.run.debts -= 1
        return 0


cdef void unexpected(error) noexcept:
    sim_violation("%s was raised: %s", <const char *> PyBytes_AS_STRING(type(error).__name__.encode()),
                  <const char *> PyBytes_AS_STRING(str(error).encode()))


# ---- making the cast ----

cdef Actor new_actor(Cast cast, bint echoes, bint dials):
    cdef Actor actor = Actor.__new__(Actor)
    actor.cast = cast
    actor.echoes = echoes
    actor.dials = dials
    actor.listens = echoes or dials or not sim_one_in(8)
    actor.drained_told = sim_below(2)
    actor.end_told = sim_below(2)
    actor.shutdown_told = sim_below(2)
    return actor


cdef object new_handler(Actor actor):
    """A handler as a user would give: an object with some of the callbacks."""
    handler = types.SimpleNamespace(on_connect=actor.on_connect, on_close=actor.on_close)
    if actor.listens:
        handler.on_receive = actor.on_receive
    if actor.drained_told:
        handler.on_drain = actor.on_drain
    if actor.end_told:
        handler.on_end = actor.on_end
    if actor.shutdown_told:
        handler.on_shutdown = actor.on_shutdown
    return handler


cdef dict choose_options(Run *run, int place):
    """Options for its sessions. Also notes what a listener's peers must put up with."""
    options = {"high_water": sim_scale(1, 65536), "receive_size": sim_scale(256, RECEIVE_MOST)}
    if sim_one_in(4):
        options["idle_timeout"] = sim_scale(1, 20000) / 1000
    if sim_one_in(4):
        options["send_timeout"] = sim_scale(1, 20000) / 1000
    if sim_one_in(4):
        options["linger"] = sim_scale(1, 8000) / 1000     # never 0, which would excuse closing with unread input
    if place >= 0 and not options.keys().isdisjoint(("idle_timeout", "send_timeout", "linger")):
        run.customs[place] |= PEERS_TIMED
    return options


cdef void cast_listener(Run *run, int i) noexcept nogil:
    global held
    with gil:
        held = 1
        make_listener(run, i)
        held = 0


cdef void make_listener(Run *run, int i) noexcept:
    cdef Cast cast = <Cast> run.cast
    cdef Listener listener = Listener.__new__(Listener)
    cdef Actor actor = new_actor(cast, sim_below(2), False)
    options = choose_options(run, i)
    if not actor.echoes:
        run.customs[i] |= PEERS_TALK
        if sim_one_in(4):
            options["send_limit"] = sim_scale(1, 20000)
    listener.handler = handler_for(new_handler(actor), "listen", options)
    use_layer(&listener.handler.native)
    listener.native.handler = &listener.handler.native
    listener.proactor = cast.proactor
    listener.address = ("127.0.0.1", i)
    if sim_one_in(3):
        limit_listener(run, i, listener)
    run.places[i].listener = listener.native
    run.places[i].python = <void *> listener
    Py_INCREF(listener)


cdef void limit_listener(Run *run, int i, Listener listener) noexcept:
    refuses = sim_below(2)
    set_limits(listener.native, sim_scale(1, 8), "refuse" if refuses else "wait")
    run.customs[i] |= PEERS_REFUSED if refuses else PEERS_HURRIED


cdef void drop_listener(Place *place) noexcept nogil:
    global held
    with gil:
        held = 1
        Py_DECREF(<object> place.python)
        held = 0
    place.python = NULL


# ---- its part in a run ----

cdef void attach_noted(Worker *worker, Item *first) noexcept nogil:
    """The core's attach(), with the GIL taken before it, so that give_gil_up() knows how often to release it."""
    global held
    with gil:
        held = 2
        attach(worker, first)
        held = 0


cdef void give_gil_up() noexcept nogil:
    """Release the GIL: a violation has jumped out of the code that would have done so."""
    global held
    while held > 0:
        held -= 1
        PyGILState_Release(PyGILState_LOCKED if held > 0 else PyGILState_UNLOCKED)


cdef void cast_begin(Run *run) noexcept nogil:
    global held
    with gil:
        held = 1
        make_cast(run)
        held = 0


cdef void make_cast(Run *run) noexcept:
    global tokens
    cdef Cast cast = Cast.__new__(Cast)
    tokens = 0
    cast.run = run
    cast.talks = []
    cast.handles = []
    cast.debtors = []
    cast.pinned = []
    cast.whims = sim_scale(1, 64) if sim_below(4) else 0
    cast.calls = sim_scale(4, 256) if sim_below(4) else 0
    cast.proactor = Proactor.__new__(Proactor)
    cast.proactor.pool.native = run.workers
    cast.proactor.pool.count = run.count
    cast.proactor.pool.process_id = iocp_process_id()
    cast.proactor.pool.life = RUNNING
    cast.proactor.driver = new_driver(cast.proactor.pool, False)
    run.dials = <int> min(sim_scale(1, DIALS) if sim_one_in(3) else 0, run.limits.calls)
    run.cast = <void *> cast
    Py_INCREF(cast)
    sim_tell("there are handlers in Python")


cdef void foreigners_act(Run *run) noexcept nogil:
    global held
    with gil:
        held = 1
        (<Cast> run.cast).proactor.pool.life = STOPPING if run.closing else RUNNING
        (<Cast> run.cast).act_from_outside()
        held = 0


cdef void check_cast(Run *run) noexcept nogil:
    global held
    with gil:
        held = 1
        check_talks(<Cast> run.cast)
        held = 0


cdef void cast_end(Run *run) noexcept nogil:
    global held
    with gil:
        held = 1
        check_end_of_cast(<Cast> run.cast)
        check_counts(run, <Cast> run.cast)
        Py_DECREF(<Cast> run.cast)
        held = 0
