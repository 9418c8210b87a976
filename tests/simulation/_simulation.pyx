# cython: language_level=3, boundscheck=False, wraparound=False
"""The whole core, worker loop and inbox included, on the simulated kernel: one seed is one schedule.

Ownership: a Run belongs to one schedule. Memory that is left when a violation ends it, or when the core leaves memory
to the kernel, is discarded before the next.
Threads: one. It gives all workers their turns, in an order that the seed chooses. A third of the seeds have handlers in
Python, and take the GIL for them; the others never do.
"""
include "_core.pyx"     # the module's own source: its Python types run here

import types
import weakref

from libc.stdlib cimport abort
from libc.string cimport memcmp
from cpython.object cimport PyObject
from cpython.pythread cimport NOWAIT_LOCK
from iocp cimport (
    HANDLE, INFINITE, INVALID_SOCKET, LONG, OVERLAPPED, InterlockedDecrement, closesocket, iocp_has_come,
    iocp_open_port)
from buffer cimport buffer_append, buffer_has_room, buffer_take, chain_release
from deadline cimport deadline_of
from door cimport input_give, input_take_bytes, session_write
from listener cimport accept_completed
from limit cimport has_place
from port cimport port_associate
from queue cimport enqueue_sealed, queue_unsent
from request cimport session_takes, still_takes
from session cimport is_receiving, session_at, session_slots
from structs cimport (
    BY_PEER, BY_TIMEOUT, BY_US, CLOSING, CONNECTING, FINISHING, FREE, OPEN, PINNED, POOLED, RECEIVED_DATA, RECEIVED_END,
    RECEIVED_ERROR, RECEIVED_PART, RECEIVE_WAITING, RECEIVE_YIELDING, LayerOps, Operation, Received, SessionSlab,
    TimerHeap, Waiting)
from timer cimport timer_first
from tuning cimport ACCEPTS, IDLE_TIME, ROUND, SEND_LIMIT, SLAB_SESSIONS, STEP, TURN


cdef extern from "simulated.h" nogil:
    struct sim_connection:
        pass
    struct sim_limits:
        uint64_t salt
        uint64_t calm
        uint64_t absent
        uint64_t workers
        uint64_t listeners
        uint64_t calls
        uint64_t bytes
        uint64_t python
        uint64_t layer
    unsigned int sim_mutant
    const char *sim_whim_name(int whim)
    bint sim_as_windows()
    bint sim_layered()
    void sim_begin(uint64_t seed, const sim_limits *limits, size_t operation_size, int telling)
    void sim_shuffle()
    void sim_end()
    int sim_run(void (*body)(void *) noexcept nogil, void *context)
    void sim_violation(const char *format, ...)
    const char *sim_violated()
    int sim_crashed()
    void sim_tell(const char *format, ...)
    const char *sim_story()
    uint64_t sim_below(uint64_t limit)
    uint64_t sim_scale(uint64_t least, uint64_t most)
    int sim_one_in(uint64_t n)
    uint64_t sim_now()
    int sim_runnable(HANDLE port)
    int sim_idle()
    unsigned int sim_in_flight(HANDLE port)
    int sim_came_by(const OVERLAPPED *receive, uint64_t by)
    unsigned int sim_failed_dequeues(HANDLE port)
    OVERLAPPED *sim_operation(unsigned int index)
    void sim_check_memory()
    void sim_make_memory_scarce(int scarce)
    int sim_listen()
    sim_connection *sim_connection_of(int fd)
    unsigned int sim_open_descriptors()
    unsigned int sim_unread_closes()
    unsigned int sim_number(const sim_connection *c)
    int sim_core_closed(const sim_connection *c)
    int sim_was_reset(const sim_connection *c)
    uint64_t sim_taken(const sim_connection *c)
    size_t sim_room(const sim_connection *c)
    const char *sim_excused(const sim_connection *c)
    void sim_excuse(sim_connection *c, const char *why)

cdef extern from "Python.h":
    ctypedef enum PyGILState_STATE:
        PyGILState_LOCKED
        PyGILState_UNLOCKED
    void PyGILState_Release(PyGILState_STATE state) nogil

cdef extern from "peers.h" nogil:
    struct peers:
        pass
    enum:
        PEERS_PERIOD
        PEERS_TALK
        PEERS_REFUSED
        PEERS_TIMED
        PEERS_HURRIED
        PEERS_PAIRS
    struct peers_view:
        size_t offset
        uint64_t sent
        uint64_t got
        int ended
    peers *peers_begin(const int *listeners, const unsigned int *customs, unsigned int listener_count)
    const unsigned char *peers_pattern()
    int peers_look(const peers *everybody, const sim_connection *c, peers_view *view)
    void peers_end(peers *everybody)
    int peers_done(const peers *everybody)
    void peers_are_stuck(const peers *everybody)
    void peers_warn(peers *everybody, int early)
    void peers_check(const peers *everybody)

cdef extern from "blocks.h" nogil:
    unsigned int blocks_count()
    void blocks_discard()
    void blocks_keep()

