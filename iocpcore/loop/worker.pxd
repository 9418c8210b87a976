# The worker's loop, and the whole transition table: accept -> receive -> handler -> send -> receive | close.
#
# Here alone the steps are chained; the step files do not know each other. advance() is the table: whatever happened to
# a session, it looks at the session's state and starts what is due, until everything that can be is in flight.
# Ownership: an operation that has ended still holds its session until its step is over, so that a session cannot be
# released between two packets of one batch; advance() releases it when nothing holds it any more.
# Threads: one thread per worker, without the GIL from the first to the last line.
from libc.stdint cimport uint64_t
from cpython.pythread cimport PyThread_release_lock
from iocp cimport (
    DWORD, ERROR_OPERATION_ABORTED, HANDLE, INFINITE, INVALID_SOCKET, IOCP_BUFFERS_ENOUGH, IOCP_CANCEL_SPARES, LONG,
    OVERLAPPED_ENTRY, SOCKET, ULONG_PTR, WSAENOBUFS, WSAETIMEDOUT, AcquireSRWLockExclusive, CancelIoEx, CloseHandle,
    GetLastError, InitializeSRWLock, InterlockedCompareExchange, InterlockedDecrement, InterlockedExchange,
    InterlockedIncrement, ReleaseSRWLockExclusive, WSAGetLastError, closesocket, iocp_accept_waiting, iocp_has_come,
    iocp_has_ended, iocp_keep_alive, iocp_linger_off, iocp_no_delay, iocp_now, iocp_open_port, iocp_skip_on_success,
    iocp_socket, iocp_status, iocp_submit, iocp_trim, iocp_wait_undisturbed, unlikely)
from accept cimport (
    arm, cancel_accepts, close_events, close_listening, count_accepted, count_refused, must_wait, on_accept,
    post_accept, start_listening)
from buffer cimport buffer_release, buffers_free, buffers_init, buffers_trim
from call cimport call, call_with_item, calls_are_due
from close cimport abort_session, close_session, close_undrained, finish, send_end, time_to_finish
from connect cimport end_connect, on_connect, start_connect
from handler cimport (
    handler_closed, handler_data, handler_discards, handler_must_be_told, handler_opened, handler_sent,
    handler_wants_data, handler_wants_end, load_count_error, load_over)
from inbox cimport inbox_item_about, inbox_item_free, inbox_put, inbox_shut, inbox_take
from link cimport link_finish
from operation cimport (
    ACCEPT, BROKEN, BY_ERROR, BY_PEER, BY_TIMEOUT, BY_US, CALL_CLOSE, CALL_CONNECT, CALL_END, CALL_RECEIVE,
    CALL_SHUTDOWN, CLOSING, CONNECT, CONNECTING, DO_ADOPT, DO_CALL, DO_CLOSE, DO_CONNECT, DO_END, DO_LISTEN, DO_PAUSE,
    DO_RESUME, DO_SEND, DO_UNLISTEN, FAILED, FINISHING, INLINE, LEFT_BEHIND, LOAD, NOT_BROKEN, OPEN, OVERDUE, PENDING,
    RECEIVE, TROUBLE_ACCEPT, TROUBLE_CONNECT, TROUBLE_DEQUEUE, TROUBLE_INBOX, Accept, Buffer, Handler, InboxItem,
    Listener, Operation, Session, SessionList, Settings, Started, Waiting, Worker)
from place cimport (
    leave_place, places_init, places_were_granted, served, take_granted, take_place, take_waiting, wait_for_place,
    wake_all_granted)
from port cimport KEY_INBOX, operation_completed, port_associate, port_associate_given, port_dequeue, port_is_broken
from receive cimport (
    RECEIVED_DATA, RECEIVED_ERROR, RECEIVED_NOTHING, Received, end_receive, on_receive, reclaims, release_input,
    start_receive)
from send cimport end_send, enqueue_merged, on_send, peer_takes, start_send
from session cimport (
    session_at, session_close_socket, session_drop, session_hold, session_open, session_releasable, session_release,
    session_resolve, session_slots, session_table_free, sessions_trim)
from status cimport status_cancelled, status_exhausted
from timer cimport timer_drop, timer_first, timer_heap_free, timer_set, timers_trim
from tuning cimport (
    ACCEPTS, ACCEPT_RETRY_TIME, BACKLOG_MOST, CONTENDED_ROUND, CONTENDED_TIME, CONTENDED_TURN, DRAIN_TIME, GIL_TIME,
    IDLE_TIME, LARGE_TIME, LEAVE_TIME, LITTLE, MUCH, RECEIVE_SIZE, ROUND, SELDOM, SHORT_TURN, SPARE_TIME, STEP, TURN,
    WARN_PERIOD)
from warn cimport report_trouble


# ---- the transition table ----

cdef inline void advance(Worker *worker, Session *session) noexcept nogil:
    """Start whatever is due; release the session when it is over. What is large waits for those that have waited."""
    if round_is_over(worker):
        take_turn(worker, session, SHORT_TURN, True)
    else:
        take_turn(worker, session, whole_turn(worker), others_first(worker, session))


cdef inline void take_turn(Worker *worker, Session *session, int most, bint small_only) noexcept nogil:
    """Until all that can be is in flight, or it has had its turn."""
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
    wait_for_turn(worker, session)


cdef inline bint goes_on(Session *session) noexcept nogil:
    """Although its worker closes: its handler ends it, or is about to hear of it, or holds it up to answer."""
    return session.handler.wants & CALL_SHUTDOWN or session.paused > 0 or session.calls & CALL_CONNECT


cdef inline int transition(Worker *worker, Session *session) noexcept nogil:
    """One step, and what it counts as in a turn; 0 when all that can be is in flight."""
    if session.state == CONNECTING:
        return False
    if session.queue_head != NULL:
        if not session.sending:
            return step_send(worker, session)
    elif session.state == FINISHING:
        if session.peer_ended:
            close_session(worker, session, session.reason)      # which sends our end
            return True
        if not session.end_sent:
            send_end(worker, session)
            return True
    elif session.ending and not session.end_sent:
        send_end(worker, session)
        return True
    if session.peer_ended:
        return session.state == OPEN and step_end(worker, session)    # else the queue is going out: nothing will come
    if session.receiving:
        return False
    if not handler_wants_data(session):
        hold_no_empty_buffer(worker, session)
        return False
    return step_receive(worker, session, has_to_wait(worker, session))


