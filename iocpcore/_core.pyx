# cython: language_level=3, boundscheck=False, wraparound=False, auto_pickle=False
# An exception that a noexcept function cannot raise goes to sys.unraisablehook alone. If the next directive were True,
# Cython would print it through sys.excepthook first, and a SystemExit, even one that the hook raises, would end the
# interpreter from a worker's thread (PyErr_PrintEx()).
# cython: unraisable_tracebacks=False
"""The Python-visible types of the native core. Use them through the package `iocpcore`.

Ownership: a WorkerPool owns its workers' memory until nothing refers to the pool. A Listener, a Load and a handler own
their structs. The pool keeps listeners and loads as long as a worker may use them; listeners and sessions keep their
handler.
Threads: everything here runs under the GIL, but the drivers release it while a worker runs.
"""
import _socket as _csocket
import _thread
import atexit
import contextlib
import difflib
import inspect
import logging
import os
import random
import socket as _socket
import sys
import threading
import time
import warnings

from iocpcore._stats import ListenerStats, SessionStats, Stats, WorkerStats

cimport cython
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from cpython.bool cimport PyBool_Check
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_WriteUnraisable
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_Check
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_Check
from cpython.pythread cimport (
    NOWAIT_LOCK, WAIT_LOCK, PyThread_acquire_lock, PyThread_allocate_lock, PyThread_free_lock,
    PyThread_get_thread_ident, PyThread_release_lock, PyThread_type_lock)
from cpython.ref cimport Py_DECREF, Py_INCREF
from iocp cimport (
    AF_INET, AF_INET6, DWORD, ERROR_INVALID_PARAMETER, INVALID_SOCKET, IOCP_INHERITS_NO_DELAY, IOCP_LATE_PORT,
    IOCP_LATE_PORT_LEVEL, LONG, SOCKADDR_STORAGE, SOCKET, WSAECONNABORTED, WSAENOBUFS, AcquireSRWLockExclusive,
    InitializeSRWLock, InterlockedCompareExchange, InterlockedExchange, InterlockedExchange64,
    InterlockedExchangeAdd64, InterlockedIncrement, ReleaseSRWLockExclusive, iocp_backend_absent, iocp_backend_find,
    iocp_backend_missing, iocp_backend_name, iocp_claim, iocp_compiler, iocp_error_text, iocp_lingers, iocp_now,
    iocp_own_name, iocp_peer_name, iocp_process_id, iocp_read32, iocp_read64, iocp_startup, iocp_submit, iocp_unclaim,
    iocp_was_connected, sockaddr_in, sockaddr_in6)
from accept cimport listener_init
from buffer cimport buffer_copy, buffer_pin, chain_length
from call cimport do_call
from close cimport abort_session
from closing cimport worker_over
from door cimport input_consumed, input_discard, session_write, session_write_copy
from echo cimport echo_init
from discard cimport handler_init
from inbox cimport (
    inbox_ask_to_close, inbox_is_empty, inbox_is_shut, inbox_join, inbox_put, message_about, message_free, message_new)
from link cimport link_drop, link_finishes, link_give, link_hold, link_new, link_queued, link_received, link_sent
from listener cimport do_serve, do_listen, do_unlisten, listen as listen_here, unlisten as unlisten_here
from load cimport PATTERN_PERIOD, latency_of, load_init, load_over
from port cimport KEY_OPERATION
from python cimport python_init
from request cimport (
    do_connect, do_request, do_send, request_abort, request_close, request_end, request_pause, request_resume,
    session_do)
from session cimport session_resolve
from stats cimport Stats as StatsRow
from steps cimport send_early
from structs cimport (
    BY_ERROR, BY_EXCEPTION, CALL_CLOSE, CALL_CONNECT, CALL_DRAIN, CALL_END, CALL_RECEIVE, CALL_SHUTDOWN,
    LATENCY_BUCKETS, NOT_BROKEN, OPEN, OVERDUE, OVERDUE_TOLD, TROUBLES, TROUBLE_DEQUEUE, TROUBLE_INBOX,
    TROUBLE_UNHEARD, WORKERS_MOST, Buffer, Handler as NativeHandler, Item, Link, Listener as NativeListener,
    Load as NativeLoad, LoadRow, Message, Session as NativeSession, Settings, Warning, Worker)
from tuning cimport LEAVE_TIME, QUEUE_MOST, RECEIVE_MOST, RECEIVE_SIZE, WARN_PERIOD
from turn cimport defer
from warn cimport report_trouble, warn_by, warning_due, warning_of, warnings_are_due
from worker cimport worker_free, worker_init, worker_run, worker_turn


cdef extern from "Python.h":
    int PyErr_CheckSignals() except -1
    void PyErr_Restore(void *kind, void *value, void *traceback)    # steals a reference to each
    void *PyException_GetTraceback(object error)
    bint PyFunction_Check(object function)
    bint PyMethod_Check(object method)
    void *PyFunction_GetCode(object function)   # this and the next two return borrowed references
    void *PyFunction_GetDefaults(object function)   # NULL: none
    void *PyMethod_Function(object method)

    ctypedef struct TypeObject "PyTypeObject":
        unsigned long tp_flags
    unsigned long Py_TPFLAGS_BASETYPE
    ctypedef enum PyLockStatus:
        PY_LOCK_ACQUIRED
    PyLockStatus PyThread_acquire_lock_timed(PyThread_type_lock lock, long long microseconds, int interruptible) nogil
    unsigned long PyThread_get_thread_native_id()

    ctypedef struct PyInterpreterState:
        pass
    PyInterpreterState *PyInterpreterState_Get()
    PyInterpreterState *PyInterpreterState_Main()

cdef extern from *:
    const unsigned int CYTHON_HEX_VERSION

# Workers take the GIL with PyGILState_Ensure(), which works with the main interpreter only.
if PyInterpreterState_Get() != PyInterpreterState_Main():
    raise ImportError("iocpcore runs in the main interpreter only, not in a sub-interpreter")

compiler = iocp_compiler().decode()
cython_version = f"{CYTHON_HEX_VERSION >> 24}.{CYTHON_HEX_VERSION >> 16 & 0xFFU}.{CYTHON_HEX_VERSION >> 8 & 0xFFU}"

DRAIN = 1.0     # seconds close() gives sessions to finish
MARGIN = 5.0    # seconds without progress, after the drain, until close() gives up and leaks the workers


# The first line of each file says what it is about.
include "_common.pxi"
include "_backend.pxi"
include "_warnings.pxi"
include "_workers.pxi"
include "_drivers.pxi"
include "_closing.pxi"
include "_handler.pxi"
include "_options.pxi"
include "_load.pxi"
include "_session.pxi"
include "_connecting.pxi"
include "_listener.pxi"
include "_delivery.pxi"
include "_proactor.pxi"
include "_process.pxi"