cdef enum:
    WORKERS = 2
    LISTENERS = 3
    SLOTS = 128         # watched slots of a worker's table, and entries of the noted ready list
    NAMES = 128         # sessions that may be aborted later
    LINE = 256          # waiting connections whose order is checked
    MOST_TURNS = 1000000    # a spared session takes one in each millisecond while its packet is late

cdef extern from *:
    """
    #define LONGEST_RUN UINT64_C(3600000000000)
    """
    const uint64_t LONGEST_RUN      # nanoseconds; every timeout of the core is far shorter

# The name of a session: its connection may be gone, and another session may be in its slot.
cdef struct Name:
    int worker
    unsigned int slot
    uint64_t generation
    sim_connection *connection

# A connection that waits for a place.
cdef struct InLine:
    sim_connection *connection
    NativeListener *listener

# A listener, which may open late and close early.
cdef struct Place:
    NativeListener *listener
    void *python                # the Listener that owns it, held; NULL: it is native alone
    uint64_t opens_at           # turn
    uint64_t closes_at          # turn, 0: with the worker
    bint asked                  # its worker was asked to open it

cdef struct Run:
    sim_limits limits
    Worker *workers
    int count
    bint over[WORKERS]
    Place places[LISTENERS]
    int sockets[LISTENERS]
    unsigned int customs[LISTENERS]
    int place_count
    NativeHandler echo
    bint pairs                  # it sends bytes back in pairs only; the odd one waits
    NativeHandler caller
    NativeLoad load
    LoadRow rows[WORKERS]
    int calls                   # connections that the load client has still to make
    void *cast                  # the Cast, held; NULL: no handler is in Python
    int debts                   # the Cast's sessions that are still to be resumed or ended
    int dialled                 # the Cast's own connects that are not over
    int dials                   # the Cast's connects that are still to come
    peers *everybody
    sim_connection *seen[WORKERS][SLOTS]
    Name names[NAMES]
    unsigned int name_count
    InLine line[LINE]           # the queue for a place, at the last look
    int line_count
    uint64_t aborts             # one abort in so many turns, 0: none
    uint64_t closes_at          # the turn when the core closes, done or not; 0: when all are done
    bint closes_idle            # ... or when a session gives its idle buffer back
    uint64_t drain
    bint closing
    bint asked[WORKERS]         # the worker was asked to close
    bint left                   # a worker has left memory to the kernel
    unsigned int unread_closes  # those seen so far
    uint64_t excusing[WORKERS]  # ends of sessions that excuse one: those seen so far
    uint64_t done[WORKERS]      # the worker's progress at the last look
    uint64_t done_at[WORKERS]   # when that last grew, by the worker's clock
    uint64_t turns
    NativeSession *ready[SLOTS]  # the ready list before this turn
    unsigned int ready_count

# Locks that the core releases; no thread waits for them here.
cdef PyThread_type_lock[LISTENERS] armed, unlistened
cdef PyThread_type_lock done = PyThread_allocate_lock()
cdef const char *pattern = PATTERN
for _i in range(LISTENERS):
    armed[_i] = PyThread_allocate_lock()
    unlistened[_i] = PyThread_allocate_lock()


include "_layer.pxi"
include "_handlers.pxi"
include "_cast.pxi"
include "_rules.pxi"


# ---- the beginning ----

cdef bint open_workers(Run *run) noexcept nogil:
    """False if memory was short; nothing runs then."""
    cdef int i
    cdef bint skip_on_success = sim_below(2)
    run.count = <int> min(1 + sim_below(WORKERS), run.limits.workers)
    run.workers = <Worker *> calloc(run.count, sizeof(Worker))
    if run.workers == NULL:
        abort()
    sim_make_memory_scarce(True)
    for i in range(run.count):
        if worker_init(&run.workers[i], i, run.workers, run.count, iocp_backend_find("simulated"), skip_on_success):
            return False
        run.workers[i].session_ops.deliver = deliver_sessions
        run.workers[i].attach = attach_noted    # workers with native handlers alone attach too, to warn
        run.workers[i].reclaims = not sim_as_windows()
        run.workers[i].buffers_enough = sim_below(8) if sim_below(4) == 0 else 1000
    return True


cdef void native_listener(Run *run, int i) noexcept nogil:
    cdef Place *place = &run.places[i]
    place.listener = <NativeListener *> calloc(1, sizeof(NativeListener))
    if place.listener == NULL:
        abort()
    listener_init(place.listener)
    PyThread_acquire_lock(armed[i], NOWAIT_LOCK)
    PyThread_acquire_lock(unlistened[i], NOWAIT_LOCK)
    place.listener.armed = armed[i]
    place.listener.unlistened = unlistened[i]
    place.listener.handler = &run.echo
    if run.pairs:
        run.customs[i] |= PEERS_PAIRS


cdef bint echo_pairs(Worker *worker, NativeSession *session) noexcept nogil:
    """A message of two bytes: half of it may wait while the next receive runs."""
    cdef size_t bytes = chain_length(session.inbound) & ~<size_t> 1
    cdef Buffer *pairs
    if bytes == 0:
        return True
    pairs = input_take_bytes(worker, session, bytes)
    return pairs != NULL and session_write(worker, session, pairs)