cdef inline bint has_to_wait(Worker *worker, Session *session) noexcept nogil:
    """Without a buffer, until there is data.

    Where many sessions hold one, or those that say something once in a while, they would be many pages that hold
    nothing. And what is large would come whenever the system has it, for many sessions in one dequeue: so each receives
    in its turn, into pages that the cache still has.
    """
    return not session.data_waits and ((session.more_buffers | session.seldom) != 0
                                       or worker.stats.buffers_used > worker.buffers_enough)


cdef inline void hold_no_empty_buffer(Worker *worker, Session *session) noexcept nogil:
    """It may be paused for long."""
    if not session.calls & CALL_RECEIVE:
        release_input(worker, session)


cdef inline bint step_end(Worker *worker, Session *session) noexcept nogil:
    """The peer sends no more. We may: if the handler is told and does not say that it will not."""
    if handler_wants_end(session):
        if not session.end_told:
            session.end_told = 1
            call(worker, session, CALL_END)
            return False
        if not session.end_sent or session.calls & CALL_END:
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


cdef inline void send_early(Worker *worker, Session *session) noexcept nogil:
    """What a callback has queued goes out at once, with the GIL held: for much of it, that is the cheaper way."""
    if session.state == OPEN and not session.sending:
        worker.now = iocp_now(worker.port)      # the callbacks' time is not the peer's
        step_send(worker, session)


cdef inline int step_receive(Worker *worker, Session *session, bint waiting) noexcept nogil:
    cdef DWORD received = 0
    cdef Started started = start_receive(worker, session, waiting, &received)
    if started == INLINE:
        received_or_failed(worker, session, 0, received)
    elif unlikely(started == FAILED):
        receive_refused(worker, session, waiting)
    elif not waiting:
        timer_set(worker, session, worker.now + IDLE_TIME)
    return 0 if started == PENDING else cost_of(received)


cdef inline void receive_refused(Worker *worker, Session *session, bint waiting) noexcept nogil:
    """For want of memory: the next receive is of zero bytes, which locks no pages. A second refusal closes."""
    if waiting or session.data_waits or not status_exhausted(session.error):
        close_session(worker, session, BY_ERROR)
        return
    session.error = 0
    session.seldom = SELDOM


