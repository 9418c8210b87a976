# The transition table of a session: receive -> handler -> send -> receive | close.
#
# Only this file chains the steps; the step files do not know each other. advance() runs the table: whatever happened to
# a session, it looks at the session's state and starts what is due, until everything that can be is in flight.
# Ownership: an operation that has ended still holds its session until its step is over, so that a session cannot be
# released between two packets of one batch; advance() releases it when nothing holds it any more.
# Threads: the session's worker.
from libc.stdint cimport uint64_t
from iocp cimport (
    DWORD, HANDLE, SOCKET, ULONG_PTR, WSAENOBUFS, CancelIoEx, iocp_keep_alive, iocp_no_delay, iocp_now, unlikely)
from call cimport schedule_call
from close cimport abort_session, close_session, close_undrained, finish, shut_sending
from connect cimport connect_ended, on_connect
from deadline cimport deadline_of, end_sparing, have_ended, is_spared, is_too_late, time_out
from port cimport operation_bind
from door cimport read_through
from queue cimport queue_above_water, queue_drained
from receive cimport on_receive, receive_ended, reclaims, release_posted, start_receive
from send cimport on_send, send_ended, start_send
from session cimport is_receiving, session_close_socket, session_open, session_releasable, session_release
from shutdown cimport expect_shutdown, go_on_to_shutdown, goes_on
from status cimport status_exhausted
from structs cimport (
    BY_ERROR, BY_PEER, BY_TIMEOUT, BY_US, CALL_CLOSE, CALL_CONNECT, CALL_DRAIN, CALL_END, CALL_RECEIVE, CLOSING,
    CONNECTING, FAILED, FINISHING, INLINE, OPEN, PENDING, RECEIVED_DATA, RECEIVED_ERROR, RECEIVED_PART,
    RECEIVE_DUE, RECEIVE_NONE, RECEIVE_YIELDING, TROUBLE_CONNECT, Handler, Item, ItemOps, Listener, Operation, Received,
    Session, Settings, Started, Worker)
from timer cimport timer_set
from tuning cimport CONTENDED_TIME, IDLE_TIME, LITTLE, RECEIVE_SIZE, SELDOM, SHORT_TURN, SPARE_TIME, STEP
from turn cimport round_is_over, wait_for_turn, whole_turn
from warn cimport report_trouble


cdef inline void advance(Worker *worker, Session *session) noexcept nogil:
    """Start whatever is due; release the session if it is over. A large step may have to wait behind the ready list."""
    if round_is_over(worker):
        take_turn(worker, session, SHORT_TURN, True)
    else:
        take_turn(worker, session, whole_turn(worker), others_first(worker, session))


cdef inline void take_turn(Worker *worker, Session *session, int most, bint small_only) noexcept nogil:
    """Take steps until all that can be is in flight, or the turn is spent."""
    cdef int cost, spent = 0
    if unlikely(worker.closing) and session.state == OPEN and not goes_on(session):
        finish(worker, session, BY_US)
    while spent < most:
        if session.state == CLOSING:
            if session_releasable(session):
                tell_or_release(worker, session)
            return
        if small_only and is_large(session):
            break
        cost = transition(worker, session)
        if cost == 0:
            return
        spent += cost
    wait_for_turn(worker, &session.item)


cdef inline int transition(Worker *worker, Session *session) noexcept nogil:
    """Take one step. Returns how many steps of a turn it costs; 0 if all that can be is in flight."""
    if session.state == CONNECTING:
        return False
    if session.queue.head != NULL:
        if not session.sending:
            return step_send(worker, session)
    elif unlikely(session.state == FINISHING or session.ending) and step_end_sending(worker, session):
        return True
    if session.peer_ended:
        # A finishing session only sends now. An open one may have input left: a layer's end may come with data.
        return session.state == OPEN and has_heard_all(session) and step_end(worker, session)
    if is_receiving(session):
        return False
    if not wants_data(session):
        hold_no_empty_buffer(worker, session)
        return False
    return step_receive(worker, session, has_to_wait(worker, session))


cdef inline bint has_to_wait(Worker *worker, Session *session) noexcept nogil:
    """Must it post a zero-byte receive first, and so wait for data without a buffer?

    Yes if many buffers are in use, or if it was idle lately, so that idle sessions hold no buffer. Yes also if it
    receives much: else the data of many sessions could come in one dequeue. This way each receives in its turn, into
    pages that the cache still has.
    """
    return session.receive != RECEIVE_DUE and (
        (session.more_buffers | session.seldom) != 0 or worker.stats.buffers_used > worker.buffers_enough)


