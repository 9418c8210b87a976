# Items: what a worker gives turns, deadlines and callbacks.
#
# Ownership: a list holds its items, and an operation in flight holds its item. An item that is held is not released.
# Threads: the worker's own.
from structs cimport Item


cdef inline void item_hold(Item *item) noexcept nogil:
    item.in_flight += 1


cdef inline void item_drop(Item *item) noexcept nogil:
    item.in_flight -= 1
