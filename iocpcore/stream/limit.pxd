# Places: how many sessions a listener and its proactor may have, and the connections that wait for one.
#
# A connection that finds no place waits, accepted, in one queue for all listeners of its proactor. A session that ends
# gives its place to the connection that has waited longest among those whose listener has a place. So a newcomer never
# finds a free place that an older connection could have taken.
# Ownership: a waiting connection's struct owns its socket. It is in the queue, then in the list `granted` of the worker
# that owns its listener; the listener counts it until that worker has served it.
# Threads: any. The lock is a leaf: a worker is woken only after the lock was released.
from libc.stdlib cimport free, malloc
from iocp cimport (
    SOCKET, AcquireSRWLockExclusive, InitializeSRWLock, InterlockedDecrement, InterlockedExchange,
    InterlockedIncrement, ReleaseSRWLockExclusive, iocp_read32)
from fifo cimport fifo_put_waiting
from inbox cimport inbox_wake
from structs cimport Limit, Listener, Places, Waiting, Worker
from tuning cimport ACCEPT_RETRY_TIME


cdef inline void places_init(Places *places) noexcept nogil:
    """Initialize zeroed memory."""
    InitializeSRWLock(&places.lock)


cdef inline Places *places_of(Worker *worker) noexcept nogil:
    return &worker.peers[0].places


cdef inline bint is_limited(const Places *places, const Listener *listener) noexcept nogil:
    """Is there a limit? Without one no connection waits, and the counts need no lock."""
    return places.limit.most != 0 or listener.limit.most != 0


cdef inline bint has_place(const Limit *limit) noexcept nogil:
    return limit.most == 0 or limit.sessions < limit.most


cdef inline void count_place(Places *places, Listener *listener) noexcept nogil:
    InterlockedIncrement(&places.limit.sessions)
    InterlockedIncrement(&listener.limit.sessions)


cdef inline bint take_place(Worker *worker, Listener *listener) noexcept nogil:
    """Take a place for a session; False if the listener or the proactor may not have another."""
    cdef Places *places = places_of(worker)
    cdef bint taken
    if not is_limited(places, listener):
        count_place(places, listener)
        return True
    AcquireSRWLockExclusive(&places.lock)
    taken = has_place(&places.limit) and has_place(&listener.limit)
    if taken:
        count_place(places, listener)
    ReleaseSRWLockExclusive(&places.lock)
    return taken


cdef inline Waiting *unlink_first(Places *places) noexcept nogil:
    """Dequeue the connection that has waited longest among those whose listener has a place; NULL: there is none."""
    cdef Waiting *chosen = places.line.head
    cdef Waiting *before = NULL
    while chosen != NULL and not has_place(&chosen.listener.limit):
        before = chosen
        chosen = chosen.next
    if chosen != NULL:
        unlink_waiting(places, before, chosen)
    return chosen


cdef inline void unlink_waiting(Places *places, Waiting *before, Waiting *waiting) noexcept nogil:
    if before == NULL:
        places.line.head = waiting.next
    else:
        before.next = waiting.next
    if places.line.tail == waiting:
        places.line.tail = before


cdef inline Worker *grant_place(Places *places) noexcept nogil:
    """Under the lock: give a free place to the next connection. Returns the worker to wake; NULL if none was given."""
    cdef Waiting *first
    if not has_place(&places.limit):
        return NULL
    first = unlink_first(places)
    if first == NULL:
        return NULL
    count_place(places, first.listener)
    fifo_put_waiting(&first.listener.worker.granted, first)
    InterlockedExchange(&first.listener.worker.is_granted, 1)
    return first.listener.worker


cdef inline bint places_were_granted(Worker *worker) noexcept nogil:
    """Have connections that wait at its listeners got places?"""
    return iocp_read32(&worker.is_granted) != 0


cdef inline void wake_granted(Worker *worker, Worker *owner) noexcept nogil:
    """Wake `owner`, which serves the connection that got the place. If that fails, this worker tries again later."""
    if owner != NULL and not inbox_wake(owner):
        worker.retry_at = worker.now + ACCEPT_RETRY_TIME


cdef inline void wake_all_granted(Worker *worker) noexcept nogil:
    cdef int i
    for i in range(worker.peer_count):
        if places_were_granted(&worker.peers[i]):
            wake_granted(worker, &worker.peers[i])


cdef inline void leave_place(Worker *worker, Listener *listener) noexcept nogil:
    """Free a place. At most one waiting connection can have it: none could have had a place before."""
    cdef Places *places = places_of(worker)
    cdef Worker *owner = NULL
    if not is_limited(places, listener):
        InterlockedDecrement(&places.limit.sessions)
        InterlockedDecrement(&listener.limit.sessions)
        return
    AcquireSRWLockExclusive(&places.lock)
    InterlockedDecrement(&places.limit.sessions)
    InterlockedDecrement(&listener.limit.sessions)
    owner = grant_place(places)
    ReleaseSRWLockExclusive(&places.lock)
    wake_granted(worker, owner)


cdef inline bint wait_for_place(Worker *worker, Listener *listener, SOCKET socket) noexcept nogil:
    """Queue the connection; False without memory: then the socket is still the caller's.

    A place may have become free since take_place() found none: then it is granted here.
    """
    cdef Places *places = places_of(worker)
    cdef Waiting *waiting = <Waiting *> malloc(sizeof(Waiting))
    cdef Worker *owner
    if waiting == NULL:
        return False
    waiting.listener = listener
    waiting.socket = socket
    listener.waiting += 1
    worker.stats.parked += 1
    AcquireSRWLockExclusive(&places.lock)
    fifo_put_waiting(&places.line, waiting)
    owner = grant_place(places)
    ReleaseSRWLockExclusive(&places.lock)
    wake_granted(worker, owner)
    return True


cdef inline Waiting *take_granted(Worker *worker) noexcept nogil:
    """Take the connections of its listeners that have got places, in order: a chain that is now the caller's."""
    cdef Places *places = places_of(worker)
    cdef Waiting *granted
    AcquireSRWLockExclusive(&places.lock)
    granted = worker.granted.head
    worker.granted.head = NULL
    InterlockedExchange(&worker.is_granted, 0)
    ReleaseSRWLockExclusive(&places.lock)
    return granted


cdef inline SOCKET served(Waiting *waiting) noexcept nogil:
    """The connection waits no more: free its struct. The socket is now the caller's."""
    cdef SOCKET socket = waiting.socket
    waiting.listener.waiting -= 1
    free(waiting)
    return socket


cdef inline Waiting *take_waiting(Worker *worker, Listener *listener) noexcept nogil:
    """Dequeue the listener's connections that have no place yet: a chain that is now the caller's."""
    cdef Places *places = places_of(worker)
    cdef Waiting *waiting
    cdef Waiting *before = NULL
    cdef Waiting *after
    cdef Waiting *taken = NULL
    AcquireSRWLockExclusive(&places.lock)
    waiting = places.line.head
    while waiting != NULL:
        after = waiting.next
        if waiting.listener == listener:
            unlink_waiting(places, before, waiting)
            waiting.next = taken
            taken = waiting
        else:
            before = waiting
        waiting = after
    ReleaseSRWLockExclusive(&places.lock)
    return taken
