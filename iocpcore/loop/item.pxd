# Items: what a worker gives turns, deadlines and callbacks.
#
# Ownership: whoever has an item in a list, or in flight, holds it: one that is held is not released.
# Threads: the worker's own.
from structs cimport Item


cdef inline void item_hold(Item *item) noexcept nogil:
    item.in_flight += 1


cdef inline void item_drop(Item *item) noexcept nogil:
    item.in_flight -= 1
