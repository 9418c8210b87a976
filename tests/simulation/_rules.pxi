# Rules for sessions with a Python object: each gets its callbacks in order and once, on_close last; each byte that
# send() took was sent or is unsent; objects that the core refers to live, and at the end no object is left.
#
# Ownership: the Cast's.
# Threads: the world's.


cdef void check_received(Cast cast, Talk talk, const char *rule) noexcept:
    cdef peers_view view
    if is_excused(talk) or not talk.listens or not peers_look(cast.run.everybody, talk.connection, &view):
        return
    must(talk.received == view.sent, talk, rule)


cdef void check_closed(Cast cast, Session session, Talk talk, bint well) noexcept:
    cdef NativeSession *native = native_of(session)
    talk.closed = True
    if talk.dialled:
        cast.run.dialled -= 1
    if talk.connection == NULL:
        talk.connection = connection_of(session)
    if talk.connection == NULL and native != NULL and native.socket == INVALID_SOCKET:
        return      # undrained, before its on_connect: its connection is no longer known
    if native == NULL or not native.sending:    # else the kernel still has a part that it may send
        must(talk.sent - session.unsent == (0 if talk.connection == NULL else sim_taken(talk.connection)), talk,
             "the bytes that send() took are not those sent plus unsent")
    if not well or cast.run.closing or is_excused(talk):
        return
    if talk.dialled:
        must(talk.received == talk.sent, talk, "it has ended before all came back")
    elif native != NULL and native.reason == BY_PEER:
        check_received(cast, talk, "it has ended before all of the peer's data was delivered")


cdef void check_talks(Cast cast) noexcept:
    """After every turn."""
    cdef Talk talk
    cdef Session session
    cdef NativeSession *native
    for talk in cast.talks:
        if talk.closed:
            continue
        session = talk.session()
        must(session is not None, talk, "its Session was freed before on_close")
        native = native_of(session)
        if native != NULL and native.link != NULL and not cast.run.left:
            check_shutdown(cast, talk, native)
        if talk.owed and native != NULL and is_to_hear(native, session) and not will_drain(native):
            must(link_queued(native.link) > native.handler.settings.low_water, talk, "on_drain does not come")
    check_pinned(cast)


cdef void check_shutdown(Cast cast, Talk talk, NativeSession *native) noexcept:
    """While its worker closes: on_shutdown comes, it is not finished while it is paused, and no bytes are lost."""
    cdef Worker *worker = native.worker
    if native.state != CONNECTING and still_takes(native):
        must(link_queued(native.link) == queue_unsent(native) + bytes_for(worker, native.link), talk,
             "bytes that send() took are neither queued nor in the inbox")
    if native.state == OPEN:
        if worker.closing and talk.shutdown_told and talk.connected:
            must(talk.shut or talk.leaving or native.item.calls & CALL_SHUTDOWN or will_be_told(worker, native), talk,
                 "on_shutdown does not come")
    elif talk.held and native.state == FINISHING and native.paused and native.reason == BY_US:
        must(talk.leaving or worker.leave_at != 0, talk, "it was paused, and its worker did not wait")
    talk.held = native.state == OPEN and native.paused > 0 and talk.paused  # else it was resumed


cdef bint has_come(NativeSession *native) noexcept:
    """Has something come for its receive, or has that ended?"""
    return is_receiving(native) and iocp_has_come(native.socket, &native.item.operation.overlapped)


cdef bint will_be_told(Worker *worker, NativeSession *native) noexcept:
    """Will on_shutdown be scheduled, at the end of a later turn or of a receive that has ended?"""
    return native.shutdown_due and (worker.shutdown_due or has_come(native))


cdef void check_heard(NativeSession *native, Talk talk) noexcept:
    """In on_shutdown: data that had come when closing began was delivered before, unless the session was paused."""
    cdef Worker *worker = native.worker
    if talk.listens and not talk.heard and not talk.was_paused and not worker.shutdown_over and is_receiving(native):
        must(not sim_came_by(&native.item.operation.overlapped, worker.closing_since), talk,
             "on_shutdown came before data that its peer had sent")


cdef size_t bytes_for(Worker *worker, Link *link) noexcept:
    """How many of its bytes wait in the inbox."""
    cdef Message *message = worker.inbox.messages.head
    cdef size_t bytes = 0
    while message != NULL:
        if message.link == link and message.buffer != NULL:
            bytes += message.buffer.length
        message = message.next
    return bytes


cdef bint will_drain(NativeSession *native) noexcept:
    """Is on_drain due, and the session in its worker's list of calls?"""
    return native.item.calls & CALL_DRAIN and native.item.calling


cdef void check_pinned(Cast cast) noexcept:
    """A bytes object is held once by each buffer that refers to it."""
    cdef Py_ssize_t references = 0
    cdef int i
    if not cast.pinned or cast.run.left:
        return
    for piece in cast.pinned:
        references += (<PyObject *> piece).ob_refcnt - 2    # the list's, and this loop's
    for i in range(cast.run.count):
        references -= count_pinned(&cast.run.workers[i])
    if references != 0:
        sim_violation("bytes to be sent are held %d times too often", <int> references)


cdef void check_end_of_cast(Cast cast) noexcept:
    """All workers are over; memory that is left to the kernel is still there."""
    cdef Talk talk
    for talk in cast.talks:
        must(talk.closed, talk, "on_close never came")
        check_peer(cast, talk)
    cast.debtors.clear()
    cast.proactor.pool.life = STOPPED
    for session in cast.handles:
        cast.try_closed(session, (<Session> session).data)
    cast.handles.clear()
    session = None
    cast.proactor.pool.native = NULL    # it belongs to the run, which frees it
    cast.proactor.pool.count = 0
    for talk in cast.talks:
        must(talk.session() is None, talk, "its Session is left")
    if cast.post_called != cast.posted or tokens != 0:
        sim_violation("%d functions were posted, %d called, %d are left", <int> cast.posted,
                      <int> cast.post_called, tokens)


cdef void check_peer(Cast cast, Talk talk) noexcept:
    cdef peers_view view
    if talk.connection == NULL or not peers_look(cast.run.everybody, talk.connection, &view):
        return
    if view.ended and not sim_was_reset(talk.connection):
        must(view.got == sim_taken(talk.connection), talk, "its peer has not got all that was sent")


cdef void check_counts(Run *run, Cast cast) noexcept:
    cdef uint64_t callbacks = 0, errors = 0
    cdef int i
    for i in range(run.count):
        callbacks += run.workers[i].stats.callbacks
        errors += run.workers[i].stats.callback_errors
    if callbacks != cast.callbacks or errors != cast.errors:
        sim_violation("the workers counted %d callbacks and %d errors, but there were %d and %d",
                      <int> callbacks, <int> errors, <int> cast.callbacks, <int> cast.errors)


cdef int count_pinned(Worker *worker) noexcept:
    """Buffers that refer to Python's bytes: in queues, in the inbox, or to be released."""
    cdef unsigned int i
    cdef int count = count_chain(worker.unpinned)
    cdef Message *message = worker.inbox.messages.head
    cdef NativeSession *session
    for i in range(session_slots(worker)):
        session = session_at(worker, i)
        if session != NULL:
            count += count_chain(session.queue.head)
    while message != NULL:
        count += message.buffer != NULL and message.buffer.kind == PINNED
        message = message.next
    return count


cdef int count_chain(Buffer *buffer) noexcept:
    cdef int count = 0
    while buffer != NULL:
        count += buffer.kind == PINNED
        buffer = buffer.next
    return count