cdef void use_layer(NativeHandler *handler) noexcept nogil:
    if sim_layered():
        handler.layer = &layer_ops


cdef void prepare_place(Run *run, int i) noexcept nogil:
    cdef Place *place = &run.places[i]
    place.opens_at = sim_scale(1, 1000) if i > 0 and sim_below(2) else 0
    place.closes_at = place.opens_at + sim_scale(1, 2000) if sim_one_in(4) else 0
    if run.cast != NULL and (i == 0 or sim_below(2)):
        cast_listener(run, i)
    else:
        native_listener(run, i)
        if sim_one_in(4):
            place.listener.limit.most = <LONG> sim_scale(1, 8)
            run.customs[i] |= PEERS_HURRIED
    if run.workers[0].places.limit.most != 0:
        run.customs[i] |= PEERS_HURRIED
    place.listener.socket = <SOCKET> sim_listen()
    place.listener.family = AF_INET
    place.listener.worker = &run.workers[sim_below(run.count)]
    place.listener.serving[0] = ~<uint64_t> 0
    run.sockets[i] = <int> place.listener.socket


cdef void prepare_places(Run *run) noexcept nogil:
    cdef int i
    echo_init(&run.echo)
    use_layer(&run.echo)
    run.pairs = sim_one_in(4)
    if run.pairs:
        run.echo.ops.data = echo_pairs
    run.place_count = <int> min(1 + sim_below(LISTENERS) * sim_below(2), run.limits.listeners)
    sim_make_memory_scarce(False)
    if sim_one_in(6):
        run.workers[0].places.limit.most = <LONG> sim_scale(1, 8)
    if sim_one_in(3) and run.limits.python:
        cast_begin(run)
    for i in range(run.place_count):
        prepare_place(run, i)
    sim_make_memory_scarce(True)
    run.everybody = peers_begin(run.sockets, run.customs, run.place_count)


cdef void prepare_load(Run *run) noexcept nogil:
    """In some runs the core connects too, to simulated echo servers."""
    run.calls = <int> min(sim_scale(1, 8) if sim_one_in(3) else 0, run.limits.calls)
    run.load.messages = sim_scale(1, 32)
    run.load.size_min = <unsigned int> sim_scale(1, 2000)
    run.load.size_max = <unsigned int> sim_scale(run.load.size_min, 4000)
    run.load.pipeline = <unsigned int> sim_scale(1, 8)
    run.load.pattern = pattern
    run.load.rows = run.rows
    run.load.done = done
    run.load.remaining = run.calls
    load_init(&run.caller, &run.load)
    use_layer(&run.caller)


cdef bint begin(Run *run) noexcept nogil:
    PyThread_acquire_lock(done, NOWAIT_LOCK)
    if not open_workers(run):
        return False
    prepare_places(run)
    prepare_load(run)
    run.aborts = sim_scale(4, 256) if sim_below(2) else 0
    run.closes_at = sim_scale(1, 2000) if sim_one_in(4) else 0
    run.closes_idle = sim_below(2)
    run.drain = sim_scale(1, 8000000000) if sim_below(2) else 0
    sim_shuffle()
    return True


# ---- the rules that are checked after every turn ----

cdef void check_sums(Worker *worker) noexcept nogil:
    cdef StatsRow *stats = &worker.stats
    if <int> stats.submitted != <int> (
            stats.packets + stats.inline_successes + stats.failed_starts + <uint64_t> stats.in_flight):
        sim_violation("worker %d: the sum of ended operations is wrong", worker.index)
    if stats.in_flight != <int> sim_in_flight(worker.port):
        sim_violation("worker %d: it counts %d operations in flight, the kernel %u", worker.index,
                      <int> stats.in_flight, sim_in_flight(worker.port))


cdef int count_pooled(const Buffer *buffer) noexcept nogil:
    cdef int count = 0
    while buffer != NULL:
        count += buffer.kind == POOLED
        buffer = buffer.next
    return count


cdef void check_sessions(Worker *worker) noexcept nogil:
    """The worker counts as many sessions, buffers and queued bytes as there are."""
    cdef NativeSession *session
    cdef unsigned int i
    cdef int sessions = 0, buffers = 0
    cdef size_t queued = 0
    for i in range(session_slots(worker)):
        session = session_at(worker, i)
        if session == NULL:
            continue
        sessions += 1
        if session.listener != NULL and session.listener.holds <= 0:
            sim_violation("worker %d: the listener of the session in slot %u is not held", worker.index, i)
        queued += session.queue_bytes
        check_queue(worker, session)
        buffers += count_pooled(session.posted) + count_pooled(session.inbound) + count_parts(session)
        buffers += count_pooled(session.queue.head)
    if sessions != <int> worker.sessions.active or sessions != worker.stats.active:
        sim_violation("worker %d: it has %d sessions, and counts %u", worker.index, sessions, worker.sessions.active)
    if buffers != worker.stats.buffers_used:
        sim_violation("worker %d: it uses %d buffers, and counts %d", worker.index, buffers,
                      <int> worker.stats.buffers_used)
    if <int> queued != worker.stats.bytes_queued:
        sim_violation("worker %d: it has queued %d bytes, and counts %d", worker.index, <int> queued,
                      <int> worker.stats.bytes_queued)