cdef inline int cost_of(DWORD bytes) noexcept nogil:
    return 1 + <int> (bytes // STEP)


cdef inline void received_or_failed(Worker *worker, Session *session, int status, DWORD bytes) noexcept nogil:
    cdef Received received
    if session.state == CLOSING:    # after our own close any status means closed
        end_receive(session)
        return
    received = on_receive(worker, session, status, bytes)
    if received == RECEIVED_DATA:
        note_contention(worker, session, bytes)
        if session.state == FINISHING:
            handler_discards(worker, session)
        elif not handler_data(worker, session):
            abort_session(worker, session, BY_US)
    elif received == RECEIVED_ERROR:
        close_session(worker, session, BY_ERROR)
    end_receive(session)
    if unlikely(session.shutdown_due):
        go_on_to_shutdown(worker, session, received)
    if session.state == FINISHING and received == RECEIVED_DATA:
        end_sparing(worker, session)


cdef inline void sent_or_failed(Worker *worker, Session *session, int status, DWORD bytes) noexcept nogil:
    if session.state == FINISHING:
        session.closing_at = worker.now     # a slow peer is no stalled peer
    if not on_send(worker, session, status, bytes):
        close_session(worker, session, BY_ERROR)
    handler_sent(worker, session)
    end_send(session)


cdef inline void connected_or_failed(Worker *worker, Session *session, int status) noexcept nogil:
    if session.state == CONNECTING:
        if not on_connect(worker, session, status):
            close_session(worker, session, BY_ERROR)
        else:
            opened(worker, session)
            if session.leaving and session.state == OPEN:
                finish(worker, session, BY_US)
    end_connect(session)


cdef inline void opened(Worker *worker, Session *session) noexcept nogil:
    cdef Settings *settings = &session.handler.settings
    if settings.no_delay and (session.listener == NULL or not session.listener.no_delay):
        iocp_no_delay(session.socket)
    if settings.keep_alive_idle != 0:
        iocp_keep_alive(session.socket, settings.keep_alive_idle, settings.keep_alive_interval,
                        settings.keep_alive_probes)
    if settings.idle_timeout != 0:
        timer_set(worker, session, worker.now + settings.idle_timeout)
    if not reclaims(worker):
        session.seldom = SELDOM     # a buffer that it held while it is silent would not come back
    if not handler_opened(worker, session):
        session.error = WSAENOBUFS
        abort_session(worker, session, BY_ERROR)
    if worker.closing:
        expect_shutdown(worker, session)


cdef inline void tell_or_release(Worker *worker, Session *session) noexcept nogil:
    if handler_must_be_told(session):
        tell_end(worker, session)
    else:
        release(worker, session)


cdef inline void tell_end(Worker *worker, Session *session) noexcept nogil:
    """Its peer sees the end now: that does not wait for a callback."""
    if session.calls & CALL_CLOSE:
        return
    count_end(worker, session)
    session_close_socket(session)
    call(worker, session, CALL_CLOSE)


cdef inline void release(Worker *worker, Session *session) noexcept nogil:
    if not session.close_told:      # else counted when that was due
        count_end(worker, session)
    handler_closed(worker, session)
    session_release(worker, session)


cdef inline void count_end(Worker *worker, Session *session) noexcept nogil:
    if session.active_at == 0:  # it never was connected
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


# ---- taking turns: a peer that always has more must not starve the others ----

cdef inline uint64_t moved(Worker *worker) noexcept nogil:
    """Bytes, ever, in and out."""
    return worker.stats.bytes_received + worker.stats.bytes_sent


cdef inline bint round_is_over(Worker *worker) noexcept nogil:
    """Has this round moved what it may?"""
    return moved(worker) >= worker.round_until


cdef inline bint moves_much(Session *session) noexcept nogil:
    return session.more_buffers != 0 or session.queue_bytes > RECEIVE_SIZE


cdef inline bint is_large(Session *session) noexcept nogil:
    """Is what it does next likely to be? To wait for much, without a buffer, is not."""
    return session.queue_bytes > RECEIVE_SIZE or (session.data_waits and session.more_buffers != 0)


cdef inline bint others_first(Worker *worker, Session *session) noexcept nogil:
    """Does what is large wait? Not the rest of a message: after all others' turns it is in the cache no more."""
    if worker.ready.head == NULL:
        return False
    return not session.filled or session.ready or worker.contended


cdef inline int whole_turn(Worker *worker) noexcept nogil:
    return CONTENDED_TURN if worker.contended else TURN


cdef inline void note_contention(Worker *worker, Session *session, DWORD bytes) noexcept nogil:
    """Who says little, beside those that move much, would wait for as long as those take: they take less for a while.

    It makes their bytes dearer, so that is not how they are always served.
    """
    if bytes > RECEIVE_SIZE:
        worker.large_until = worker.now + LARGE_TIME
    elif bytes <= LITTLE and worker.now < worker.large_until and not moves_much(session):
        worker.contended_until = worker.now + CONTENDED_TIME


cdef inline void begin_round(Worker *worker) noexcept nogil:
    worker.contended = worker.now < worker.contended_until
    worker.round_until = moved(worker) + (CONTENDED_ROUND if worker.contended else ROUND)
    worker.waited = worker.ready.tail if worker.ready.head != NULL else NULL


cdef inline void append(SessionList *sessions, Session *session) noexcept nogil:
    """Being in a list holds it."""
    if session.ready:
        return
    session_hold(session)
    session.ready = 1
    session.next = NULL
    if sessions.head == NULL:
        sessions.head = session
    else:
        sessions.tail.next = session
    sessions.tail = session


cdef inline Session *take_first(SessionList *sessions) noexcept nogil:
    cdef Session *session = sessions.head
    sessions.head = session.next
    session.ready = 0
    session_drop(session)
    return session


cdef inline void defer(Worker *worker, Session *session) noexcept nogil:
    """Something new is due to it: in this round, before those that have had their turn."""
    append(&worker.due, session)


cdef inline void wait_for_turn(Worker *worker, Session *session) noexcept nogil:
    """It has had its turn, or is large: it goes on when those before it have had theirs."""
    append(&worker.ready, session)


cdef inline void run_due(Worker *worker) noexcept nogil:
    while worker.due.head != NULL:
        advance(worker, take_first(&worker.due))


cdef inline void run_ready(Worker *worker) noexcept nogil:
    """Those that waited when the round began, each once, until the round has moved what it may; one at least."""
    cdef Session *session = NULL
    while session != worker.waited:
        session = take_first(&worker.ready)
        take_turn(worker, session, whole_turn(worker), False)
        if much_to_tell(worker):
            run_calls(worker)
        if worker.abandoned or round_is_over(worker):
            return


# ---- Python: the GIL once for all that a batch has to tell it ----

cdef inline void run_calls(Worker *worker) noexcept nogil:
    """Sends and the like that callbacks asked for start afterwards, without the GIL."""
    cdef uint64_t began
    cdef Session *session = worker.calls_head
    cdef Session *after
    worker.told = worker.stats.bytes_received
    if worker.abandoned or not calls_are_due(worker):
        return
    began = iocp_now(worker.port)
    worker.calls_head = NULL
    worker.attach(worker, session)
    if worker.abandoned:
        return
    worker.now = iocp_now(worker.port)
    worker.gil_wait = worker.attached_at - began
    worker.stats.attaches += 1
    worker.stats.callback_time += worker.now - began
    run_inbox(worker)   # what they have sent behind something older goes before the peer's end is acted on
    while session != NULL:
        after = session.next_call
        session.calling = 0
        session_drop(session)
        if calls_for_now(session):
            call(worker, session, 0)
        advance(worker, session)
        session = after


cdef inline bint much_to_tell(Worker *worker) noexcept nogil:
    """Large messages are told while the processor's cache has them. Who would have to wait for the GIL does so once."""
    if worker.calls_head == NULL:
        return False
    return worker.stats.bytes_received - worker.told >= MUCH and worker.gil_wait < GIL_TIME


cdef inline bint calls_for_now(Session *session) noexcept nogil:
    """Is more due, that need not wait for a resume()? That a large send has drained at once, perhaps."""
    return session.calls & ~(CALL_RECEIVE | CALL_END) != 0 or (session.calls != 0 and not session.paused)


# ---- accepting ----

cdef inline int load_of(Listener *listener, Worker *worker) noexcept nogil:
    """How many sessions it has; as good as infinitely many if it is not to serve this listener's."""
    if not listener.serving[worker.index // 64] >> (worker.index % 64) & 1:
        return 0x7FFFFFFF
    return InterlockedCompareExchange(&worker.load, 0, 0)


cdef inline Worker *reserve_place(Worker *worker, Listener *listener) noexcept nogil:
    """The worker with the fewest sessions, this one if it is among them; its count includes the place from now on."""
    cdef Worker *best = worker
    cdef Worker *peer
    cdef int i, load, least = load_of(listener, worker)
    for i in range(worker.peer_count):
        peer = &worker.peers[i]
        load = load_of(listener, peer)
        if load < least:
            best = peer
            least = load
    InterlockedIncrement(&best.load)
    return best


cdef inline void refuse(Worker *worker, Worker *reserved, Listener *listener, SOCKET socket) noexcept nogil:
    """Its place and its worker's are free again."""
    closesocket(socket)
    InterlockedDecrement(&reserved.load)
    if listener != NULL:
        leave_place(worker, listener)
    count_refused(worker, listener)


cdef inline void hand_over(Worker *worker, Listener *listener, SOCKET socket) noexcept nogil:
    """A place was taken for it. A worker that has ended takes nothing: then it is served here."""
    cdef Worker *best = reserve_place(worker, listener)
    cdef InboxItem *item
    if best == worker:
        adopt(worker, listener.handler, listener, socket)
        return
    item = inbox_item_about(DO_ADOPT, listener)
    if item == NULL:
        refuse(worker, best, listener, socket)
        return
    item.handler = listener.handler
    item.socket = socket
    if not inbox_put(best, item):
        inbox_item_free(item)
        InterlockedDecrement(&best.load)
        InterlockedIncrement(&worker.load)
        adopt(worker, listener.handler, listener, socket)


cdef inline int associate_fresh(Worker *worker, Listener *listener, SOCKET socket) noexcept nogil:
    """0 or the system's error number. Without a listener it was given to adopt()."""
    return port_associate_given(worker, socket) if listener == NULL else port_associate(worker, socket)


cdef inline Session *adopt(Worker *worker, Handler *handler, Listener *listener, SOCKET socket) noexcept nogil:
    """Serve a fresh socket here; its place is reserved. NULL: the socket is closed, and worker.error says why."""
    cdef Session *session = NULL
    if listener == NULL:
        iocp_linger_off(socket)     # else closing it would make the worker wait, or reset a peer that was sent all
    worker.error = ERROR_OPERATION_ABORTED if has_given_up(worker) else associate_fresh(worker, listener, socket)
    if worker.error == 0:
        session = session_open(worker, socket, OPEN, handler, listener)
        worker.error = WSAENOBUFS
    if session == NULL:
        refuse(worker, worker, listener, socket)
        if not worker.closing:
            report_trouble(worker, TROUBLE_ACCEPT, worker.error)
        return NULL
    if worker.skip_on_success:
        session.skips = iocp_skip_on_success(socket)
    if listener == NULL:
        worker.stats.adopted += 1
    opened(worker, session)
    defer(worker, session)
    return session


cdef inline void serve(Worker *worker, Listener *listener, SOCKET socket) noexcept nogil:
    """Hand it over if there is a place; else refuse it, or let it wait for one."""
    if not has_given_up(worker) and take_place(worker, listener):
        hand_over(worker, listener, socket)
    elif has_given_up(worker) or listener.refuses or not wait_for_place(worker, listener, socket):
        closesocket(socket)
        count_refused(worker, listener)


cdef inline void serve_granted(Worker *worker) noexcept nogil:
    """The connections that have waited, and have got a place. Others may be accepted instead."""
    cdef Waiting *granted = take_granted(worker)
    cdef Waiting *after
    cdef Listener *listener
    while granted != NULL:
        after = granted.next
        listener = granted.listener
        hand_over(worker, listener, served(granted))
        if listener.closing:
            forget_drained(worker, listener)
        else:
            arm(worker, listener)
        granted = after


cdef inline void refuse_waiting(Worker *worker, Listener *listener) noexcept nogil:
    """Nobody will have a place any more."""
    cdef Waiting *waiting = take_waiting(worker, listener)
    cdef Waiting *after
    while waiting != NULL:
        after = waiting.next
        closesocket(served(waiting))
        count_refused(worker, listener)
        waiting = after


cdef inline void accepted_or_failed(Worker *worker, Accept *accept, int status) noexcept nogil:
    """Whatever came, the accept is posted again; at once, unless the system lacks what accepting needs."""
    cdef Listener *listener = accept.listener
    cdef SOCKET socket = on_accept(worker, accept, status)
    if socket != INVALID_SOCKET:
        serve(worker, listener, socket)
    if listener.closing:
        close_drained(worker, listener)
        return
    if status != 0 and must_wait(worker, listener, status):
        worker.retry_at = worker.now + ACCEPT_RETRY_TIME
    elif listener.in_flight + listener.waiting < ACCEPTS:
        post_accept(worker, accept)


cdef inline void retry_accepts(Worker *worker) noexcept nogil:
    """Post what could not be posted; close what closes although its accepts have not ended."""
    cdef Listener *listener = worker.listeners
    cdef Listener *after
    worker.retry_at = 0
    wake_all_granted(worker)
    while listener != NULL:
        after = listener.next
        if listener.closing:
            unlisten(worker, listener, True)
        else:
            arm(worker, listener)
        listener = after


cdef inline void forget_drained(Worker *worker, Listener *listener) noexcept nogil:
    """Once a closed listener has nothing in flight and nobody waits, its worker does not look at it again."""
    cdef Listener **at = &worker.listeners
    if listener.in_flight > 0 or listener.waiting > 0 or listener.socket != INVALID_SOCKET:
        return
    while at[0] != NULL and at[0] != listener:
        at = &at[0].next
    if at[0] == NULL:
        return      # it was forgotten already
    close_events(listener)
    at[0] = listener.next
    InterlockedDecrement(&listener.holds)


cdef inline void unlisten(Worker *worker, Listener *listener, bint at_once) noexcept nogil:
    """Accept no more; what was accepted is served. At once: the port is free when it returns, else soon.

    It waits for its accepts to end first: each may still bring a connection, and on Windows such a one needs the
    listening socket once more.
    """
    if not listener.closing:
        listener.closing = 1
        cancel_accepts(listener)
    if at_once:
        close_port(worker, listener)
    elif listener.in_flight > 0:
        worker.retry_at = earlier(worker.retry_at, worker.now + ACCEPT_RETRY_TIME)
    close_drained(worker, listener)


cdef inline void close_drained(Worker *worker, Listener *listener) noexcept nogil:
    if listener.in_flight == 0:
        close_port(worker, listener)
    forget_drained(worker, listener)


cdef inline void close_port(Worker *worker, Listener *listener) noexcept nogil:
    if listener.socket == INVALID_SOCKET:
        return
    if not listener.shared:
        take_backlog(worker, listener)
    close_listening(listener)


cdef inline void take_backlog(Worker *worker, Listener *listener) noexcept nogil:
    """The connections that wait in the system for an accept: closing the socket would reset them."""
    cdef SOCKET socket
    cdef int error, _taken
    for _taken in range(0 if has_given_up(worker) else BACKLOG_MOST):
        socket = iocp_accept_waiting(listener.socket)
        error = WSAGetLastError()
        if socket == INVALID_SOCKET:
            if status_exhausted(error):     # those that still wait will be reset
                must_wait(worker, listener, error)
            return
        if listener.lingers:
            iocp_linger_off(socket)
        count_accepted(worker, listener)
        serve(worker, listener, socket)


# ---- packets ----

cdef inline void complete(Worker *worker, OVERLAPPED_ENTRY *entry) noexcept nogil:
    cdef Operation *operation = <Operation *> entry.lpOverlapped
    cdef int status
    cdef Session *session
    if entry.lpCompletionKey == KEY_INBOX:
        worker.stats.wakeups += 1
        run_inbox(worker)
        return
    entry.Internal = operation.overlapped.Internal  # a packet that an event has posted carries no status
    status = iocp_status(entry)
    operation_completed(worker, status, status_cancelled(status))
    if operation.kind == ACCEPT:
        accepted_or_failed(worker, <Accept *> operation.owner, status)
        return
    session = <Session *> operation.owner
    if operation.kind == RECEIVE:
        received_or_failed(worker, session, status, entry.dwNumberOfBytesTransferred)
    elif operation.kind == CONNECT:
        connected_or_failed(worker, session, status)
    else:
        sent_or_failed(worker, session, status, entry.dwNumberOfBytesTransferred)
    advance(worker, session)


# ---- timers ----

cdef inline uint64_t deadline_of(Session *session) noexcept nogil:
    """When its present state has lasted long enough, 0: never."""
    if session.state == CLOSING:
        return session.closing_at + DRAIN_TIME
    if session.state == FINISHING:
        return session.closing_at + time_to_finish(session)
    if session.state == CONNECTING:
        return deadline_after(session.sent_at, session.handler.settings.connect_timeout)
    if session.state == OPEN:
        return earlier(timeout_of(session), idle_buffer_deadline(session))
    return 0


cdef inline uint64_t deadline_after(uint64_t at, uint64_t time) noexcept nogil:
    """Where no time is for ever."""
    return at + time if time != 0 else 0


cdef inline uint64_t timeout_of(Session *session) noexcept nogil:
    """When an open session is given up, 0: never."""
    cdef uint64_t idle_timeout = session.handler.settings.idle_timeout
    return earlier(stalled_deadline(session), deadline_after(max(session.active_at, session.sent_at), idle_timeout))


cdef inline uint64_t stalled_deadline(Session *session) noexcept nogil:
    """When an open session is given up whose peer takes nothing, 0: it has nothing to take, or any time."""
    return deadline_after(session.sent_at, session.handler.settings.send_timeout) if session.sending else 0


cdef inline uint64_t idle_buffer_deadline(Session *session) noexcept nogil:
    """When an open session is to give its receive buffer back, 0: it has none, or is about to."""
    if session.receiving and not session.waiting and not session.yielding:
        return session.active_at + IDLE_TIME
    return 0


cdef inline bint is_too_late(Worker *worker, Session *session) noexcept nogil:
    """Has the peer, or the connect, had its time?"""
    cdef uint64_t by
    if session.state == FINISHING:
        return True
    by = deadline_of(session) if session.state == CONNECTING else timeout_of(session)
    return by != 0 and by <= worker.seen_at


cdef inline bint is_spared(Worker *worker, Session *session) noexcept nogil:
    """Has it, or its peer, done something in time that is yet to be handled: in a packet, or in the ready list?"""
    if session.state == CONNECTING:
        return iocp_has_come(session.socket, &session.send.overlapped)
    if session.sending and (iocp_has_come(session.socket, &session.send.overlapped) or peer_takes(worker, session)):
        return True
    if is_stalled(worker, session):
        return False
    if session.ready or session.calling:
        return True
    return session.receiving and iocp_has_come(session.socket, &session.receive.overlapped)


cdef inline bint is_stalled(Worker *worker, Session *session) noexcept nogil:
    """Its peer has taken nothing for too long, whatever it may send."""
    cdef uint64_t by = stalled_deadline(session)
    return session.state == OPEN and by != 0 and by <= worker.seen_at


cdef inline void end_sparing(Worker *worker, Session *session) noexcept nogil:
    """A session that finishes was spared for what came now, and that was not its peer's end: it has had its time."""
    if deadline_of(session) <= worker.seen_at and not is_spared(worker, session):
        give_up_session(worker, session)


cdef inline void give_up_session(Worker *worker, Session *session) noexcept nogil:
    """When all was sent, and nobody wants to wait for the peer's end, that is no timeout."""
    if session.state == FINISHING and session.end_sent:
        close_session(worker, session, BY_TIMEOUT if session.handler.settings.linger != 0 else session.reason)
    else:
        session.error = WSAETIMEDOUT
        close_session(worker, session, BY_TIMEOUT)


cdef inline bint have_ended(Session *session) noexcept nogil:
    """Its cancelled operations, though the worker has yet to come to their packets: slow callbacks may keep it busy."""
    return (iocp_has_ended(session.socket, &session.receive.overlapped)
            and iocp_has_ended(session.socket, &session.send.overlapped))


cdef inline void on_deadline(Worker *worker, Session *session) noexcept nogil:
    if session.state == CLOSING and have_ended(session):
        timer_set(worker, session, worker.seen_at + SPARE_TIME)
    elif session.state == CLOSING:
        close_undrained(worker, session)
        if handler_must_be_told(session):
            tell_end(worker, session)
    elif is_too_late(worker, session):
        if is_spared(worker, session):
            if deadline_of(session) <= worker.seen_at:
                timer_set(worker, session, worker.seen_at + SPARE_TIME)
            return
        give_up_session(worker, session)
        advance(worker, session)
    else:
        session.yielding = 1
        if reclaims(worker):
            CancelIoEx(<HANDLE> <ULONG_PTR> session.socket, &session.receive.overlapped)


cdef inline void run_timers(Worker *worker) noexcept nogil:
    """Those that were over at the dequeue: what its batch has kept the worker busy with is not the peer's time.

    Nobody waits for a round without packets: under a flood there is none. What had come in time, and is in no packet
    that was dequeued, spares its session: is_spared() asks.
    """
    cdef Session *session
    cdef uint64_t deadline
    while worker.timers.count > 0 and timer_first(worker) <= worker.seen_at:
        session = worker.timers.timers[0].session
        timer_drop(worker, session)
        deadline = deadline_of(session)
        if deadline == 0:
            continue
        if deadline <= worker.seen_at:
            on_deadline(worker, session)
            deadline = deadline_of(session)
            if deadline > worker.seen_at:
                timer_set(worker, session, deadline)
        else:
            timer_set(worker, session, deadline)


# ---- the inbox ----

cdef inline void run_inbox(Worker *worker) noexcept nogil:
    cdef uint64_t close_by
    cdef LONG overdue
    cdef InboxItem *item = inbox_take(worker, &close_by, &overdue)
    cdef InboxItem *after
    if overdue:
        worker.stats.backlogs += 1
        if overdue == OVERDUE:
            report_trouble(worker, TROUBLE_INBOX, 0)
    while item != NULL:
        after = item.next
        if run_item(worker, item):
            inbox_item_free(item)
        item = after
    if close_by != 0:
        close_worker(worker, close_by)


cdef inline bint run_item(Worker *worker, InboxItem *item) noexcept nogil:
    """False: it is kept, for Python."""
    if item.kind == DO_ADOPT:
        return introduce(worker, item, adopt(worker, item.handler, item.listener, item.socket))
    if item.kind == DO_CONNECT:
        return connect_session(worker, item)
    if item.kind == DO_LISTEN:
        listen(worker, item.listener)
    elif item.kind == DO_UNLISTEN:
        unlisten(worker, item.listener, False)
    elif item.kind == DO_CALL:
        call_with_item(worker, item)
        return False
    else:
        run_item_of_session(worker, item, session_resolve(worker, item.link.slot, item.link.generation))
    return True


cdef inline void run_item_of_session(Worker *worker, InboxItem *item, Session *session) noexcept nogil:
    """It may have gone."""
    if item.kind == DO_SEND:
        session_send(worker, session, item.buffer)
    elif session != NULL:
        session_do(worker, session, item.kind)


cdef inline void session_do(Worker *worker, Session *session, unsigned char kind) noexcept nogil:
    if kind == DO_END:
        session.ending = 1
    elif kind == DO_PAUSE:
        session.paused += 1
    elif kind == DO_RESUME:
        session_resume(worker, session)
    elif kind == DO_CLOSE:
        session_close(worker, session)
    else:
        abort_session(worker, session, BY_US)
    defer(worker, session)


cdef inline bint session_takes(Session *session) noexcept nogil:
    """May something more be sent?"""
    return (session.state == OPEN or session.state == CONNECTING) and not session.ending


cdef inline bint still_takes(Session *session) noexcept nogil:
    """Of what was sent before anybody could know that it finishes."""
    return session_takes(session) or (session.state == FINISHING and not session.end_sent and not session.ending)


cdef inline void session_send(Worker *worker, Session *session, Buffer *buffer) noexcept nogil:
    """What comes too late is counted; its link goes on counting it as queued."""
    if session != NULL and still_takes(session):
        enqueue_merged(worker, session, buffer)
        defer(worker, session)
        return
    worker.stats.bytes_unsent += buffer.length
    buffer_release(worker, buffer)


cdef inline void session_resume(Worker *worker, Session *session) noexcept nogil:
    session.paused -= 1
    if session.calls and (not worker.closing or goes_on(session)):
        call(worker, session, 0)    # what came in the meantime


cdef inline void session_close(Worker *worker, Session *session) noexcept nogil:
    if session.state == OPEN:
        finish(worker, session, BY_US)
    elif session.state == CONNECTING and session.queue_head != NULL:
        session.leaving = 1     # once it is connected, and has sent that
    elif session.state == CONNECTING:
        close_session(worker, session, BY_US)


cdef inline bint introduce(Worker *worker, InboxItem *item, Session *session) noexcept nogil:
    """Session and Python object may know each other now. Without a session Python is told: False, the item is kept."""
    if item.python == NULL:
        return True
    if session == NULL:
        link_finish(item.link)
        item.error = worker.error
        call_with_item(worker, item)
        return False
    session.python = item.python
    session.link = item.link
    session.link.slot = session.slot
    session.link.generation = session.generation
    item.link = NULL
    return True


cdef inline void listen(Worker *worker, Listener *listener) noexcept nogil:
    listener.next = worker.listeners
    worker.listeners = listener
    InterlockedIncrement(&listener.holds)
    cdef int error = ERROR_OPERATION_ABORTED if worker.closing else start_listening(worker, listener)
    if error != 0:
        listener.closing = 1
        close_listening(listener)
        forget_drained(worker, listener)
    AcquireSRWLockExclusive(&worker.published_lock)
    listener.error = error
    listener.answered = 1
    ReleaseSRWLockExclusive(&worker.published_lock)
    PyThread_release_lock(listener.armed)


cdef inline bint connect_session(Worker *worker, InboxItem *item) noexcept nogil:
    """A session that does not come to be has told its handler all the same. False: the item is kept."""
    cdef bint bound = item.socket != INVALID_SOCKET
    cdef Session *session = session_to_connect(worker, item)
    cdef Started started
    if session == NULL:
        connect_refused(worker, item.handler)
        return introduce(worker, item, NULL)
    introduce(worker, item, session)
    started = start_connect(worker, session, item.address, item.address_length, bound)
    if started == INLINE:
        connected_or_failed(worker, session, 0)
    elif started == FAILED:
        close_session(worker, session, BY_ERROR)
    advance(worker, session)
    return True


cdef inline Session *session_to_connect(Worker *worker, InboxItem *item) noexcept nogil:
    """NULL: worker.error says why."""
    cdef Session *session
    cdef SOCKET socket = item.socket
    if socket == INVALID_SOCKET:
        socket = iocp_socket(worker.port, item.address.ss_family)
    if socket == INVALID_SOCKET:
        worker.error = WSAGetLastError()
        return NULL
    worker.error = ERROR_OPERATION_ABORTED if worker.closing else WSAENOBUFS
    session = NULL if worker.closing else session_open(worker, socket, CONNECTING, item.handler, NULL)
    if session == NULL:
        closesocket(socket)
        return NULL
    session.active_at = 0
    return session


cdef inline void connect_refused(Worker *worker, Handler *handler) noexcept nogil:
    """There is no session that could end."""
    InterlockedDecrement(&worker.load)
    count_connect_failure(worker, worker.error)
    if handler.kind == LOAD:
        load_count_error(worker, handler.load, worker.error)
        load_over(handler.load)


# ---- the end ----

cdef inline void close_worker(Worker *worker, uint64_t by) noexcept nogil:
    """Take nothing new; let what is there finish till then. Asked again, only the deadline may come nearer."""
    cdef Listener *listener
    cdef Listener *after
    if worker.closing:
        if worker.close_at != 0:    # else it is over, and all is aborted already
            worker.close_at = by
        return
    worker.closing = 1
    worker.close_at = by
    listener = worker.listeners
    while listener != NULL:
        after = listener.next
        unlisten(worker, listener, False)
        listener = after
    close_sessions(worker)


cdef inline void close_sessions(Worker *worker) noexcept nogil:
    """Closing begins, or its time is over."""
    cdef Session *session
    cdef unsigned int i
    for i in range(session_slots(worker)):
        session = session_at(worker, i)
        if session == NULL:
            continue
        if session.state == CONNECTING:
            session.error = ERROR_OPERATION_ABORTED if session.queue_head != NULL else 0
            abort_session(worker, session, BY_US)
        elif has_given_up(worker):
            end_session(worker, session)
        else:
            expect_shutdown(worker, session)
        advance(worker, session)    # which finishes it, if it has no reason to go on


cdef inline void expect_shutdown(Worker *worker, Session *session) noexcept nogil:
    if session.handler.wants & CALL_SHUTDOWN:
        session.shutdown_due = worker.shutdown_due = 1


cdef inline void tell_shutdown(Worker *worker, Session *session) noexcept nogil:
    session.shutdown_due = 0
    if session.state == OPEN:
        call(worker, session, CALL_SHUTDOWN)


cdef inline void go_on_to_shutdown(Worker *worker, Session *session, Received received) noexcept nogil:
    """The receive that was waited for has ended. One without data, cancelled or of zero bytes, does not count."""
    if received != RECEIVED_NOTHING:
        tell_shutdown(worker, session)
    else:
        worker.shutdown_due = 1     # look again


cdef inline bint is_to_hear(Session *session) noexcept nogil:
    """Has its peer sent something that its handler is yet to be told of?"""
    if session.state != OPEN or session.paused or session.peer_ended:
        return False
    if session.receiving:
        return iocp_has_come(session.socket, &session.receive.overlapped)
    return session.data_waits or session.ready or session.calls & (CALL_CONNECT | CALL_RECEIVE) != 0


cdef inline void tell_shutdowns(Worker *worker) noexcept nogil:
    """At a turn's end. What has come is told first, for a handler may close its session in on_shutdown.

    One receive is waited for, not until there is nothing more: a peer that floods always has more. Once the drain is
    over none is: on_shutdown comes to whoever wants it, though there was no time at all.
    """
    cdef bint is_over = drain_is_over(worker)
    cdef Session *session
    cdef unsigned int i
    worker.shutdown_due = 0
    worker.shutdown_over = is_over
    for i in range(session_slots(worker)):
        session = session_at(worker, i)
        if session == NULL or not session.shutdown_due:
            continue
        if is_over or not is_to_hear(session):
            tell_shutdown(worker, session)
        elif not session.receiving:
            worker.shutdown_due = 1     # something may wait that it is yet to receive: look again


cdef inline void end_session(Worker *worker, Session *session) noexcept nogil:
    """Its time is over. With bytes unsent it is reset; if all is sent, a slow peer may still read that."""
    if session.state == CLOSING:
        return
    if session.queue_head != NULL:
        session.error = WSAETIMEDOUT
        abort_session(worker, session, BY_US)
        return
    if not session.end_sent:
        send_end(worker, session)
    close_session(worker, session, session.reason)


cdef inline bint has_given_up(Worker *worker) noexcept nogil:
    """It closes, and the drain time is over."""
    return worker.closing and worker.close_at == 0


cdef inline bint drain_is_over(Worker *worker) noexcept nogil:
    return worker.close_at != 0 and worker.close_at <= worker.now


cdef inline bint must_give_up(Worker *worker) noexcept nogil:
    """The drain time is over, and whoever wants to know has been told so."""
    return drain_is_over(worker) and worker.shutdown_over


cdef inline void close_listeners(Worker *worker) noexcept nogil:
    """Nobody waits for a place any more."""
    cdef Listener *listener = worker.listeners
    cdef Listener *after
    while listener != NULL:
        after = listener.next
        refuse_waiting(worker, listener)
        unlisten(worker, listener, True)
        listener = after


cdef inline void give_up(Worker *worker) noexcept nogil:
    """The drain time is over."""
    worker.close_at = 0
    worker.done = done_by(worker)
    worker.leave_at = worker.now + LEAVE_TIME
    serve_granted(worker)
    close_listeners(worker)
    close_sessions(worker)


cdef inline uint64_t done_by(Worker *worker) noexcept nogil:
    """Grows with whatever gets done. From give_up() on nothing begins, so that it grows for a bounded time."""
    return worker.stats.packets + worker.stats.callbacks + worker.stats.undrained


cdef inline void leave_later(Worker *worker) noexcept nogil:
    """What gets done has all the time that it takes: many slow on_close, for example."""
    cdef uint64_t done = done_by(worker)
    if done != worker.done:
        worker.done = done
        worker.leave_at = worker.now + LEAVE_TIME


cdef inline void go_on_closing(Worker *worker) noexcept nogil:
    """At the end of each turn."""
    if worker.leave_at != 0:
        leave_later(worker)
    elif must_give_up(worker):
        give_up(worker)
    elif worker.shutdown_due or drain_is_over(worker):
        tell_shutdowns(worker)


cdef inline void on_broken_port(Worker *worker) noexcept nogil:
    """End what is there with the error, so that peers and handlers learn of it; then leave.

    What is cancelled may still end by packets that the port has made itself: with the first dequeue that fails again
    there is none.
    """
    if worker.broken != NOT_BROKEN:
        leave_behind(worker)
        return
    worker.broken = BROKEN
    report_trouble(worker, TROUBLE_DEQUEUE, worker.broken_by)
    InterlockedExchange(&worker.load, 1 << 30)  # nobody hands it a session
    break_sessions(worker)
    inbox_shut(worker, False)
    close_worker(worker, worker.now)
    give_up(worker)
    run_inbox(worker)


cdef inline void break_sessions(Worker *worker) noexcept nogil:
    cdef Session *session
    cdef unsigned int i
    for i in range(session_slots(worker)):
        session = session_at(worker, i)
        if session == NULL or session.state == CLOSING:
            continue
        session.error = worker.broken_by
        abort_session(worker, session, BY_ERROR)
        advance(worker, session)


cdef inline void leave_behind(Worker *worker) noexcept nogil:
    """The kernel has what is still in flight, for ever: that memory is leaked. Peers and handlers are told."""
    cdef Session *session
    cdef unsigned int i
    for i in range(session_slots(worker)):
        session = session_at(worker, i)
        if session == NULL or session.state != CLOSING or session.in_flight == 0:
            continue
        close_undrained(worker, session)
        if handler_must_be_told(session):
            tell_end(worker, session)
        elif session.handler.kind == LOAD:
            handler_closed(worker, session)
    worker.broken = LEFT_BEHIND


cdef inline bint worker_over(Worker *worker) noexcept nogil:
    """Nothing is left to wait for; or it does not come, and then its memory is leaked, never freed."""
    if worker.broken == LEFT_BEHIND and not calls_are_due(worker):
        return True
    if worker.abandoned:
        return True
    if not worker.closing:
        return False
    if worker.sessions.active == 0 and worker.listeners == NULL and not calls_are_due(worker):
        return inbox_shut(worker, True)
    return worker.leave_at != 0 and worker.leave_at <= worker.now and inbox_shut(worker, False)


# ---- the loop ----

cdef inline uint64_t earlier(uint64_t a, uint64_t b) noexcept nogil:
    """Of two deadlines, where 0 is none."""
    if a == 0 or b == 0:
        return a + b
    return min(a, b)


cdef inline DWORD milliseconds_left(Worker *worker) noexcept nogil:
    """Until the next deadline, rounded up."""
    cdef uint64_t at
    if worker.due.head != NULL or worker.ready.head != NULL or calls_are_due(worker) or places_were_granted(worker):
        return 0
    at = earlier(earlier(timer_first(worker), worker.retry_at), earlier(worker.close_at, worker.leave_at))
    at = earlier(at, earlier(worker.trim_at, worker.warn_at))
    if at == 0:
        return INFINITE
    if at <= worker.now:
        return 0
    return <DWORD> min((at - worker.now + 999999) // 1000000, <uint64_t> 3600000)


cdef inline void trim(Worker *worker) noexcept nogil:
    """What nobody has used for a while goes back to the system."""
    worker.trim_at = 0
    buffers_trim(worker)
    sessions_trim(worker)
    timers_trim(worker)
    iocp_trim(worker.port)


cdef inline void publish(Worker *worker) noexcept nogil:
    AcquireSRWLockExclusive(&worker.published_lock)
    worker.published = worker.stats
    ReleaseSRWLockExclusive(&worker.published_lock)


cdef inline void complete_batch(Worker *worker, unsigned int count) noexcept nogil:
    cdef unsigned int i
    for i in range(count):
        complete(worker, &worker.entries[i])
        if much_to_tell(worker):
            run_calls(worker)
            if worker.abandoned:
                return


cdef inline unsigned int worker_turn(Worker *worker, DWORD most) noexcept nogil:
    """Dequeue a batch, waiting at most so many milliseconds, and do all that follows from it; how many packets."""
    cdef unsigned int count = port_dequeue(worker, min(most, milliseconds_left(worker)))
    begin_round(worker)
    worker.seen_at = worker.now
    if unlikely(port_is_broken(worker)):
        on_broken_port(worker)
    complete_batch(worker, count)
    run_calls(worker)
    if worker.abandoned:
        return count
    run_due(worker)
    if worker.waited != NULL:
        iocp_submit(worker.port)    # what is small goes before all that follows
        run_ready(worker)
        if worker.abandoned:
            return count
    run_timers(worker)
    if places_were_granted(worker):
        serve_granted(worker)
    if worker.retry_at != 0 and worker.retry_at <= worker.now:
        retry_accepts(worker)
    if worker.trim_at != 0 and worker.trim_at <= worker.now:
        trim(worker)
    if unlikely(worker.closing):
        go_on_closing(worker)
    publish(worker)
    return count


cdef inline void worker_run(Worker *worker) noexcept nogil:
    """The thread's whole life: until the worker has closed."""
    iocp_wait_undisturbed(worker.port)
    while not worker_over(worker):
        worker_turn(worker, INFINITE)
    PyThread_release_lock(worker.ended)


cdef inline int worker_init(Worker *worker, int index, Worker *peers, int peer_count, int backend,
                            bint skip_on_success) noexcept nogil:
    """Of zeroed memory; 0 or the system's error number."""
    InitializeSRWLock(&worker.inbox.lock)
    InitializeSRWLock(&worker.published_lock)
    places_init(&worker.places)
    worker.index = index
    worker.peers = peers
    worker.peer_count = peer_count
    worker.skip_on_success = skip_on_success
    buffers_init(worker)
    worker.buffers_enough = IOCP_BUFFERS_ENOUGH
    worker.reclaims = IOCP_CANCEL_SPARES
    worker.warn_period = WARN_PERIOD
    worker.port = iocp_open_port(backend)
    if worker.port == NULL:
        return <int> GetLastError()
    worker.now = iocp_now(worker.port)
    return 0


cdef inline bint worker_free(Worker *worker) noexcept nogil:
    """After its thread has ended, or before it began. False if something is in flight: that memory is leaked."""
    cdef bint drained = worker.stats.in_flight == 0
    inbox_shut(worker, False)
    if not worker.closing:
        close_worker(worker, 0)     # it never ran: what was asked of it is refused, and whoever waits is told
    run_inbox(worker)       # what came too late for it
    run_calls(worker)
    timer_heap_free(&worker.timers)
    buffers_free(worker)
    session_table_free(worker)
    if drained and worker.port != NULL:
        CloseHandle(worker.port)
    worker.port = NULL
    return drained
