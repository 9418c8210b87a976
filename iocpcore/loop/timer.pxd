# Deadlines of items: a heap per worker, looked at between batches.
#
# Lazy: activity moves no timer. An item stamps itself, and when its old deadline comes it is asked again. An item has
# one entry at most, and knows its place: an earlier deadline moves the entry, and the item's end takes it out. There is
# room for all sessions, which are the items of today, before they are made: so setting a timer cannot fail.
# Ownership: an entry refers to an item that is not released; timer_drop() comes before that. The entries have pages of
# the system: in the C library's heap each doubling would leave a hole.
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
    """To pages with room for so many, which there must not be more of; False without memory: all is as it was."""
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
    """In all slabs, the empty ones too."""
    return <size_t> (worker.stats.active + worker.stats.sessions_spare)


cdef inline bint timers_reserve(Worker *worker, size_t more) noexcept nogil:
    """Room for as many timers as there can be sessions, and so many more; False without memory.

    None may be missing later: nobody else would look at a session that waits for its peer, or for a slow system.
    """
    cdef TimerHeap *heap = &worker.timers
    cdef size_t sessions = session_capacity(worker) + more
    return heap.room >= sessions or timer_heap_resize(heap, max(2 * heap.room, sessions, LEAST_TIMERS))


cdef inline void timers_trim(Worker *worker) noexcept nogil:
    """Give room back to the system if most of it is for sessions that there cannot be any more."""
    cdef TimerHeap *heap = &worker.timers
    cdef size_t room = max(session_capacity(worker), LEAST_TIMERS)
    if room <= heap.room // 2:
        timer_heap_resize(heap, room)


cdef inline void put_timer(TimerHeap *heap, size_t i, Timer timer) noexcept nogil:
    heap.timers[i] = timer
    timer.item.timer_index = <unsigned int> i


cdef inline void sift_up(TimerHeap *heap, size_t i, Timer timer) noexcept nogil:
    """Put it into the free place i, or above, behind those that are earlier."""
    cdef size_t parent
    while i > 0:
        parent = (i - 1) // 2
        if heap.timers[parent].at <= timer.at:
            break
        put_timer(heap, i, heap.timers[parent])
        i = parent
    put_timer(heap, i, timer)


cdef inline void sift_down(TimerHeap *heap, size_t i, Timer timer) noexcept nogil:
    """Put it into the free place i, or below, before those that are later."""
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
    """Wake the item at that time, unless an earlier deadline stands: then it will be asked anyway."""
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
    """It waits for no deadline any more."""
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
    """Of two deadlines, where 0 is none."""
    if a == 0 or b == 0:
        return a + b
    return min(a, b)


cdef inline void run_timers(Worker *worker) noexcept nogil:
    """Those that were over at the dequeue: what its batch has kept the worker busy with is not the peer's time.

    Nobody waits for a round without packets: under a flood there is none.
    """
    cdef Item *item
    while worker.timers.count > 0 and timer_first(worker) <= worker.seen_at:
        item = worker.timers.timers[0].item
        timer_drop(worker, item)
        item.ops.deadline(worker, item)