cdef void check_queue(Worker *worker, NativeSession *session) noexcept nogil:
    """The session counts as many buffers, bytes and bytes of a layer as its queue has."""
    cdef Buffer *buffer = session.queue.head
    cdef size_t bytes = 0, extra = 0
    cdef unsigned int count = 0
    while buffer != NULL and count < session.queue_buffers:
        count += buffer.length > 0
        bytes += buffer.length
        extra += buffer.extra
        buffer = buffer.next
    if buffer != NULL or count != session.queue_buffers or bytes != session.queue_bytes or extra != session.queue_extra:
        sim_violation("worker %d: the session in slot %u counts other bytes or buffers than it has queued",
                      worker.index, session.slot)


cdef void check_slabs(Worker *worker) noexcept nogil:
    """Each slab counts its sessions, is listed if it has room, and will go back if it is empty."""
    cdef SessionSlab *slab = worker.sessions.roomy
    cdef unsigned int i, used, roomy = 0
    cdef int spare = 0
    while slab != NULL:
        roomy += slab.used < SLAB_SESSIONS
        slab = slab.next
    for i in range(worker.sessions.count):
        slab = worker.sessions.slabs[i]
        if slab == NULL:
            continue
        used = count_living(worker, i)
        roomy -= used < SLAB_SESSIONS
        spare += SLAB_SESSIONS - used
        if used != slab.used:
            sim_violation("worker %d: slab %u has %u sessions, and counts %u", worker.index, i, used, slab.used)
        if used == 0 and worker.trim_at == 0:
            sim_violation("worker %d: slab %u is empty, and will not go back", worker.index, i)
    if roomy != 0:
        sim_violation("worker %d: a slab with room is not listed, or one is listed twice", worker.index)
    if spare != worker.stats.sessions_spare:
        sim_violation("worker %d: it has memory for %d more sessions, and counts %d", worker.index, spare,
                      <int> worker.stats.sessions_spare)


cdef unsigned int count_living(Worker *worker, unsigned int slab) noexcept nogil:
    cdef unsigned int i, living = 0
    for i in range(slab * SLAB_SESSIONS, (slab + 1) * SLAB_SESSIONS):
        living += session_at(worker, i) != NULL
    return living


cdef void check_deadlines(Worker *worker) noexcept nogil:
    """Each session with a deadline has a timer in time, also where memory is short."""
    cdef NativeSession *session
    cdef unsigned int i
    cdef uint64_t deadline
    for i in range(session_slots(worker)):
        session = session_at(worker, i)
        if session == NULL:
            continue
        deadline = deadline_of(session)
        if deadline <= worker.now or (session.receive == RECEIVE_YIELDING and worker.reclaims):
            continue
        if session.item.ready or session.item.calling:
            continue
        if session.state == OPEN:   # an idle buffer's time begins anew when its receive is posted
            deadline = max(deadline, worker.now + IDLE_TIME)
        if session.item.timer_at == 0 or session.item.timer_at > deadline:
            sim_violation("worker %d: no timer will check the session in slot %u in time", worker.index, i)


cdef void check_late(Worker *worker, uint64_t began) noexcept nogil:
    """No deadline that was over when the turn began is left, whatever packets came."""
    if worker.timers.count != 0 and timer_first(worker) <= began:
        sim_violation("worker %d: a deadline is over, and its session was not checked", worker.index)


cdef void note_ready(Run *run, Worker *worker) noexcept nogil:
    """Note the ready list, in order, before the worker's round."""
    cdef NativeSession *session = <NativeSession *> worker.ready.head
    run.ready_count = 0
    while session != NULL and run.ready_count < SLOTS:
        run.ready[run.ready_count] = session
        run.ready_count += 1
        session = <NativeSession *> session.item.next


cdef void check_turns(Run *run, Worker *worker) noexcept nogil:
    """No turn and no round lasts too long, and turns were given in the order of the ready list."""
    cdef NativeSession *session = <NativeSession *> worker.ready.head
    cdef unsigned int i
    if worker.longest_turn >= TURN:
        sim_violation("worker %d: a turn of %d steps goes on", worker.index, worker.longest_turn)
    if worker.moved_by_turns >= ROUND + TURN * STEP + SEND_LIMIT:    # a turn's last step may be a whole send
        sim_violation("worker %d: the turns of one round moved %d bytes", worker.index, <int> worker.moved_by_turns)
    if worker.overdrawn:
        sim_violation("worker %d: a turn was given after the round's budget was spent", worker.index)
    if run.ready_count == SLOTS:
        return
    if run.ready_count != 0 and worker.turns_given == 0 and not worker.abandoned:
        sim_violation("worker %d: sessions wait for a turn, and none was given", worker.index)
    for i in range(worker.turns_given, run.ready_count):
        if session != run.ready[i]:
            sim_violation("worker %d: a session that waits for its turn was overtaken", worker.index)
        session = <NativeSession *> session.item.next