cdef inline void hold_no_empty_buffer(Worker *worker, Session *session) noexcept nogil:
    """Release the posted buffers: the session may be paused for long."""
    release_posted(worker, session)


cdef inline bint has_heard_all(Session *session) noexcept nogil:
    """Has its handler been given all that came before?"""
    return session.item.calls & (CALL_CONNECT | CALL_RECEIVE) == 0


cdef inline bint wants_data(Session *session) noexcept nogil:
    """Has its handler been given all that came before, and does it want more?"""
    if not has_heard_all(session):
        return False
    return session.state == FINISHING or not (session.paused or (session.ops.throttled and queue_above_water(session)))


cdef inline bint step_end(Worker *worker, Session *session) noexcept nogil:
    """The peer has ended: finish. A handler with on_end is told first, and may send until it ends the session."""
    if session.handler.wants & CALL_END:
        if not session.end_told:
            session.end_told = 1
            schedule_call(worker, &session.item, CALL_END)
            return False
        if not session.end_sent or session.item.calls & CALL_END:
            return False
    elif session.paused:
        return False    # it may have more to send before it resumes
    finish(worker, session, BY_PEER)
    return True


cdef inline int step_send(Worker *worker, Session *session) noexcept nogil:
    cdef DWORD sent = 0
    cdef Started started = start_send(worker, session, &sent)
    if started == INLINE:
        sent_or_failed(worker, session, 0, sent)
    elif started == FAILED:
        close_session(worker, session, BY_ERROR)
    return cost_of(sent)


cdef inline bint step_end_sending(Worker *worker, Session *session) noexcept nogil:
    """The queue is empty: the next step to end sending. False: all is done, and the peer's end is still to come."""
    if session.layer != NULL and not session.last_word:
        say_last_word(worker, session)
    elif session.state == FINISHING and session.peer_ended:
        close_session(worker, session, session.reason)      # which sends our end
    elif not session.end_sent:
        shut_sending(worker, session)
    else:
        return False
    return True


cdef inline void say_last_word(Worker *worker, Session *session) noexcept nogil:
    """Queue the layer's last word: the user's bytes have gone, and nothing is sent after it."""
    session.last_word = 1
    if not session.layer.end(worker, session):
        session.error = WSAENOBUFS
        abort_session(worker, session, BY_ERROR)


cdef inline void send_early(Worker *worker, Session *session) noexcept nogil:
    """Send what a callback has queued before the next callback, with the GIL held: for a large send that is cheaper."""
    if session.state == OPEN and not session.sending:
        worker.now = iocp_now(worker.port)      # the time of callbacks does not count against the peer
        step_send(worker, session)


cdef inline int step_receive(Worker *worker, Session *session, bint waiting) noexcept nogil:
    cdef DWORD received = 0
    cdef Started started = start_receive(worker, session, waiting, &received)
    if started == INLINE:
        received_or_failed(worker, session, 0, received)
    elif unlikely(started == FAILED):
        receive_refused(worker, session, waiting)
    elif not waiting:
        timer_set(worker, &session.item, worker.now + IDLE_TIME)
    return 0 if started == PENDING else cost_of(received)


cdef inline void receive_refused(Worker *worker, Session *session, bint waiting) noexcept nogil:
    """A receive could not be started: close, unless memory was short and a zero-byte receive may do.

    A zero-byte receive locks no pages. It does not help if it is what failed, or if it has announced data already.
    """
    if waiting or session.receive == RECEIVE_DUE or not status_exhausted(session.error):
        close_session(worker, session, BY_ERROR)
        return
    session.error = 0
    session.seldom = SELDOM


