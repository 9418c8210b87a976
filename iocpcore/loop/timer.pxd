# Deadlines of items: a heap per worker, run between batches.
#
# Timers are lazy: activity moves none. An item notes the time of its activity, and when its old deadline comes it is
# asked for the present one. An item has one entry at most, and knows its index: an earlier deadline moves the entry,
# and the item's end removes it. Setting a timer cannot fail, because room for its entry is reserved before a session
# (the only kind of item today) is made.
# Ownership: an entry refers to an item that is not yet released: timer_drop() comes before the release. The heap is in
# pages from the system: in the C library's heap each doubling would leave a hole.
# Threads: a heap belongs to its worker.
from libc.stdint cimport uint64_t
from libc.string cimport memcpy
from iocp cimport iocp_give_pages, iocp_take_pages
from structs cimport Item, Timer, TimerHeap, Worker
from tuning cimport LEAST_TIMERS


cdef inline void timer_heap_free(TimerHeap *heap) noexcept nogil:
    if heap.room > 0:
        iocp_give_pages(heap.timers, heap.room * sizeof(Timer))
    heap.room = 0


cdef inline bint timer_heap_resize(TimerHeap *heap, size_t room) noexcept nogil:
    """Move all entries to pages with room for `room` of them. False without memory: nothing is changed."""
    cdef Timer *timers = <Timer *> iocp_take_pages(room * sizeof(Timer))
    if timers == NULL:
        return False
    if heap.room > 0:
        memcpy(timers, heap.timers, heap.count * sizeof(Timer))
        timer_heap_free(heap)
    heap.timers = timers
    heap.room = room
    return True


cdef inline size_t session_capacity(Worker *worker) noexcept nogil:
    """How many sessions the slabs have places for, used or spare."""
    return <size_t> (worker.stats.active + worker.stats.sessions_spare)


cdef inline bint timers_reserve(Worker *worker, size_t more) noexcept nogil:
    """Make room for a timer of each session that the slabs have places for, and of `more`; False without memory.

    No session may lack one later: nothing else would look at a session whose peer, or whose system, does not answer.
    """
    cdef TimerHeap *heap = &worker.timers
    cdef size_t sessions = session_capacity(worker) + more
    return heap.room >= sessions or timer_heap_resize(heap, max(2 * heap.room, sessions, LEAST_TIMERS))


cdef inline void timers_trim(Worker *worker) noexcept nogil:
    """Give room back to the system if at least half of it is for sessions whose slabs have gone."""
    cdef TimerHeap *heap = &worker.timers
    cdef size_t room = max(session_capacity(worker), LEAST_TIMERS)
    if room <= heap.room // 2:
        timer_heap_resize(heap, room)


cdef inline void put_timer(TimerHeap *heap, size_t i, Timer timer) noexcept nogil:
    heap.timers[i] = timer
    timer.item.timer_index = <unsigned int> i


cdef inline void sift_up(TimerHeap *heap, size_t i, Timer timer) noexcept nogil:
    """Put it at the free index i, or above, below the entries that are earlier."""
    cdef size_t parent
    while i > 0:
        parent = (i - 1) // 2
        if heap.timers[parent].at <= timer.at:
            break
        put_timer(heap, i, heap.timers[parent])
        i = parent
    put_timer(heap, i, timer)


cdef inline void sift_down(TimerHeap *heap, size_t i, Timer timer) noexcept nogil:
    """Put it at the free index i, or below, above the entries that are later."""
    cdef size_t child
    while True:
        child = 2 * i + 1
        if child >= heap.count:
            break
        if child + 1 < heap.count and heap.timers[child + 1].at < heap.timers[child].at:
            child += 1
        if timer.at <= heap.timers[child].at:
            break
        put_timer(heap, i, heap.timers[child])
        i = child
    put_timer(heap, i, timer)


cdef inline void timer_set(Worker *worker, Item *item, uint64_t at) noexcept nogil:
    """Ask the item at that time, unless it has an earlier deadline: then it will be asked anyway."""
    cdef TimerHeap *heap = &worker.timers
    cdef size_t i = item.timer_index
    if item.timer_at != 0 and item.timer_at <= at:
        return
    if item.timer_at == 0:
        i = heap.count
        heap.count += 1
    item.timer_at = at
    sift_up(heap, i, Timer(at, item))


cdef inline void timer_drop(Worker *worker, Item *item) noexcept nogil:
    """Remove the item's entry, if it has one."""
    cdef TimerHeap *heap = &worker.timers
    cdef size_t i = item.timer_index
    cdef Timer last
    if item.timer_at == 0:
        return
    item.timer_at = 0
    heap.count -= 1
    last = heap.timers[heap.count]
    if i == heap.count:
        return
    if i > 0 and last.at < heap.timers[(i - 1) // 2].at:
        sift_up(heap, i, last)
    else:
        sift_down(heap, i, last)


cdef inline uint64_t timer_first(Worker *worker) noexcept nogil:
    """The next deadline, 0 if there is none."""
    return worker.timers.timers[0].at if worker.timers.count else 0


cdef inline uint64_t earlier(uint64_t a, uint64_t b) noexcept nogil:
    """The earlier of two deadlines; 0 is none."""
    if a == 0 or b == 0:
        return a + b
    return min(a, b)


cdef inline void run_timers(Worker *worker) noexcept nogil:
    """Run the deadlines that were over at the dequeue: the time that its batch took is not held against the peers.

    Each round does so, not only a round without packets: under a flood there is none.
    """
    cdef Item *item
    while worker.timers.count > 0 and timer_first(worker) <= worker.seen_at:
        item = worker.timers.timers[0].item
        timer_drop(worker, item)
        item.ops.deadline(worker, item)