cdef void check_spared(Worker *worker, uint64_t began) noexcept nogil:
    """No session was closed as idle in this turn for which something had come. Those with send_timeout are skipped."""
    cdef NativeSession *session
    cdef unsigned int i
    for i in range(session_slots(worker)):
        session = session_at(worker, i)
        if session == NULL or session.state != CLOSING or session.reason != BY_TIMEOUT or session.end_sent:
            continue
        if session.closing_at < began or session.handler.settings.send_timeout != 0:
            continue
        if not is_receiving(session) or session.sending or session.queue.head != NULL or not session.connected:
            continue
        if session.reason == BY_US or session.sent_at >= session.closing_at:    # a drain, or send_timeout, was over
            continue
        if sim_came_by(&session.item.operation.overlapped, session.closing_at):
            sim_violation("worker %d: the session in slot %u was closed as idle, although something had come for it",
                          worker.index, i)


cdef void check_timers(Worker *worker) noexcept nogil:
    """A session has one entry or none, and knows its index; the first entry is the earliest."""
    cdef TimerHeap *heap = &worker.timers
    cdef NativeSession *session
    cdef size_t i, waiting = 0
    for i in range(session_slots(worker)):
        session = session_at(worker, i)
        waiting += session != NULL and session.item.timer_at != 0
    for i in range(heap.count):
        session = <NativeSession *> heap.timers[i].item
        if (session.item.timer_index != i or session.item.timer_at != heap.timers[i].at
                or heap.timers[i].at < timer_first(worker)):
            sim_violation("worker %d: entry %d of its timers is wrong", worker.index, <int> i)
    if waiting != heap.count:
        sim_violation("worker %d: it has %d timers for %d sessions", worker.index, <int> heap.count, <int> waiting)


cdef void check_listeners(Worker *worker) noexcept nogil:
    """All accepts are posted, or will be after a while."""
    cdef NativeListener *listener = worker.listeners
    while listener != NULL:
        if listener.in_flight + listener.waiting < ACCEPTS and not listener.closing and worker.retry_at == 0:
            sim_violation("worker %d: an accept is not posted, and will not be", worker.index)
        listener = listener.next


cdef int place_in_line(const Waiting *waiting, void *socket) noexcept nogil:
    """The connection's place in that queue; -1: it waits no more."""
    cdef int i = 0
    while waiting != NULL:
        if sim_connection_of(<int> waiting.socket) == socket:
            return i
        waiting = waiting.next
        i += 1
    return -1


cdef void check_order(Run *run, const Waiting *line) noexcept nogil:
    """No connection got a place since the last look before an earlier one that could have had it."""
    cdef int i, j
    for i in range(run.line_count):
        if place_in_line(line, run.line[i].connection) >= 0:
            continue
        for j in range(i):
            if place_in_line(line, run.line[j].connection) >= 0 and has_place(&run.line[j].listener.limit):
                sim_violation("connection %u waits, and connection %u that came later has a place",
                              sim_number(run.line[j].connection), sim_number(run.line[i].connection))


cdef void check_line(Run *run) noexcept nogil:
    """Connections get places first come, first served, and as soon as there is one."""
    cdef const Waiting *waiting = run.workers[0].places.line.head
    if not run.closing:
        check_order(run, waiting)
    run.line_count = 0
    while waiting != NULL:
        if has_place(&waiting.listener.limit) and has_place(&run.workers[0].places.limit):
            sim_violation("a connection waits although there is a place")
        if run.line_count < LINE:
            run.line[run.line_count] = InLine(sim_connection_of(<int> waiting.socket), waiting.listener)
            run.line_count += 1
        waiting = waiting.next


cdef void check_unread(Run *run, Worker *worker) noexcept nogil:
    """Closing with unread input destroys bytes that were sent: it needs an error, a timeout or a refusal as excuse."""
    cdef unsigned int closes = sim_unread_closes() - run.unread_closes
    cdef StatsRow *stats = &worker.stats
    cdef uint64_t excusing = stats.closed_by_error + stats.closed_by_timeout + stats.undrained + stats.refused
    if closes > excusing - run.excusing[worker.index] and worker.leave_at == 0:
        sim_violation("worker %d: it closed with unread input, for no reason", worker.index)
    run.unread_closes += closes
    run.excusing[worker.index] = excusing


cdef void check_owners() noexcept nogil:
    """No session is released while the kernel holds an operation of it."""
    cdef unsigned int i = 0
    cdef Operation *operation = <Operation *> sim_operation(0)
    cdef NativeSession *session
    while operation != NULL:
        if operation.completed != accept_completed:
            session = <NativeSession *> operation.owner
            if session.state == FREE:
                sim_violation("a session was released with an operation in flight")
        i += 1
        operation = <Operation *> sim_operation(i)


cdef void see_progress(Run *run, Worker *worker) noexcept nogil:
    """Note progress: packets that the worker has got, and callbacks that it has made."""
    cdef uint64_t done = worker.stats.packets + worker.stats.callbacks
    if done != run.done[worker.index]:
        run.done[worker.index] = done
        run.done_at[worker.index] = worker.now


