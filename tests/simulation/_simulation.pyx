# cython: language_level=3, boundscheck=False, wraparound=False
"""The whole core, worker loop and inbox included, on the simulated kernel: one seed is one schedule.

Ownership: a Run is one schedule's; what it allocates is freed when it ends well, and lost when a violation ends it.
Threads: one. It gives all workers their turns, in an order that the seed chooses, and takes no GIL in between.
"""
import random

from libc.stdint cimport uint64_t
from libc.stdlib cimport abort, calloc, free
from libc.string cimport memset
from cpython.pythread cimport (
    NOWAIT_LOCK, PyThread_acquire_lock, PyThread_allocate_lock, PyThread_type_lock)

from handler cimport PATTERN_PERIOD, load_over
from inbox cimport inbox_ask_to_close, inbox_item, inbox_put
from iocp cimport (
    AF_INET, CloseHandle, HANDLE, INVALID_SOCKET, InterlockedCompareExchange, InterlockedDecrement,
    InterlockedIncrement, OVERLAPPED, SOCKET, iocp_backend_find)
from operation cimport (
    ACCEPT, DO_ABORT, DO_CONNECT, DO_LISTEN, ECHO, FREE, LOAD, POOLED, Buffer, Handler, InboxItem, Listener,
    Load, LoadRow, Operation, Session, Worker)
from stats cimport Stats
from worker cimport worker_free, worker_init, worker_over, worker_turn

cdef extern from "linux/simulated.h" nogil:
    struct sim_connection:
        pass
    void sim_begin(uint64_t seed, size_t operation_size, int telling)
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
    OVERLAPPED *sim_operation(unsigned int index)
    int sim_listen()
    sim_connection *sim_connection_of(int fd)
    unsigned int sim_open_descriptors()
    unsigned int sim_number(const sim_connection *c)
    int sim_core_closed(const sim_connection *c)
    void sim_excuse(sim_connection *c, const char *why)

cdef extern from "peers.h" nogil:
    struct peers:
        pass
    peers *peers_begin(int listener)
    void peers_end(peers *everybody)
    int peers_done(const peers *everybody)
    void peers_are_stuck(const peers *everybody)
    void peers_warn(peers *everybody, int early)
    void peers_check(const peers *everybody)

cdef enum:
    WORKERS = 2
    SLOTS = 128         # of a worker's table that are watched
    NAMES = 128         # sessions that are remembered for late aborts
    MOST_TURNS = 300000

cdef extern from *:
    """
    #define LONGEST_RUN UINT64_C(600000000000)
    """
    const uint64_t LONGEST_RUN      # nanoseconds; every timeout of the core is far shorter

# Who a session was: its connection may be gone, and another may live in its slot.
cdef struct Name:
    int worker
    unsigned int slot
    unsigned int generation
    sim_connection *connection

cdef struct Run:
    Worker *workers
    int count
    bint over[WORKERS]
    Listener *listener
    Handler echo
    Handler caller
    Load load
    LoadRow rows[WORKERS]
    int calls                   # connections the core has still to make
    peers *everybody
    sim_connection *seen[WORKERS][SLOTS]
    Name names[NAMES]
    unsigned int name_count
    uint64_t aborts             # one in so many turns
    uint64_t closes_at          # the turn when it closes, whatever goes on; 0: when everybody is done
    uint64_t drain
    bint closing
    bint asked[WORKERS]         # to close
    uint64_t turns

# Locks that the core releases; nobody ever waits for them here.
cdef PyThread_type_lock armed = PyThread_allocate_lock()
cdef PyThread_type_lock done = PyThread_allocate_lock()
cdef bytes PATTERN = random.Random(65521).randbytes(PATTERN_PERIOD) * 2
cdef const char *pattern = PATTERN


# ---- the beginning ----

cdef InboxItem *new_item(unsigned char kind) noexcept nogil:
    cdef InboxItem *item = inbox_item(kind)
    if item == NULL:
        abort()
    return item


cdef void open_workers(Run *run) noexcept nogil:
    cdef int i
    cdef bint skip_on_success = sim_below(2)
    run.count = 1 + <int> sim_below(WORKERS)
    run.workers = <Worker *> calloc(run.count, sizeof(Worker))
    run.listener = <Listener *> calloc(1, sizeof(Listener))
    if run.workers == NULL or run.listener == NULL:
        abort()
    for i in range(run.count):
        if worker_init(&run.workers[i], i, run.workers, run.count, iocp_backend_find("simulated"), skip_on_success):
            abort()


cdef void open_listener(Run *run) noexcept nogil:
    cdef InboxItem *item = new_item(DO_LISTEN)
    run.echo.kind = ECHO
    run.listener.socket = <SOCKET> sim_listen()
    run.listener.family = AF_INET
    run.listener.handler = &run.echo
    run.listener.armed = armed
    run.listener.worker = &run.workers[sim_below(run.count)]
    item.listener = run.listener
    run.everybody = peers_begin(<int> run.listener.socket)
    inbox_put(run.listener.worker, item)


