# Turns: an item that always has more to do must not starve the others.
#
# A turn is a bounded number of steps of one item. A round is what a worker does between two dequeues. It has a budget
# of bytes; when that is spent, the items left in the ready list wait for the next round. docs/design.md says why.
# Ownership: a list holds its items.
# Threads: the worker's own.
from libc.stdint cimport uint64_t
from call cimport much_to_tell, run_calls
from fifo cimport fifo_put_item
from item cimport item_drop, item_hold
from structs cimport Item, ItemList, Worker
from tuning cimport CONTENDED_ROUND, CONTENDED_TURN, ROUND, TURN


cdef inline uint64_t moved(Worker *worker) noexcept nogil:
    """Bytes received and sent since the worker began."""
    return worker.stats.bytes_received + worker.stats.bytes_sent


cdef inline bint round_is_over(Worker *worker) noexcept nogil:
    """Has this round spent its budget of bytes?"""
    return moved(worker) >= worker.round_until


cdef inline int whole_turn(Worker *worker) noexcept nogil:
    return CONTENDED_TURN if worker.contended else TURN


cdef inline void begin_round(Worker *worker) noexcept nogil:
    worker.contended = worker.now < worker.contended_until
    worker.round_until = moved(worker) + (CONTENDED_ROUND if worker.contended else ROUND)
    worker.waited = worker.ready.tail if worker.ready.head != NULL else NULL


cdef inline void append(ItemList *items, Item *item) noexcept nogil:
    """Append an item that is in neither list yet. The list holds it."""
    if item.ready:
        return
    item_hold(item)
    item.ready = 1
    fifo_put_item(items, item)


cdef inline Item *take_first(ItemList *items) noexcept nogil:
    cdef Item *item = items.head
    items.head = item.next
    item.ready = 0
    item_drop(item)
    return item


cdef inline void defer(Worker *worker, Item *item) noexcept nogil:
    """The item has something new to do: in this round, before the ready list."""
    append(&worker.due, item)


cdef inline void wait_for_turn(Worker *worker, Item *item) noexcept nogil:
    """An item that has had its turn, or would move much, goes to the back of the ready list."""
    append(&worker.ready, item)


cdef inline void run_due(Worker *worker) noexcept nogil:
    cdef Item *item
    while worker.due.head != NULL:
        item = take_first(&worker.due)
        item.ops.start_due(worker, item)


cdef inline void run_ready(Worker *worker) noexcept nogil:
    """One turn for each item that was ready when the round began, until the budget is spent; at least one turn."""
    cdef Item *item = NULL
    while item != worker.waited:
        item = take_first(&worker.ready)
        item.ops.turn(worker, item, whole_turn(worker), False)
        if much_to_tell(worker):
            run_calls(worker)
        if worker.abandoned or round_is_over(worker):
            return