cdef void check_patience(Run *run, Worker *worker) noexcept nogil:
    """A worker that leaves memory behind has waited long enough without progress."""
    if worker.now < run.done_at[worker.index] + LEAVE_TIME:
        sim_violation("worker %d: it has left although it made progress", worker.index)


cdef void check(Run *run, Worker *worker, uint64_t began) noexcept nogil:
    see_progress(run, worker)
    check_sums(worker)
    check_sessions(worker)
    check_slabs(worker)
    check_deadlines(worker)
    check_timers(worker)
    check_late(worker, began)
    check_spared(worker, began)
    check_turns(run, worker)
    check_listeners(worker)
    check_unread(run, worker)
    check_owners()
    check_line(run)
    if sim_one_in(16):
        sim_check_memory()


# ---- requests to the core ----

cdef bint ask(Worker *worker, Message *message) noexcept nogil:
    """False: the worker takes no more messages, or memory is short."""
    if inbox_put(worker, message):
        return True
    message_free(message)
    return False


cdef void call_somebody(Run *run) noexcept nogil:
    cdef Message *message = message_new(do_connect)
    cdef Worker *worker = &run.workers[run.calls % run.count]
    if message == NULL:
        return
    message.address = <SOCKADDR_STORAGE *> calloc(1, sizeof(SOCKADDR_STORAGE))
    if message.address == NULL:
        message_free(message)
        return
    run.calls -= 1
    message.handler = &run.caller
    message.address.ss_family = AF_INET
    message.address_length = sizeof(SOCKADDR_STORAGE)
    InterlockedIncrement(&worker.load)
    if not ask(worker, message):
        InterlockedDecrement(&worker.load)
        load_over(&run.load)


cdef void open_place(Place *place, int number) noexcept nogil:
    """Ask the worker to listen. If that fails, the socket is still ours: close it."""
    cdef Message *message = message_about(do_listen, place.listener)
    place.asked = True
    if message != NULL and ask(place.listener.worker, message):
        return
    sim_tell("listener %d cannot be opened", number)
    closesocket(place.listener.socket)
    place.listener.socket = INVALID_SOCKET
    PyThread_release_lock(place.listener.armed)
    PyThread_release_lock(place.listener.unlistened)


cdef void close_place(Place *place, int number) noexcept nogil:
    cdef Message *message = message_about(do_unlisten, place.listener)
    if message == NULL:
        return
    sim_tell("listener %d is asked to close", number)
    place.closes_at = 0
    ask(place.listener.worker, message)


cdef void forget_place(Place *place, int number) noexcept nogil:
    """As Python does: free the listener, because nothing in the core refers to it any more."""
    if not PyThread_acquire_lock(place.listener.armed, NOWAIT_LOCK):
        sim_violation("listener %d: the worker has not said whether it is armed", number)
    if place.listener.socket != INVALID_SOCKET:
        sim_violation("listener %d is left open", number)
    if not PyThread_acquire_lock(place.listener.unlistened, NOWAIT_LOCK):
        sim_violation("listener %d: the worker has not said that its port is free", number)
    free_place(place)


cdef void free_place(Place *place) noexcept nogil:
    if place.python == NULL:
        free(place.listener)
    else:
        drop_listener(place)
    place.listener = NULL


cdef void forget_places(Run *run) noexcept nogil:
    cdef Place *place
    cdef int i
    for i in range(run.place_count):
        place = &run.places[i]
        if place.listener != NULL and place.asked and place.closes_at == 0 and place.listener.holds == 0:
            forget_place(place, i)


cdef void open_and_close_places(Run *run) noexcept nogil:
    cdef Place *place
    cdef int i
    for i in range(run.place_count):
        place = &run.places[i]
        if not place.asked and run.turns >= place.opens_at:
            open_place(place, i)
        if place.closes_at != 0 and run.turns >= place.closes_at:
            close_place(place, i)


cdef void remember(Run *run, Worker *worker) noexcept nogil:
    """Note the names of new sessions."""
    cdef unsigned int i
    cdef NativeSession *session
    cdef sim_connection *connection
    for i in range(min(session_slots(worker), <unsigned int> SLOTS)):
        session = session_at(worker, i)
        if session == NULL or session.socket == INVALID_SOCKET:
            continue
        connection = sim_connection_of(<int> session.socket)
        if connection == NULL or connection == run.seen[worker.index][i]:
            continue
        run.seen[worker.index][i] = connection
        if run.name_count < NAMES:
            run.names[run.name_count] = Name(worker.index, i, session.generation, connection)
            run.name_count += 1


cdef void abort_somebody(Run *run) noexcept nogil:
    """Ask to abort a session that is there, or one that has gone: then no other session may suffer."""
    cdef Name *name
    cdef Message *message
    if run.name_count == 0:
        return
    name = &run.names[sim_below(run.name_count)]
    sim_tell("worker %d is asked to abort the session of connection %u%s", name.worker, sim_number(name.connection),
             <const char *> ", which has gone" if sim_core_closed(name.connection) else <const char *> "")
    if not sim_core_closed(name.connection):
        sim_excuse(name.connection, "it was aborted on request")
    message = message_new(do_request)
    if message == NULL:
        return
    message.link = link_new()
    if message.link == NULL:
        message_free(message)
        return
    message.request = request_abort
    message.link.slot = name.slot
    message.link.generation = name.generation
    ask(&run.workers[name.worker], message)


