# Handlers in Python that do at random what users do, and note what they see.
#
# A session sends a stretch of the peers' pattern, as its peer does, so that each side knows which byte comes next. A
# handler echoes, or talks: it sends what it likes when it likes.
# Ownership: a Talk is its Session's data; the Cast has all Talks.
# Threads: the world's. Callbacks are Cython functions, because a violation jumps out of them, and no frame of the
# interpreter would survive that.


# ---- what a session has seen ----

cdef class Talk:
    """A session's `data`: which callbacks it has had, and what it has sent."""
    cdef sim_connection *connection
    cdef object session         # a weak reference
    cdef size_t offset          # in the pattern
    cdef uint64_t received
    cdef uint64_t sent          # bytes that send() has taken
    cdef uint64_t budget        # bytes that it may send
    cdef unsigned int falses    # times that send() returned False
    cdef unsigned int failures  # times that send() raised an exception
    cdef unsigned int drains
    cdef const char *excuse     # noted before its connection is made
    cdef bint dialled
    cdef bint echoes
    cdef bint listens           # its handler has on_receive
    cdef bint drained_told      # ... and on_drain
    cdef bint shutdown_told     # ... and on_shutdown
    cdef bint shut              # on_shutdown has come
    cdef bint held              # it is open, and its worker knows that it is paused
    cdef bint heard             # on_receive has come while its worker closes
    cdef bint was_paused
    cdef bint aborted           # abort() was called
    cdef bint connected
    cdef bint paused
    cdef bint owed              # an on_drain is due
    cdef bint finished          # end(), close() or abort() was called
    cdef bint leaving           # close() or abort() was called
    cdef bint ended             # on_end has come
    cdef bint closed            # on_close has come
    cdef bint raised            # a callback of its has raised an exception
    cdef bint debt              # it waits to be resumed or ended


cdef void must(bint holds, Talk talk, const char *rule) noexcept:
    if holds:
        return
    if talk.connection != NULL:
        sim_violation("connection %u: %s", sim_number(talk.connection), rule)
    sim_violation("a connection not yet made: %s", rule)


cdef void tell(Talk talk, const char *what) noexcept:
    if talk.connection != NULL:
        sim_tell("connection %u: %s", sim_number(talk.connection), what)
    else:
        sim_tell("a connection not yet made: %s", what)


cdef void excuse(Talk talk, const char *why) noexcept:
    talk.excuse = why
    if talk.connection != NULL:
        sim_excuse(talk.connection, why)


cdef bint is_excused(Talk talk) noexcept:
    """May bytes be missing?"""
    return talk.excuse != NULL or talk.connection == NULL or sim_was_reset(talk.connection) or (
        sim_excused(talk.connection) != NULL)


cdef bytes next_bytes(Talk talk, size_t count):
    cdef const unsigned char *first = peers_pattern() + (talk.offset + talk.sent) % PEERS_PERIOD
    return PyBytes_FromStringAndSize(<const char *> first, count)


cdef bint is_next(Talk talk, bytes data) noexcept:
    cdef const unsigned char *expected = peers_pattern() + (talk.offset + talk.received) % PEERS_PERIOD
    return len(data) <= PEERS_PERIOD and memcmp(PyBytes_AS_STRING(data), expected, len(data)) == 0


# ---- handlers ----