cdef void prepare_load(Run *run) noexcept nogil:
    """In some runs the core connects too, to simulated echo servers."""
    run.calls = <int> sim_scale(1, 8) if sim_one_in(3) else 0
    run.load.messages = sim_scale(1, 32)
    run.load.size_min = <unsigned int> sim_scale(1, 2000)
    run.load.size_max = <unsigned int> sim_scale(run.load.size_min, 4000)
    run.load.pipeline = <unsigned int> sim_scale(1, 8)
    run.load.pattern = pattern
    run.load.rows = run.rows
    run.load.done = done
    run.load.remaining = run.calls
    run.caller.kind = LOAD
    run.caller.load = &run.load


cdef void begin(Run *run) noexcept nogil:
    PyThread_acquire_lock(armed, NOWAIT_LOCK)
    PyThread_acquire_lock(done, NOWAIT_LOCK)
    open_workers(run)
    open_listener(run)
    prepare_load(run)
    run.aborts = sim_scale(4, 256) if sim_below(2) else 0
    run.closes_at = sim_scale(1, 2000) if sim_one_in(4) else 0
    run.drain = sim_scale(1, 8000000000) if sim_below(2) else 0


# ---- what must hold after every turn ----

cdef void check_sums(Worker *worker) noexcept nogil:
    cdef Stats *stats = &worker.stats
    if <int> stats.submitted != <int> (
            stats.packets + stats.inline_successes + stats.failed_starts + <uint64_t> stats.in_flight):
        sim_violation("worker %d: the sum of ended operations is wrong", worker.index)
    if stats.in_flight != <int> sim_in_flight(worker.port):
        sim_violation("worker %d: it counts %d operations in flight, the kernel %u", worker.index,
                      <int> stats.in_flight, sim_in_flight(worker.port))


cdef void check_sessions(Worker *worker) noexcept nogil:
    """Sessions, buffers and queued bytes are as many as are counted."""
    cdef Session *session
    cdef Buffer *buffer
    cdef unsigned int i
    cdef int sessions = 0, buffers = 0
    cdef size_t queued = 0
    for i in range(worker.sessions.used):
        session = worker.sessions.slots[i]
        if session.state == FREE:
            continue
        sessions += 1
        queued += session.queue_bytes
        buffers += session.input != NULL
        buffer = session.queue_head
        while buffer != NULL:
            buffers += buffer.kind == POOLED
            buffer = buffer.next
    if sessions != <int> worker.sessions.active or sessions != worker.stats.active:
        sim_violation("worker %d: it has %d sessions, and counts %u", worker.index, sessions, worker.sessions.active)
    if buffers != worker.stats.buffers_used:
        sim_violation("worker %d: it uses %d buffers, and counts %d", worker.index, buffers,
                      <int> worker.stats.buffers_used)
    if <int> queued != worker.stats.bytes_queued:
        sim_violation("worker %d: it has queued %d bytes, and counts %d", worker.index, <int> queued,
                      <int> worker.stats.bytes_queued)


cdef void check_owners() noexcept nogil:
    """Nobody is released while the kernel holds an operation of his."""
    cdef unsigned int i = 0
    cdef Operation *operation = <Operation *> sim_operation(0)
    cdef Session *session
    while operation != NULL:
        if operation.kind != ACCEPT:
            session = <Session *> operation.owner
            if session.state == FREE:
                sim_violation("the session in slot %u was released with an operation in flight", session.slot)
        i += 1
        operation = <Operation *> sim_operation(i)


cdef void check(Run *run, Worker *worker) noexcept nogil:
    check_sums(worker)
    check_sessions(worker)
    check_owners()


# ---- what is done to the core ----

cdef void call_somebody(Run *run) noexcept nogil:
    cdef InboxItem *item = new_item(DO_CONNECT)
    cdef Worker *worker = &run.workers[run.calls % run.count]
    run.calls -= 1
    item.handler = &run.caller
    item.address.ss_family = AF_INET
    item.address_length = sizeof(item.address)
    InterlockedIncrement(&worker.load)
    if not inbox_put(worker, item):
        InterlockedDecrement(&worker.load)
        load_over(&run.load)
        free(item)


cdef void remember(Run *run, Worker *worker) noexcept nogil:
    """The names of new sessions."""
    cdef unsigned int i
    cdef Session *session
    cdef sim_connection *connection
    for i in range(min(worker.sessions.used, <unsigned int> SLOTS)):
        session = worker.sessions.slots[i]
        if session.state == FREE or session.socket == INVALID_SOCKET:
            continue
        connection = sim_connection_of(<int> session.socket)
        if connection == NULL or connection == run.seen[worker.index][i]:
            continue
        run.seen[worker.index][i] = connection
        if run.name_count < NAMES:
            run.names[run.name_count] = Name(worker.index, i, session.generation, connection)
            run.name_count += 1


cdef void abort_somebody(Run *run) noexcept nogil:
    """A session that is there, or one that has gone: then nobody else may suffer."""
    cdef Name *name
    cdef InboxItem *item
    if run.name_count == 0:
        return
    name = &run.names[sim_below(run.name_count)]
    sim_tell("worker %d is asked to abort the session of connection %u%s", name.worker, sim_number(name.connection),
             <const char *> ", which has gone" if sim_core_closed(name.connection) else <const char *> "")
    if not sim_core_closed(name.connection):
        sim_excuse(name.connection, "it was aborted on request")
    item = new_item(DO_ABORT)
    item.slot = name.slot
    item.generation = name.generation
    if not inbox_put(&run.workers[name.worker], item):
        free(item)


