# Warnings for an operator: logged once, then at most once a minute, with a count.
#
# A step that meets a trouble counts it and sets when it may be logged; it neither logs nor takes the GIL. The worker
# logs it when it attaches for callbacks, or attaches for this alone (_warnings.pxi). The first worker has the counts of
# the whole proactor, so that a trouble of all workers is logged once, not once per worker.
# Threads: report_trouble() is the worker's own. The counts are atomic; told_at is written under the GIL alone.
from libc.stdint cimport uint64_t
from iocp cimport InterlockedExchange, InterlockedExchangeAdd64, iocp_read64
from structs cimport Trouble, Warning, Worker


cdef inline Warning *warning_of(Worker *worker, int trouble) noexcept nogil:
    return &worker.peers[0].warnings[trouble]


cdef inline uint64_t warning_due(Worker *worker, Warning *warning, uint64_t now) noexcept nogil:
    """When it may be logged: now if it never was, or a period after the last time."""
    cdef uint64_t told_at = <uint64_t> iocp_read64(&warning.told_at)
    return now if told_at == 0 else max(now, told_at + worker.warn_period)


cdef inline void warn_by(Worker *worker, uint64_t at) noexcept nogil:
    """Look at the warnings at that time, unless an earlier one is set."""
    if worker.warn_at == 0 or at < worker.warn_at:
        worker.warn_at = at


cdef inline void report_trouble(Worker *worker, Trouble trouble, int error) noexcept nogil:
    """Count a trouble, with the system's error number or 0."""
    cdef Warning *warning = warning_of(worker, trouble)
    InterlockedExchange(&warning.error, error)
    InterlockedExchange(&warning.worker, worker.index)
    InterlockedExchangeAdd64(&warning.count, 1)
    warn_by(worker, warning_due(worker, warning, worker.now))


cdef inline bint warnings_are_due(Worker *worker) noexcept nogil:
    return worker.warn_at != 0 and worker.warn_at <= worker.now