cdef inline int cost_of(DWORD bytes) noexcept nogil:
    return 1 + <int> (bytes // STEP)


cdef inline void received_or_failed(Worker *worker, Session *session, int status, DWORD bytes) noexcept nogil:
    cdef Received received
    if session.state == CLOSING:    # after our own close any status means closed
        session.receive = RECEIVE_NONE
        receive_ended(session)
        return
    received = on_receive(worker, session, status, bytes)
    if unlikely(session.layer != NULL):
        received = read_through(worker, session, received)
    if received == RECEIVED_DATA:
        if worker.now < worker.large_until:
            note_contention(worker, session, bytes)
        if unlikely(session.state == FINISHING):
            session.ops.discarded(worker, session)
        elif not session.ops.data(worker, session):
            abort_session(worker, session, BY_US)
    elif received == RECEIVED_ERROR:
        close_session(worker, session, BY_ERROR)
    receive_ended(session)
    if unlikely(session.shutdown_due):
        go_on_to_shutdown(worker, session, received)
    if session.state == FINISHING and (received == RECEIVED_DATA or received == RECEIVED_PART):
        end_sparing(worker, session)


cdef inline void receive_completed(Worker *worker, Operation *operation, int status, DWORD bytes) noexcept nogil:
    cdef Session *session = <Session *> operation   # its first field is the operation
    received_or_failed(worker, session, status, bytes)
    advance(worker, session)


cdef inline void sent_or_failed(Worker *worker, Session *session, int status, DWORD bytes) noexcept nogil:
    if session.state == FINISHING:
        session.closing_at = worker.now     # a slow peer is no stalled peer
    if not on_send(worker, session, status, bytes):
        close_session(worker, session, BY_ERROR)
    tell_drained(worker, session)
    send_ended(session)


cdef inline void send_completed(Worker *worker, Operation *operation, int status, DWORD bytes) noexcept nogil:
    cdef Session *session = <Session *> operation.owner
    sent_or_failed(worker, session, status, bytes)
    advance(worker, session)


cdef inline void tell_drained(Worker *worker, Session *session) noexcept nogil:
    """Some of the queue has gone: schedule on_drain if a sender waits for that."""
    if session.link == NULL or not queue_drained(session):
        return
    if session.handler.wants & CALL_DRAIN:
        schedule_call(worker, &session.item, CALL_DRAIN)


cdef inline void connected_or_failed(Worker *worker, Session *session, int status) noexcept nogil:
    if session.state == CONNECTING:
        if not on_connect(worker, session, status):
            close_session(worker, session, BY_ERROR)
        else:
            operation_bind(&session.send, send_completed, session)
            opened(worker, session)
            if session.leaving and session.state == OPEN:
                finish(worker, session, BY_US)
    connect_ended(session)


cdef inline void connect_completed(Worker *worker, Operation *operation, int status, DWORD _bytes) noexcept nogil:
    cdef Session *session = <Session *> operation.owner
    connected_or_failed(worker, session, status)
    advance(worker, session)


# ---- beginning and end ----

cdef inline Session *begin_session(Worker *worker, SOCKET socket, unsigned char state, Handler *handler,
                                   Listener *listener) noexcept nogil:
    """A session that owns the socket, or NULL without memory: then the socket is still the caller's."""
    cdef Session *session = session_open(worker, socket, state, handler, listener)
    if session != NULL:
        operation_bind(&session.item.operation, receive_completed, session)
        operation_bind(&session.send, connect_completed if state == CONNECTING else send_completed, session)
    return session


cdef inline void opened(Worker *worker, Session *session) noexcept nogil:
    cdef Settings *settings = &session.handler.settings
    if settings.no_delay and (session.listener == NULL or not session.listener.no_delay):
        iocp_no_delay(session.socket)
    if settings.keep_alive_idle != 0:
        iocp_keep_alive(session.socket, settings.keep_alive_idle, settings.keep_alive_interval,
                        settings.keep_alive_probes)
    if settings.idle_timeout != 0:
        timer_set(worker, &session.item, worker.now + settings.idle_timeout)
    if not reclaims(worker):
        session.seldom = SELDOM     # a buffer that it held while idle would not come back
    if not session.ops.opened(worker, session):
        session.error = WSAENOBUFS
        abort_session(worker, session, BY_ERROR)
    if worker.closing:
        expect_shutdown(worker, session)


cdef inline void tell_or_release(Worker *worker, Session *session) noexcept nogil:
    if must_be_told(session):
        tell_end(worker, session)
    else:
        release(worker, session)


cdef inline bint must_be_told(Session *session) noexcept nogil:
    """Has it a Python object that is still to get on_close?"""
    return session.python != NULL and not session.close_told


cdef inline void tell_end(Worker *worker, Session *session) noexcept nogil:
    """Close the socket and schedule on_close: the peer sees the end now, not after the callback."""
    if session.item.calls & CALL_CLOSE:
        return
    count_end(worker, session)
    session_close_socket(session)
    schedule_call(worker, &session.item, CALL_CLOSE)


cdef inline void release(Worker *worker, Session *session) noexcept nogil:
    if not session.close_told:      # else tell_end() has counted it
        count_end(worker, session)
    session.ops.closed(worker, session)
    session_release(worker, session)


cdef inline void count_end(Worker *worker, Session *session) noexcept nogil:
    if not session.connected:
        count_connect_failure(worker, session.error)
    elif session.reason == BY_PEER:
        worker.stats.closed_by_peer += 1
    elif session.reason == BY_ERROR:
        worker.stats.closed_by_error += 1
    elif session.reason == BY_TIMEOUT:
        worker.stats.closed_by_timeout += 1
    else:
        worker.stats.closed_by_us += 1


cdef inline void count_connect_failure(Worker *worker, int error) noexcept nogil:
    worker.stats.connect_failures += 1
    if status_exhausted(error):
        worker.stats.exhausted += 1
        report_trouble(worker, TROUBLE_CONNECT, error)


# ---- turns ----

cdef inline bint moves_much(Session *session) noexcept nogil:
    return session.more_buffers != 0 or session.queue_bytes > RECEIVE_SIZE


cdef inline bint is_large(Session *session) noexcept nogil:
    """Is its next step likely to move much? A zero-byte receive moves nothing."""
    return session.queue_bytes > RECEIVE_SIZE or (session.receive == RECEIVE_DUE and session.more_buffers != 0)


cdef inline bint others_first(Worker *worker, Session *session) noexcept nogil:
    """Must a large step wait behind the ready list? Not the rest of a message: by then the cache would have lost it."""
    if worker.ready.head == NULL:
        return False
    return not session.filled or session.item.ready or worker.contended


cdef inline void note_contention(Worker *worker, Session *session, DWORD bytes) noexcept nogil:
    """A small message beside large ones would wait for the whole turns of these: so turns are short for a while.

    Short turns make each byte of a large message cost more, so they are not the rule.
    """
    if bytes <= LITTLE and not moves_much(session):
        worker.contended_until = worker.now + CONTENDED_TIME


cdef inline void on_deadline(Worker *worker, Session *session) noexcept nogil:
    if session.state == CLOSING and have_ended(session):
        timer_set(worker, &session.item, worker.seen_at + SPARE_TIME)
    elif session.state == CLOSING:
        close_undrained(worker, session)
        if must_be_told(session):
            tell_end(worker, session)
    elif is_too_late(worker, session):
        if is_spared(worker, session):
            if deadline_of(session) <= worker.seen_at:
                timer_set(worker, &session.item, worker.seen_at + SPARE_TIME)
            return
        time_out(worker, session)
        advance(worker, session)
    else:
        session.receive = RECEIVE_YIELDING
        if reclaims(worker):
            CancelIoEx(<HANDLE> <ULONG_PTR> session.socket, &session.item.operation.overlapped)


cdef inline bint calls_for_now(Session *session) noexcept nogil:
    """Are callbacks due that need not wait for a resume()? Perhaps on_drain, because a large send has gone at once."""
    return session.item.calls & ~(CALL_RECEIVE | CALL_END) != 0 or (session.item.calls != 0 and not session.paused)


# ---- what the loop calls ----

cdef inline void session_turn(Worker *worker, Item *item, int most, bint small_only) noexcept nogil:
    take_turn(worker, <Session *> item, most, small_only)


cdef inline void session_start_due(Worker *worker, Item *item) noexcept nogil:
    advance(worker, <Session *> item)


cdef inline void session_told(Worker *worker, Item *item) noexcept nogil:
    cdef Session *session = <Session *> item
    if calls_for_now(session):
        schedule_call(worker, item, 0)
    advance(worker, session)


cdef inline void session_deadline(Worker *worker, Item *item) noexcept nogil:
    """A timer is over. The session may have changed since it was set: then there is another deadline, or none."""
    cdef Session *session = <Session *> item
    cdef uint64_t deadline = deadline_of(session)
    if deadline == 0:
        return
    if deadline <= worker.seen_at:
        on_deadline(worker, session)
        deadline = deadline_of(session)
        if deadline > worker.seen_at:
            timer_set(worker, item, deadline)
    else:
        timer_set(worker, item, deadline)


cdef inline void session_ops_init(ItemOps *ops) noexcept nogil:
    ops.turn = session_turn
    ops.start_due = session_start_due
    ops.told = session_told
    ops.deadline = session_deadline
