# cython: language_level=3, boundscheck=False, wraparound=False
"""Loops in C around one step of the core each: a loop in Python would measure the loop. All return nanoseconds.

Threads: the caller's. Ownership: what a function makes it frees.
"""
from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free

from inbox cimport inbox_item, inbox_item_free, inbox_put, inbox_take
from iocp cimport iocp_backend_find
from operation cimport DO_CALL, InboxItem, Worker
from port cimport port_dequeue
from worker cimport worker_free, worker_init

cdef extern from "Python.h":
    object PyObject_CallOneArg(object function, object argument)

cdef extern from "time.h" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    enum:
        CLOCK_MONOTONIC
    int clock_gettime(int clock, timespec *now)


cdef inline uint64_t now() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <uint64_t> t.tv_sec * 1000000000 + t.tv_nsec


cdef uint64_t touch_python() noexcept nogil:
    with gil:
        return 0


def attach(int count):
    """A thread that has a thread state takes the GIL and lets go, as a worker does for each batch."""
    cdef uint64_t began
    cdef int i
    with nogil:
        began = now()
        for i in range(count):
            touch_python()
        began = now() - began
    return began


def call(function, argument, int count):
    """Calls of a function from C: post, send, or a callback."""
    cdef uint64_t began = now()
    cdef int i
    for i in range(count):
        PyObject_CallOneArg(function, argument)
    return now() - began


def inbox(int count, int batch):
    """Put in from outside and taken out by the worker, which is woken once for each batch of items."""
    cdef Worker *worker = <Worker *> calloc(1, sizeof(Worker))
    cdef InboxItem *item
    cdef InboxItem *after
    cdef uint64_t close_by, began, spent = 0
    cdef int i, _batch
    if worker == NULL or worker_init(worker, 0, worker, 1, iocp_backend_find(b"epoll"), 0) != 0:
        free(worker)
        raise MemoryError()
    for _batch in range(count // batch):
        began = now()
        for i in range(batch):
            inbox_put(worker, inbox_item(DO_CALL))
        item = inbox_take(worker, &close_by)
        while item != NULL:
            after = item.next
            inbox_item_free(item)
            item = after
        spent += now() - began
        port_dequeue(worker, 0)
    worker_free(worker)
    free(worker)
    return spent