cdef void ask_to_close(Run *run, int index) noexcept nogil:
    sim_tell("worker %d is asked to close", index)
    run.asked[index] = inbox_ask_to_close(&run.workers[index], run.drain)


cdef bint somebody_is_idle(Run *run) noexcept nogil:
    """Has a session been idle for so long that its receive is cancelled in the next turn, or was?"""
    cdef NativeSession *session
    cdef unsigned int i
    cdef int k
    for k in range(run.count):
        for i in range(session_slots(&run.workers[k])):
            session = session_at(&run.workers[k], i)
            if session == NULL or session.state != OPEN:
                continue
            if is_receiving(session) and session.receive != RECEIVE_WAITING:
                if session.active_at + IDLE_TIME <= sim_now():
                    return True
    return False


cdef bint is_time_to_close(Run *run) noexcept nogil:
    if run.closes_at != 0 and run.turns >= run.closes_at:
        return True
    if run.dials > 0 or run.dialled > 0:
        return False
    return peers_done(run.everybody) and InterlockedCompareExchange(&run.load.remaining, 0, 0) == 0


cdef void warn(Run *run, bint early) noexcept nogil:
    """From now on the core closes."""
    run.closing = True
    peers_warn(run.everybody, early)


cdef void disturb(Run *run) noexcept nogil:
    cdef int i
    open_and_close_places(run)
    if run.cast != NULL:
        foreigners_act(run)
    if run.calls > 0 and sim_one_in(4):
        call_somebody(run)
    if sim_one_in(run.aborts):
        abort_somebody(run)
    if run.closes_idle and run.closes_at == 0 and somebody_is_idle(run):
        run.closes_at = run.turns
    if not run.closing and is_time_to_close(run):
        warn(run, run.closes_at != 0 and run.turns >= run.closes_at)
    if run.closing:
        i = <int> sim_below(run.count)
        if not run.asked[i]:
            ask_to_close(run, i)


# ---- turns ----

cdef Worker *next_worker(Run *run) noexcept nogil:
    """A worker that does not sleep, or NULL."""
    cdef int i, k, first = <int> sim_below(run.count)
    for k in range(run.count):
        i = (first + k) % run.count
        if not run.over[i] and sim_runnable(run.workers[i].port):
            return &run.workers[i]
    return NULL


cdef bint all_over(Run *run) noexcept nogil:
    cdef int i
    cdef bint over = True
    for i in range(run.count):
        run.over[i] = run.over[i] or worker_over(&run.workers[i])
        over = over and run.over[i]
    return over


cdef bint has_plans(Run *run) noexcept nogil:
    """Has the simulation still something to do to the core?"""
    cdef int i
    if run.calls > 0 or run.dials > 0 or run.debts > 0:
        return True
    for i in range(run.place_count):
        if not run.places[i].asked:
            return True
    for i in range(run.count):
        if run.closing and not run.asked[i]:
            return True
    return False


cdef void stuck(Run *run) noexcept nogil:
    if run.closing:
        sim_violation("nothing can happen any more, and the core has not closed")
    peers_are_stuck(run.everybody)


cdef void turn(Run *run) noexcept nogil:
    cdef Worker *worker
    cdef uint64_t began
    run.turns += 1
    if run.turns > MOST_TURNS or sim_now() > LONGEST_RUN:
        sim_violation("the run does not end")
    disturb(run)
    worker = next_worker(run)
    if worker == NULL:
        if not sim_idle() and not has_plans(run):
            stuck(run)
        return
    began = sim_now()
    note_ready(run, worker)
    worker_turn(worker, INFINITE)
    check(run, worker, began)
    if run.cast != NULL:
        check_cast(run)
    forget_places(run)
    remember(run, worker)


# ---- the end ----

cdef void check_emptiness(Worker *worker) noexcept nogil:
    cdef StatsRow *stats = &worker.stats
    if stats.active != 0 or stats.in_flight != 0 or stats.buffers_used != 0 or stats.bytes_queued != 0:
        sim_violation("worker %d: at the end %d sessions, %d operations, %d buffers, %d queued bytes remain",
                      worker.index, <int> stats.active, <int> stats.in_flight, <int> stats.buffers_used,
                      <int> stats.bytes_queued)
    if worker.load != 0:
        sim_violation("worker %d: at the end its load is %d", worker.index, worker.load)


