# Turns: an item that always has more to do must not starve the others.
#
# A turn is so many steps of one item. A round is what a worker does between two dequeues; once it has moved its bytes,
# the ready list keeps the rest for the next. docs/design.md says why.
# Ownership: being in a list holds the item.
# Threads: the worker's own.
from libc.stdint cimport uint64_t
from call cimport much_to_tell, run_calls
from item cimport item_drop, item_hold
from structs cimport Item, ItemList, Worker
from tuning cimport CONTENDED_ROUND, CONTENDED_TURN, ROUND, TURN


cdef inline uint64_t moved(Worker *worker) noexcept nogil:
    """Bytes, ever, in and out."""
    return worker.stats.bytes_received + worker.stats.bytes_sent


cdef inline bint round_is_over(Worker *worker) noexcept nogil:
    """Has this round moved what it may?"""
    return moved(worker) >= worker.round_until


cdef inline int whole_turn(Worker *worker) noexcept nogil:
    return CONTENDED_TURN if worker.contended else TURN


cdef inline void begin_round(Worker *worker) noexcept nogil:
    worker.contended = worker.now < worker.contended_until
    worker.round_until = moved(worker) + (CONTENDED_ROUND if worker.contended else ROUND)
    worker.waited = worker.ready.tail if worker.ready.head != NULL else NULL


cdef inline void append(ItemList *items, Item *item) noexcept nogil:
    """Being in a list holds it."""
    if item.ready:
        return
    item_hold(item)
    item.ready = 1
    item.next = NULL
    if items.head == NULL:
        items.head = item
    else:
        items.tail.next = item
    items.tail = item


cdef inline Item *take_first(ItemList *items) noexcept nogil:
    cdef Item *item = items.head
    items.head = item.next
    item.ready = 0
    item_drop(item)
    return item


cdef inline void defer(Worker *worker, Item *item) noexcept nogil:
    """Something new is due to it: in this round, before those that have had their turn."""
    append(&worker.due, item)


cdef inline void wait_for_turn(Worker *worker, Item *item) noexcept nogil:
    """It has had its turn, or is large: it goes on when those before it have had theirs."""
    append(&worker.ready, item)


cdef inline void run_due(Worker *worker) noexcept nogil:
    cdef Item *item
    while worker.due.head != NULL:
        item = take_first(&worker.due)
        item.ops.start_due(worker, item)


cdef inline void run_ready(Worker *worker) noexcept nogil:
    """Those that waited when the round began, each once, until the round has moved what it may; one at least."""
    cdef Item *item = NULL
    while item != worker.waited:
        item = take_first(&worker.ready)
        item.ops.turn(worker, item, whole_turn(worker), False)
        if much_to_tell(worker):
            run_calls(worker)
        if worker.abandoned or round_is_over(worker):
            return