cdef void ask_to_close(Run *run, int index) noexcept nogil:
    sim_tell("worker %d is asked to close", index)
    inbox_ask_to_close(&run.workers[index], run.drain)
    run.asked[index] = True


cdef bint is_time_to_close(Run *run) noexcept nogil:
    if run.closes_at != 0 and run.turns >= run.closes_at:
        return True
    return peers_done(run.everybody) and InterlockedCompareExchange(&run.load.remaining, 0, 0) == 0


cdef void disturb(Run *run) noexcept nogil:
    cdef int i
    if run.calls > 0 and sim_one_in(4):
        call_somebody(run)
    if sim_one_in(run.aborts):
        abort_somebody(run)
    if not run.closing and is_time_to_close(run):
        run.closing = True
        peers_warn(run.everybody, run.closes_at != 0 and run.turns >= run.closes_at)
    if run.closing:
        i = <int> sim_below(run.count)
        if not run.asked[i]:
            ask_to_close(run, i)


# ---- turns ----

cdef Worker *next_worker(Run *run) noexcept nogil:
    """One of those that do not sleep, or NULL."""
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


cdef void turn(Run *run) noexcept nogil:
    cdef Worker *worker
    run.turns += 1
    if run.turns > MOST_TURNS or sim_now() > LONGEST_RUN:
        sim_violation("it does not come to an end")
    disturb(run)
    worker = next_worker(run)
    if worker == NULL:
        if not sim_idle() and not run.closing and run.calls == 0:
            peers_are_stuck(run.everybody)
        return
    worker_turn(worker)
    check(run, worker)
    remember(run, worker)


# ---- the end ----

cdef void check_worker(Worker *worker) noexcept nogil:
    cdef Stats *stats = &worker.stats
    if stats.active != 0 or stats.in_flight != 0 or stats.buffers_used != 0 or stats.bytes_queued != 0:
        sim_violation("worker %d: at the end %d sessions, %d operations, %d buffers, %d queued bytes remain",
                      worker.index, <int> stats.active, <int> stats.in_flight, <int> stats.buffers_used,
                      <int> stats.bytes_queued)
    if worker.load != 0:
        sim_violation("worker %d: at the end its load is %d", worker.index, worker.load)
    if stats.dequeue_failures != 0:
        sim_violation("worker %d: a dequeue failed", worker.index)
    if not worker_free(worker):
        sim_violation("worker %d: memory is left to the kernel", worker.index)


cdef void check_load(Run *run) noexcept nogil:
    cdef int i
    if run.load.remaining != run.calls:
        sim_violation("the load waits for ever for %d connections", run.load.remaining - run.calls)
    for i in range(WORKERS):
        if run.rows[i].mismatches != 0:
            sim_violation("the load received wrong bytes")


cdef void end(Run *run) noexcept nogil:
    cdef int i, _turn
    for i in range(run.count):
        check_worker(&run.workers[i])
    check_load(run)
    for _turn in range(MOST_TURNS):
        if not sim_idle():
            break
    peers_check(run.everybody)
    if sim_open_descriptors() != 0:
        sim_violation("%u descriptors are left open", sim_open_descriptors())
    peers_end(run.everybody)
    free(run.listener)
    free(run.workers)


cdef void body(void *context) noexcept nogil:
    cdef Run *run = <Run *> context
    begin(run)
    while not all_over(run):
        turn(run)
    end(run)


cdef void close_ports(Run *run) noexcept nogil:
    """After a violation: their sockets must not be known in the next world."""
    cdef int i
    for i in range(run.count if run.workers != NULL else 0):
        if run.workers[i].port != NULL:
            CloseHandle(run.workers[i].port)


cdef bint simulate(uint64_t seed, bint telling) noexcept nogil:
    """Whether all went well. sim_end() is still to be called."""
    cdef Run run
    memset(&run, 0, sizeof(Run))
    sim_begin(seed, sizeof(Operation), telling)
    if not sim_run(body, &run):
        return True
    if not sim_crashed():
        close_ports(&run)
    return False


def run(seed, story=False):
    """Run one seed's schedule: None, or the violation in words; with story=True (that, what happened line by line)."""
    cdef uint64_t number = seed
    cdef bint telling = story
    with nogil:
        simulate(number, telling)
    violation = None if sim_violated() == NULL else sim_violated().decode()
    told = sim_story().decode()
    sim_end()
    return (violation, told) if story else violation


def run_many(first, count):
    """Run that many seeds: (None, None), or (the first seed that fails, its violation)."""
    cdef uint64_t seed = first, end = first + count
    cdef bint well = True
    with nogil:
        while seed < end:
            well = simulate(seed, False)
            if not well:
                break
            sim_end()
            seed += 1
    if well:
        return None, None
    violation = sim_violated().decode()
    sim_end()
    return seed, violation