cdef class Actor:
    """A handler: some of its methods are the callbacks."""
    cdef Cast cast
    cdef bint echoes
    cdef bint dials
    cdef bint listens
    cdef bint drained_told
    cdef bint end_told
    cdef bint shutdown_told

    def on_connect(self, Session session):
        cdef Talk talk = session.data
        self.cast.callbacks += 1
        if talk is None:
            talk = self.meet(session)
        must(not talk.connected and not talk.closed and not talk.leaving, talk, "on_connect came twice, or too late")
        talk.connected = True
        talk.connection = connection_of(session)
        tell(talk, "on_connect")
        if talk.excuse != NULL:
            sim_excuse(talk.connection, talk.excuse)
        self.meet_peer(talk)
        self.play(session, talk, 0)

    def on_receive(self, Session session, bytes data):
        cdef Talk talk = session.data
        self.cast.callbacks += 1
        tell(talk, "on_receive")
        must(is_open(talk) and not talk.paused and not talk.ended, talk, "on_receive came when it must not")
        must(is_next(talk, data), talk, "on_receive brought wrong bytes")
        talk.received += len(data)
        talk.heard = talk.heard or self.cast.run.workers[session.worker].closing
        must(not talk.dialled or talk.received <= talk.sent, talk, "on_receive brought more than was sent")
        self.play(session, talk, len(data))

    def on_end(self, Session session):
        cdef Talk talk = session.data
        self.cast.callbacks += 1
        tell(talk, "on_end")
        must(is_open(talk) and not talk.paused and not talk.ended, talk, "on_end came when it must not")
        talk.ended = True
        check_received(self.cast, talk, "on_end came before all of the peer's data")
        self.play(session, talk, 0)

    def on_drain(self, Session session):
        cdef Talk talk = session.data
        self.cast.callbacks += 1
        tell(talk, "on_drain")
        must(is_open(talk), talk, "on_drain came when it must not")
        talk.drains += 1
        must(talk.drains <= talk.falses + talk.failures, talk, "on_drain came more often than send() said False")
        talk.owed = False
        self.play(session, talk, 0)

    def on_shutdown(self, Session session):
        cdef Talk talk = session.data
        self.cast.callbacks += 1
        tell(talk, "on_shutdown")
        must(is_open(talk) and not talk.shut, talk, "on_shutdown came when it must not")
        must(self.cast.run.workers[session.worker].closing, talk, "on_shutdown came, but its worker does not close")
        check_heard(native_of(session), talk)
        talk.shut = True
        self.play(session, talk, 0)
        if not talk.finished and sim_below(2):
            try:
                self.cast.leave(session, talk)
            except BaseException:
                self.note_raised(talk)
                raise

    def on_close(self, Session session, error):
        cdef Talk talk = session.data
        self.cast.callbacks += 1
        tell(talk, "on_close" if error is None else "on_close, with an error")
        must(not talk.closed, talk, "on_close came twice")
        must(session.closed and (talk.connected or talk.dialled), talk, "on_close came early, or without on_connect")
        must(error is None or isinstance(error, OSError), talk, "on_close came with an error that is no OSError")
        must(error is not None or session.unsent == 0 or talk.aborted, talk, "bytes are unsent, but no error says so")
        must((error is not None and error.__cause__ is not None) == talk.raised, talk,
             "on_close's error has a wrong cause, or lacks one")
        check_closed(self.cast, session, talk, error is None)
        self.play(session, talk, 0)

    cdef Talk meet(self, Session session):
        """The session is seen for the first time: make its Talk."""
        cdef Talk talk = Talk.__new__(Talk)
        talk.session = weakref.ref(session)
        talk.dialled = self.dials
        talk.echoes = self.echoes
        talk.listens = self.listens
        talk.drained_told = self.drained_told
        talk.shutdown_told = self.shutdown_told
        talk.budget = sim_scale(1, 60000)
        session.data = talk
        self.cast.talks.append(talk)
        if sim_below(2):
            self.cast.handles.append(session)
        return talk

    cdef void meet_peer(self, Talk talk) noexcept:
        cdef peers_view view
        talk.budget = min(talk.budget, 256 * sim_room(talk.connection))
        if not talk.dialled:
            if not peers_look(self.cast.run.everybody, talk.connection, &view):
                sim_violation("connection %u has no peer", sim_number(talk.connection))
            talk.offset = view.offset

    cdef int play(self, Session session, Talk talk, size_t received) except -1:
        """Answer a callback, and now and then do something else too."""
        cdef bint first = sim_below(2)
        try:
            if first:
                self.have_a_whim(session, talk)
            self.answer(session, talk, received)
            if not first:
                self.have_a_whim(session, talk)
        except BaseException:
            self.note_raised(talk)
            raise
        return 0

    cdef void note_raised(self, Talk talk) noexcept:
        self.cast.errors += 1
        if not talk.closed:
            talk.finished = talk.leaving = talk.raised = True
            excuse(talk, "a callback raised an exception")

    cdef int have_a_whim(self, Session session, Talk talk) except -1:
        if not talk.closed and sim_one_in(self.cast.whims):
            self.cast.act(session, talk, True)
        return 0

    cdef int answer(self, Session session, Talk talk, size_t received) except -1:
        if talk.closed:
            self.cast.try_closed(session, talk)
        elif talk.echoes:
            self.echo(session, talk, received)
        else:
            self.say_something(session, talk)
        return 0

    cdef int echo(self, Session session, Talk talk, size_t received) except -1:
        cdef size_t part
        cdef bint went = True
        while received > 0 and not talk.finished:
            part = sim_scale(1, received)
            went = self.cast.say(session, talk, part, sim_one_in(8))    # now and then as from another thread
            received -= part
        if not went and talk.drained_told and sim_below(2):
            self.cast.pause(session, talk)
        elif talk.paused and not talk.owed:
            self.cast.resume(session, talk)
        if talk.ended:
            self.cast.finish(session, talk)
        return 0

    cdef int say_something(self, Session session, Talk talk) except -1:
        cdef int _i
        for _i in range(<int> sim_below(PIECES + 1)):
            self.cast.say_some(session, talk, False)
        if talk.dialled and talk.received == talk.sent and not talk.finished:
            self.cast.say_some(session, talk, False)
            if talk.received == talk.sent:
                self.cast.close(session, talk)      # all is sent, and has come back
        if not talk.ended or talk.leaving:
            return 0
        if sim_below(2):
            self.cast.owe(session, talk)
        else:
            self.cast.finish(session, talk)
        return 0


cdef bint is_open(Talk talk) noexcept:
    return talk.connected and not talk.leaving and not talk.closed


cdef sim_connection *connection_of(Session session) noexcept:
    """Its connection; NULL before it is made, and after it is closed."""
    cdef NativeSession *native = native_of(session)
    if native == NULL or native.socket == INVALID_SOCKET:
        return NULL
    return sim_connection_of(<int> native.socket)


cdef NativeSession *native_of(Session session) noexcept:
    if session.handler is None or session.pool.life >= STOPPED:
        return NULL
    return session_resolve(&session.pool.native[session.worker], session.link.slot, session.link.generation)
