# A worker: its loop, its beginning and its end. This file puts the layers together.
#
# Ownership: a worker's memory belongs to its WorkerPool (_workers.pxi), and outlives its thread.
# Threads: one thread per worker, without the GIL except for callbacks and warnings.
from libc.stdint cimport uint64_t
from cpython.pythread cimport PyThread_release_lock
from iocp cimport (
    DWORD, INFINITE, IOCP_BUFFERS_ENOUGH, IOCP_CANCEL_SPARES, OVERLAPPED_ENTRY, AcquireSRWLockExclusive, CloseHandle,
    GetLastError, InitializeSRWLock, ReleaseSRWLockExclusive, iocp_now, iocp_open_port, iocp_status, iocp_submit,
    iocp_trim, iocp_wait_undisturbed, unlikely)
from buffer cimport buffers_free, buffers_init, buffers_trim
from call cimport calls_are_due, much_to_tell, run_calls
from closing cimport close_worker, go_on_closing, on_broken_port, worker_over
from inbox cimport inbox_shut, run_inbox
from listener cimport retry_accepts, serve_granted
from limit cimport places_init, places_were_granted
from port cimport KEY_INBOX, operation_completed, port_dequeue, port_is_broken
from session cimport session_table_free, sessions_trim
from steps cimport session_ops_init
from structs cimport Operation, Worker
from timer cimport earlier, run_timers, timer_first, timer_heap_free, timers_trim
from tuning cimport WARN_PERIOD
from turn cimport begin_round, run_due, run_ready


cdef inline void complete(Worker *worker, OVERLAPPED_ENTRY *entry) noexcept nogil:
    cdef Operation *operation = <Operation *> entry.lpOverlapped
    cdef int status
    if entry.lpCompletionKey == KEY_INBOX:
        worker.stats.wakeups += 1
        run_inbox(worker)
        return
    entry.Internal = operation.overlapped.Internal  # the packet of an event carries no status
    status = iocp_status(entry)
    operation_completed(worker, status)
    operation.completed(worker, operation, status, entry.dwNumberOfBytesTransferred)


cdef inline void complete_batch(Worker *worker, unsigned int count) noexcept nogil:
    cdef unsigned int i
    for i in range(count):
        complete(worker, &worker.entries[i])
        if much_to_tell(worker):
            run_calls(worker)
            if worker.abandoned:
                return


cdef inline DWORD milliseconds_left(Worker *worker) noexcept nogil:
    """How long a dequeue may wait: 0 if work is due, else until the next deadline, rounded up; at most an hour."""
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
    """Give memory that has not been used for a while back to the system."""
    worker.trim_at = 0
    buffers_trim(worker)
    sessions_trim(worker)
    timers_trim(worker)
    iocp_trim(worker.port)


cdef inline void publish(Worker *worker) noexcept nogil:
    worker.stats.buffers_spare = worker.buffers.made - worker.stats.buffers_used
    AcquireSRWLockExclusive(&worker.published_lock)
    worker.published = worker.stats
    ReleaseSRWLockExclusive(&worker.published_lock)


cdef inline unsigned int worker_turn(Worker *worker, DWORD most) noexcept nogil:
    """Dequeue a batch, waiting at most `most` milliseconds, and handle it; the number of packets."""
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
        iocp_submit(worker.port)    # small sends go out before the bytes of the turns below
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
    """The thread's whole life, until the worker has closed."""
    iocp_wait_undisturbed(worker.port)
    while not worker_over(worker):
        worker_turn(worker, INFINITE)
    PyThread_release_lock(worker.ended)


cdef inline int worker_init(Worker *worker, int index, Worker *peers, int peer_count, int backend,
                            bint skip_on_success) noexcept nogil:
    """Initialize zeroed memory; 0 or the system's error number."""
    InitializeSRWLock(&worker.inbox.lock)
    InitializeSRWLock(&worker.published_lock)
    places_init(&worker.places)
    worker.index = index
    worker.peers = peers
    worker.peer_count = peer_count
    worker.skip_on_success = skip_on_success
    worker.close = close_worker
    session_ops_init(&worker.session_ops)
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
    """After its thread has ended, or before it began. False if something is in flight: that memory is leaked.

    Whoever still looks at the struct finds its inbox shut, its table empty, and its last row published.
    """
    cdef bint drained = worker.stats.in_flight == 0
    inbox_shut(worker, False)
    if not worker.closing:
        close_worker(worker, 0)     # it never ran: refuse its requests, and wake the threads that wait for them
    run_inbox(worker)       # messages that it did not take
    run_calls(worker)
    timer_heap_free(&worker.timers)
    buffers_free(worker)
    session_table_free(worker)
    if drained and worker.port != NULL:
        CloseHandle(worker.port)
    worker.port = NULL
    worker.thread = 0
    publish(worker)
    return drained
