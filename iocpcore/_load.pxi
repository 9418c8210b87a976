# The native load client.

# Every load sends this pattern. It is random, so that lost, doubled or swapped bytes show, and in memory twice, so that
# a whole period can be read from any offset.
cdef bytes PATTERN = random.Random(65521).randbytes(PATTERN_PERIOD) * 2


cdef uint64_t latency_within(LoadRow *row, double share) noexcept:
    """The latency, in nanoseconds, that this share of the echoes did not exceed."""
    cdef uint64_t seen = 0
    cdef unsigned int bucket
    for bucket in range(<unsigned int> LATENCY_BUCKETS):
        seen += row.latency[bucket]
        if seen > 0 and seen >= share * row.echoes:
            return latency_of(bucket)
    return 0


@cython.final
cdef class Load(Handler):
    """Load(connections=50, messages=1000, size=64, pipeline=1)\n--\n
    A native load client: connections that send messages and check every byte that an echo server returns.

    - connections: how many.
    - messages: how many each connection sends.
    - size: bytes of a message, or (least, most) for random sizes.
    - pipeline: how many messages a connection sends before the first has come back.
    """
    cdef NativeLoad load
    cdef int workers
    cdef unsigned int connections
    cdef uint64_t started_at
    cdef Proactor proactor

    def __cinit__(self):
        self.load.done = held_lock()

    def __init__(self, connections=50, messages=1000, size=64, pipeline=1):
        if self.native.load != NULL:
            raise RuntimeError("Load.__init__() was called twice")
        if isinstance(size, tuple) and len(size) != 2:
            raise ValueError(f"size must be a number or (least, most), not {size}")
        least, most = size if isinstance(size, tuple) else (size, size)
        self.connections = <unsigned int> whole("connections", connections, 1, 1000000)
        self.load.messages = whole("messages", messages, 1, 1 << 48)
        self.load.size_min = <unsigned int> whole("size", least, 1, 1 << 30)
        self.load.size_max = <unsigned int> whole("size", most, self.load.size_min, 1 << 30)
        self.load.pipeline = <unsigned int> whole("pipeline", pipeline, 1, 1 << 16)
        self.load.pattern = PATTERN
        self.load.remaining = self.connections
        load_init(&self.native, &self.load)
        self.name = "Load"

    def __dealloc__(self):
        free(self.load.rows)
        if self.load.done != NULL:
            PyThread_free_lock(self.load.done)

    def start(self, Proactor proactor not None, host, port):
        """start(proactor, host, port)

        Open all connections to the server at once, spread over the proactor's workers.

        Raises RuntimeError if the load was started before or the proactor is closed, OSError if the host cannot be
        resolved.
        """
        cdef int worker
        self.check_not_started()
        proactor.pool.check(RUNNING)
        family, address = _resolve(host, port, 1, 0)
        proactor.pool.check(RUNNING)    # again: resolving took time, in which another thread may have started the load
        self.check_not_started()
        self.workers = proactor.pool.count
        self.load.rows = <LoadRow *> calloc(self.workers, sizeof(LoadRow))
        if self.load.rows == NULL:
            raise MemoryError()
        for worker in range(self.workers):
            InitializeSRWLock(&self.load.rows[worker].lock)
        self.started_at = iocp_now(proactor.pool.native[0].port)
        self.proactor = proactor
        proactor.pool.keep(self)
        cdef unsigned int i, _missing, begun = 0
        try:
            for i in range(self.connections):
                connect_native(proactor.pool, &self.native, i % self.workers, family, address)
                begun += 1
        finally:
            for _missing in range(begun, self.connections):    # these will never be made
                load_over(&self.load)

    cdef int check_not_started(self) except -1:
        if self.native.load == NULL:
            raise RuntimeError("Load.__init__() was not called")
        if self.proactor is not None:
            raise RuntimeError("a load can be started only once")
        return 0

    def wait(self, timeout=None):
        """wait(timeout=None)

        Wait until every connection has ended, for at most `timeout` seconds; None: for ever. Returns whether all have.
        It also returns False if the proactor was closed and had to leak operations that never end: their connections
        will never end either. Raises RuntimeError if the load was not started.
        """
        if self.proactor is None:
            raise RuntimeError("the load was not started")
        cdef double deadline = INFINITY if timeout is None else after("timeout", timeout)
        while not wait_for(self.load.done, min(deadline, time.monotonic() + 1)):
            if self.proactor.pool.life == LEAKED or time.monotonic() >= deadline:
                return False
        return True

    @property
    def echoes(self):
        """Messages that have come back whole so far."""
        cdef LoadRow total
        self.sum_rows(&total)
        return total.echoes

    def result(self):
        """result()

        The results so far, a dict:

        - connections, echoes, bytes (received), seconds (until the last echo), echoes_per_second.
        - mismatches: connections that returned a wrong byte.
        - errors: connections that ended before all their messages came back; error: the text of the first one's error,
          or None.
        - latency_us: p50, p99 and p999 in microseconds, from a histogram with an error of 1.6 %.
        """
        cdef LoadRow total
        self.sum_rows(&total)
        seconds = max(0, <int64_t> (total.last_at - self.started_at)) / 1e9
        return {
            "connections": self.connections,
            "echoes": total.echoes,
            "bytes": total.bytes,
            "seconds": seconds,
            "echoes_per_second": total.echoes / seconds if seconds else 0.0,
            "mismatches": total.mismatches,
            "errors": total.errors,
            "error": str(system_error(total.first_error)) if total.first_error else None,
            "latency_us": {name: latency_within(&total, share) / 1000
                           for name, share in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999))},
        }

    cdef bint over(self):
        """Will no worker use it again?"""
        if not PyThread_acquire_lock(self.load.done, NOWAIT_LOCK):
            return False
        PyThread_release_lock(self.load.done)
        return True

    cdef void sum_rows(self, LoadRow *total):
        """Add up what all workers have counted so far."""
        cdef LoadRow *row
        cdef int i
        cdef unsigned int bucket
        memset(total, 0, sizeof(LoadRow))
        for i in range(self.workers):
            row = &self.load.rows[i]
            AcquireSRWLockExclusive(&row.lock)
            total.echoes += row.echoes
            total.bytes += row.bytes
            total.mismatches += row.mismatches
            total.errors += row.errors
            total.last_at = max(total.last_at, row.last_at)
            if total.first_error == 0:
                total.first_error = row.first_error
            for bucket in range(<unsigned int> LATENCY_BUCKETS):
                total.latency[bucket] += row.latency[bucket]
            ReleaseSRWLockExclusive(&row.lock)
