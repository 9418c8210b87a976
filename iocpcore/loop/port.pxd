# The worker's completion port: associate, post, dequeue; and the counting of every start and every end.
#
# Threads: the worker's own, except for port_wake().
from libc.string cimport memset
from iocp cimport (
    DWORD, HANDLE, OVERLAPPED, SOCKET, ULONG, ULONG_PTR, WAIT_TIMEOUT, WSA_IO_PENDING, CreateIoCompletionPort,
    GetLastError, GetQueuedCompletionStatusEx, PostQueuedCompletionStatus, iocp_associate_claimed, iocp_now, unlikely)
from status cimport status_cancelled
from structs cimport FAILED, INLINE, NOT_BROKEN, PENDING, Operation, Started, Worker
from tuning cimport BATCH, FAILURES_MOST

# Completion keys: what a packet is about.
cdef enum CompletionKey:
    KEY_OPERATION = 1   # lpOverlapped is an Operation
    KEY_INBOX           # look at the inbox; no payload


cdef inline int port_associate(Worker *worker, SOCKET socket) noexcept nogil:
    """0 or the system's error number."""
    if CreateIoCompletionPort(<HANDLE> <ULONG_PTR> socket, worker.port, KEY_OPERATION, 0) == NULL:
        return <int> GetLastError()
    return 0


cdef inline int port_associate_given(Worker *worker, SOCKET socket) noexcept nogil:
    """Associate a socket that the user's thread has claimed (iocp_claim()); 0 or the system's error number."""
    return iocp_associate_claimed(socket, worker.port, KEY_OPERATION)


cdef inline bint port_wake(Worker *worker) noexcept nogil:
    """Any thread: make the worker look at its inbox. False without memory for the packet."""
    return PostQueuedCompletionStatus(worker.port, 0, KEY_INBOX, NULL)


cdef inline unsigned int port_dequeue(Worker *worker, DWORD milliseconds) noexcept nogil:
    """Wait for packets; how many are in worker.entries. After a timeout wine's count is 1: only the result tells."""
    cdef ULONG count = 0
    cdef int got = GetQueuedCompletionStatusEx(worker.port, worker.entries, BATCH, &count, milliseconds, 0)
    cdef int error = 0 if got else <int> GetLastError()
    worker.stats.dequeues += 1
    worker.now = iocp_now(worker.port)
    if got:
        worker.failed = 0
        return count
    if error == <int> WAIT_TIMEOUT:
        worker.failed = 0
        return 0
    worker.stats.dequeue_failures += 1
    worker.failed += 1
    worker.broken_by = error
    return 0


cdef inline bint port_is_broken(Worker *worker) noexcept nogil:
    """Have so many dequeues failed in a row that it is broken for good, or has one more failed since it is?"""
    return worker.failed >= FAILURES_MOST or (worker.failed > 0 and worker.broken != NOT_BROKEN)


cdef inline void operation_bind(Operation *operation,
                                void (*completed)(Worker *, Operation *, int, DWORD) noexcept nogil,
                                void *owner) noexcept nogil:
    """Before a start: which function its packet calls, and for which owner. Holds until the next binding."""
    operation.completed = completed
    operation.owner = owner


cdef inline void operation_begin(Worker *worker, Operation *operation) noexcept nogil:
    """Before the start. All that its completion needs must be written before the start too: it may complete at once."""
    memset(&operation.overlapped, 0, sizeof(OVERLAPPED))
    worker.stats.submitted += 1
    worker.stats.in_flight += 1


cdef inline Started operation_started(Worker *worker, int error, bint skips) noexcept nogil:
    """After the start, with its error or 0: what became of it. If no packet will come, its end is counted here."""
    if error == WSA_IO_PENDING or (error == 0 and not skips):
        return PENDING
    worker.stats.in_flight -= 1
    if error == 0:
        worker.stats.inline_successes += 1
        return INLINE
    worker.stats.failed_starts += 1
    return FAILED


cdef inline void operation_completed(Worker *worker, int status) noexcept nogil:
    """Its packet was dequeued: the kernel has given it back. Its step comes next."""
    worker.stats.in_flight -= 1
    worker.stats.packets += 1
    if unlikely(status != 0):
        if status_cancelled(status):
            worker.stats.cancelled += 1
        else:
            worker.stats.failed += 1
