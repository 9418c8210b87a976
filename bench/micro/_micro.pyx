# cython: language_level=3, boundscheck=False, wraparound=False
"""Loops in C around one step of the core each: a loop in Python would measure the loop. All return nanoseconds.

Threads: the caller's. Ownership: what a function makes it frees.
"""
from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free

from inbox cimport inbox_put, message_new, run_inbox
from iocp cimport CloseHandle, InitializeSRWLock, iocp_backend_find, iocp_open_port
from port cimport port_dequeue
from structs cimport Message, Worker

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
    cdef int _i
    with nogil:
        began = now()
        for _i in range(count):
            touch_python()
        began = now() - began
    return began


def call(function, argument, int count):
    """Calls of a function from C: post, send, or a callback."""
    cdef uint64_t began = now()
    cdef int _i
    for _i in range(count):
        PyObject_CallOneArg(function, argument)
    return now() - began


cdef bint do_nothing(Worker *worker, Message *message) noexcept nogil:
    return True


def inbox(int count, int batch):
    """Put in from outside and done by the worker, which is woken once for each batch of messages."""
    cdef Worker *worker = <Worker *> calloc(1, sizeof(Worker))
    cdef uint64_t began, spent = 0
    cdef int _i, _batch
    if worker != NULL:
        InitializeSRWLock(&worker.inbox.lock)
        worker.port = iocp_open_port(iocp_backend_find(b"epoll"))
    if worker == NULL or worker.port == NULL:
        free(worker)
        raise MemoryError()
    for _batch in range(count // batch):
        began = now()
        for _i in range(batch):
            inbox_put(worker, message_new(do_nothing))
        run_inbox(worker)
        spent += now() - began
        port_dequeue(worker, 0)
    CloseHandle(worker.port)
    free(worker)
    return spent