cdef void free_worker(Run *run, Worker *worker) noexcept nogil:
    """Memory that the kernel has not given back in time is left to it."""
    cdef bint left = sim_in_flight(worker.port) != 0
    if not left:
        check_emptiness(worker)
    else:
        check_patience(run, worker)
    if left and worker.leave_at == 0:
        sim_violation("worker %d: it has ended with operations in flight, and did not wait", worker.index)
    if worker.stats.dequeue_failures != sim_failed_dequeues(worker.port):
        sim_violation("worker %d: %d dequeues failed, and it counts %d", worker.index,
                      <int> sim_failed_dequeues(worker.port), <int> worker.stats.dequeue_failures)
    if worker_free(worker) == left:
        sim_violation("worker %d: it does not know that memory is left to the kernel", worker.index)
    if left:
        sim_tell("worker %d leaves memory to the kernel", worker.index)
        run.left = True


cdef void check_load(Run *run) noexcept nogil:
    cdef int i
    if run.load.remaining != run.calls and not run.left:
        sim_violation("the load waits for ever for %d connections", run.load.remaining - run.calls)
    for i in range(WORKERS):
        if run.rows[i].mismatches != 0:
            sim_violation("the load received wrong bytes")


cdef void check_places(Run *run) noexcept nogil:
    """Listeners that a worker was asked to open must be over by now; the others are still ours."""
    cdef int i
    for i in range(run.place_count):
        run.places[i].closes_at = 0
        if not run.places[i].asked:
            closesocket(run.places[i].listener.socket)
            free_place(&run.places[i])
    forget_places(run)
    for i in range(run.place_count):
        if run.places[i].listener != NULL and not run.left:
            sim_violation("listener %d is held for ever", i)


cdef void free_memory(Run *run) noexcept nogil:
    if run.left:
        return
    free(run.workers)
    if blocks_count() != 0:
        sim_violation("%u blocks of memory are left", blocks_count())


cdef void end(Run *run) noexcept nogil:
    cdef int i, _turn
    for i in range(run.count):
        free_worker(run, &run.workers[i])
    check_load(run)
    check_places(run)
    for _turn in range(MOST_TURNS):
        if not sim_idle():
            break
    sim_check_memory()
    peers_check(run.everybody)
    if sim_open_descriptors() != 0:
        sim_violation("%u descriptors are left open", sim_open_descriptors())
    if run.cast != NULL:
        cast_end(run)
    peers_end(run.everybody)
    free_memory(run)


cdef void give_up(Run *run) noexcept nogil:
    """There was too little memory to begin."""
    cdef int i
    sim_tell("the workers cannot be made")
    for i in range(run.count):
        worker_free(&run.workers[i])
    free_memory(run)


cdef void body(void *context) noexcept nogil:
    cdef Run *run = <Run *> context
    if not begin(run):
        give_up(run)
        return
    while not all_over(run):
        turn(run)
    end(run)


cdef bint simulate(uint64_t seed, const sim_limits *limits, bint telling) noexcept nogil:
    """True if all went well. forget() is still to be called."""
    cdef Run run
    memset(&run, 0, sizeof(Run))
    run.limits = limits[0]
    sim_begin(seed, limits, sizeof(Operation), telling)
    if not sim_run(body, &run):
        return True
    give_gil_up()
    return False


cdef void forget() noexcept nogil:
    cdef bint crashed = sim_crashed()
    sim_end()
    if not crashed:
        blocks_discard()


cdef void prepare() noexcept nogil:
    """The calls allocate a table of descriptors for the life of the process: do it here, so that no world counts it."""
    cdef Worker worker
    cdef sim_limits limits
    cdef SOCKET socket
    memset(&worker, 0, sizeof(Worker))
    memset(&limits, 0, sizeof(sim_limits))
    sim_begin(0, &limits, sizeof(Operation), False)
    worker.port = iocp_open_port(iocp_backend_find("simulated"))
    socket = <SOCKET> sim_listen()
    port_associate(&worker, socket)
    closesocket(socket)
    sim_end()
    blocks_keep()


NO_LIMITS = {"salt": 0, "calm": 0, "absent": 0, "workers": 2**63, "listeners": 2**63, "calls": 2**63, "bytes": 2**63,
             "python": 1, "layer": 1}
WHIMS = []
while sim_whim_name(len(WHIMS)) != NULL:
    WHIMS.append(sim_whim_name(len(WHIMS)).decode())
prepare()


def use_mutant(number):
    """Switch on the fault of that number; 0: none."""
    global sim_mutant
    sim_mutant = number


def run(seed, limits=NO_LIMITS):
    """Run one seed's schedule: (None or the violation in words, what happened line by line)."""
    cdef uint64_t number = seed
    cdef sim_limits narrowed = limits
    with nogil:
        simulate(number, &narrowed, True)
    violation = None if sim_violated() == NULL else sim_violated().decode()
    told = sim_story().decode()
    forget()
    return violation, told


def run_many(first, count, limits=NO_LIMITS):
    """Run that many seeds: (None, None), or (the first seed that fails, its violation)."""
    cdef uint64_t seed = first, end = first + count
    cdef sim_limits narrowed = limits
    cdef bint well = True
    with nogil:
        while seed < end:
            well = simulate(seed, &narrowed, False)
            if not well:
                break
            forget()
            seed += 1
    if well:
        return None, None
    violation = sim_violated().decode()
    forget()
    return seed, violation
