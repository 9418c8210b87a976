# Deadlines of sessions: a heap per worker, looked at between batches.
#
# Lazy: activity moves no timer. A session stamps itself, and when its old deadline comes it is asked again. An entry
# names its session by slot and generation, so an entry that outlives its session reaches nobody.
# Threads: a heap belongs to its worker.
from libc.stdint cimport uint64_t
from libc.stdlib cimport realloc
from operation cimport Session, Timer, TimerHeap, Worker


cdef inline bint timer_heap_grow(TimerHeap *heap) noexcept nogil:
    cdef size_t room = 2 * heap.room if heap.room else 64
    cdef Timer *grown = <Timer *> realloc(heap.timers, room * sizeof(Timer))
    if grown == NULL:
        return False
    heap.timers = grown
    heap.room = room
    return True


cdef inline void timer_set(Worker *worker, Session *session, uint64_t at) noexcept nogil:
    """Wake the session at that time, unless an earlier deadline stands: then it will be asked anyway.

    Without memory no timer is set: the session stays open longer, which is the lesser harm.
    """
    cdef TimerHeap *heap = &worker.timers
    cdef size_t i, parent
    if session.timer_at != 0 and session.timer_at <= at:
        return
    if heap.count == heap.room and not timer_heap_grow(heap):
        return
    session.timer_at = at
    i = heap.count
    heap.count += 1
    while i > 0:
        parent = (i - 1) // 2
        if heap.timers[parent].at <= at:
            break
        heap.timers[i] = heap.timers[parent]
        i = parent
    heap.timers[i] = Timer(at, session.slot, session.generation)


cdef inline uint64_t timer_first(Worker *worker) noexcept nogil:
    """The next deadline, 0 if there is none."""
    return worker.timers.timers[0].at if worker.timers.count else 0


cdef inline Timer timer_pop(TimerHeap *heap) noexcept nogil:
    """Take the first of a heap that is not empty."""
    cdef Timer first = heap.timers[0]
    cdef Timer last
    cdef size_t i = 0, child
    heap.count -= 1
    last = heap.timers[heap.count]
    while True:
        child = 2 * i + 1
        if child >= heap.count:
            break
        if child + 1 < heap.count and heap.timers[child + 1].at < heap.timers[child].at:
            child += 1
        if last.at <= heap.timers[child].at:
            break
        heap.timers[i] = heap.timers[child]
        i = child
    heap.timers[i] = last
    return first
