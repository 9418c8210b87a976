# Deadlines of sessions: a heap per worker, looked at between batches.
#
# Lazy: activity moves no timer. A session stamps itself, and when its old deadline comes it is asked again. A session
# has one entry at most, and knows its place: an earlier deadline moves it, and the session's end takes it out.
# Ownership: an entry refers to a session that is not released; timer_drop() comes before that.
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


cdef inline void put_timer(TimerHeap *heap, size_t i, Timer timer) noexcept nogil:
    heap.timers[i] = timer
    timer.session.timer_index = <unsigned int> i


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


cdef inline void timer_set(Worker *worker, Session *session, uint64_t at) noexcept nogil:
    """Wake the session at that time, unless an earlier deadline stands: then it will be asked anyway.

    Without memory no timer is set: the session stays open longer, which is the lesser harm.
    """
    cdef TimerHeap *heap = &worker.timers
    cdef size_t i = session.timer_index
    if session.timer_at != 0 and session.timer_at <= at:
        return
    if session.timer_at == 0:
        if heap.count == heap.room and not timer_heap_grow(heap):
            return
        i = heap.count
        heap.count += 1
    session.timer_at = at
    sift_up(heap, i, Timer(at, session))


cdef inline void timer_drop(Worker *worker, Session *session) noexcept nogil:
    """It waits for no deadline any more."""
    cdef TimerHeap *heap = &worker.timers
    cdef size_t i = session.timer_index
    cdef Timer last
    if session.timer_at == 0:
        return
    session.timer_at = 0
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
