# cython: language_level=3, boundscheck=False, wraparound=False, auto_pickle=False
"""The Python-visible types of the native core. Use them through the package `iocpcore`.

Ownership: a Proactor owns its workers' memory and frees it when their threads have ended. A Listener, a Load and a
handler own their structs; the Proactor keeps them as long as a worker may look at them.
Threads: everything here runs under the GIL, but for Proactor._run, which gives it up for the whole life of a worker.
"""
import atexit
import logging
import os
import random
import socket as _socket
import threading
import time
import weakref

from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from cpython.pythread cimport (
    PyThread_acquire_lock, PyThread_allocate_lock, PyThread_free_lock, PyThread_release_lock,
    PyThread_type_lock, WAIT_LOCK)

from handler cimport PATTERN_PERIOD, latency_of, load_over
from inbox cimport inbox_ask_to_close, inbox_item, inbox_item_about, inbox_item_free, inbox_put
from iocp cimport (
    AcquireSRWLockExclusive, InitializeSRWLock, InterlockedCompareExchange, InterlockedDecrement, InterlockedIncrement,
    ReleaseSRWLockExclusive, SOCKADDR_STORAGE, SOCKET, INVALID_SOCKET, iocp_backend_find, iocp_backend_missing,
    iocp_backend_name, iocp_compiler, iocp_error_text, iocp_now, iocp_process_id, iocp_startup, sockaddr_in,
    sockaddr_in6)
from operation cimport (
    DISCARD as DISCARD_KIND, DO_CONNECT, DO_LISTEN, DO_UNLISTEN, ECHO as ECHO_KIND, Handler as NativeHandler, InboxItem,
    LATENCY_BUCKETS, LOAD as LOAD_KIND, Listener as NativeListener, Load as NativeLoad, LoadRow, Worker)
from pitfalls cimport pitfall_run
from stats cimport Stats
from worker cimport worker_free, worker_init, worker_run

cdef extern from "Python.h":
    int PyErr_CheckSignals() except -1
    ctypedef enum PyLockStatus:
        PY_LOCK_ACQUIRED
    PyLockStatus PyThread_acquire_lock_timed(PyThread_type_lock lock, long long microseconds, int interruptible) nogil

cdef extern from *:
    const unsigned int CYTHON_HEX_VERSION

compiler = iocp_compiler().decode()
cython_version = f"{CYTHON_HEX_VERSION >> 24}.{CYTHON_HEX_VERSION >> 16 & 0xFFU}.{CYTHON_HEX_VERSION >> 8 & 0xFFU}"

DRAIN = 1.0     # seconds close() gives sessions to finish
MARGIN = 5.0    # seconds a worker has to leave after that, before its memory is leaked


# ---- errors ----

cdef object system_error(int number):
    """The OSError of an error number of the system; on Windows it has a winerror."""
    cdef char text[512]
    iocp_error_text(number, text, sizeof(text))
    return OSError(number, text.decode("utf-8", "replace"), None, number)


cdef uint64_t whole(str name, object value, uint64_t least, uint64_t most) except? 0:
    """The argument as a number in that range, or TypeError, or ValueError."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if not least <= value <= most:
        raise ValueError(f"{name} must be from {least} to {most}, not {value}")
    return value


cdef uint64_t nanoseconds(str name, object seconds) except? 0:
    """The argument, seconds from 0 to a year."""
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {type(seconds).__name__}")
    if not 0 <= seconds <= 366 * 86400:
        raise ValueError(f"{name} must be from 0 seconds to a year, not {seconds}")
    return <uint64_t> (seconds * 1e9)


def check_seconds(name, value):
    """TypeError or ValueError unless the argument is a number of seconds from 0 to a year."""
    nanoseconds(name, value)


# ---- waiting ----

cdef double INFINITY = float("inf")


cdef double after(str name, object seconds) except? -1:
    """time.monotonic() so many seconds from now; TypeError, ValueError."""
    return time.monotonic() + nanoseconds(name, seconds) / 1e9


cdef PyThread_type_lock held_lock() except NULL:
    """A lock that someone else will release, once, to say that something has happened."""
    cdef PyThread_type_lock lock = PyThread_allocate_lock()
    if lock == NULL:
        raise MemoryError()
    PyThread_acquire_lock(lock, WAIT_LOCK)
    return lock


cdef bint wait_for(PyThread_type_lock lock, double deadline) except -1:
    """Wait until someone has released the lock; False if time.monotonic() reaches the deadline first.

    Any number of threads may wait: who gets the lock gives it on. In slices: on Windows Ctrl+C interrupts no lock, so
    signals are looked at ten times a second.
    """
    cdef PyLockStatus got
    cdef long long microseconds
    cdef double left
    while True:
        left = deadline - time.monotonic()
        microseconds = <long long> (min(max(left, 0), 0.1) * 1e6)
        with nogil:
            got = PyThread_acquire_lock_timed(lock, microseconds, 1)
        if got == PY_LOCK_ACQUIRED:
            PyThread_release_lock(lock)
            return True
        PyErr_CheckSignals()
        if left <= 0:
            return False


# ---- addresses ----

cdef int socket_address(int family, tuple address, SOCKADDR_STORAGE *storage) except -1:
    """Fill in the system's form of a numeric address as getaddrinfo gives it; its length."""
    cdef sockaddr_in *v4 = <sockaddr_in *> storage
    cdef sockaddr_in6 *v6 = <sockaddr_in6 *> storage
    cdef bytes packed = _socket.inet_pton(family, address[0].partition("%")[0])
    cdef unsigned short port = _socket.htons(address[1])
    if family == _socket.AF_INET:
        v4.sin_family = family
        v4.sin_port = port
        memcpy(&v4.sin_addr, <const char *> packed, 4)
        return sizeof(sockaddr_in)
    v6.sin6_family = family
    v6.sin6_port = port
    v6.sin6_scope_id = address[3]
    memcpy(&v6.sin6_addr, <const char *> packed, 16)
    return sizeof(sockaddr_in6)


def _resolve(host, port, least_port, flags):
    """(family, address) of a host; ValueError, TypeError, or the resolver's OSError.

    Of a name with several addresses the first IPv4 one, else the first: so a client and a server that both say
    "localhost" mean the same.
    """
    if host is not None and not isinstance(host, str):
        raise TypeError(f"host must be a str or None, not {type(host).__name__}")
    whole("port", port, least_port, 65535)
    try:
        answers = _socket.getaddrinfo(host or None, port, type=_socket.SOCK_STREAM, flags=flags)
    except _socket.gaierror as error:
        raise _socket.gaierror(error.errno, f"cannot resolve {host!r}: {error.strerror}") from None
    family, _, _, _, address = min(answers, key=lambda answer: answer[0] != _socket.AF_INET)
    return family, address


def _listening_socket(host, port, backlog):
    """A socket that is bound and listens; the system's OSError if the address cannot be had."""
    if host == "" or host is None:
        host = "::" if _socket.has_dualstack_ipv6() else "0.0.0.0"
    family, address = _resolve(host, port, 0, _socket.AI_PASSIVE)
    sock = _socket.socket(family, _socket.SOCK_STREAM)
    try:
        # Windows: nobody else may take the port; elsewhere it is so, and a restart must not wait for old connections.
        exclusive = getattr(_socket, "SO_EXCLUSIVEADDRUSE", None)
        sock.setsockopt(_socket.SOL_SOCKET, exclusive or _socket.SO_REUSEADDR, 1)
        if family == _socket.AF_INET6:
            sock.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, address[0] != "::")
        sock.bind(address)
        sock.listen(_socket.SOMAXCONN if backlog is None else backlog)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"cannot listen on {address[0]} port {port}: {error.strerror}", None,
                      getattr(error, "winerror", None)) from None
    return sock


# ---- handlers ----

ONLY_NATIVE = "the handler must be iocpcore.ECHO or iocpcore.DISCARD; handlers written in Python are not supported yet"


cdef class Handler:
    """What is done with a session's data, natively: ECHO, DISCARD or a Load. It never takes the GIL."""
    cdef NativeHandler native
    cdef str name

    def __init__(self):
        raise TypeError(ONLY_NATIVE)

    def __repr__(self):
        return f"<iocpcore.{self.name}>"


cdef Handler native_handler(int kind, str name):
    cdef Handler handler = Handler.__new__(Handler)
    handler.native.kind = kind
    handler.name = name
    return handler


ECHO = native_handler(ECHO_KIND, "ECHO")            # sends back what it receives
DISCARD = native_handler(DISCARD_KIND, "DISCARD")   # receives and forgets

# Every load sends from the same bytes. Random, so that bytes lost, doubled or exchanged show; laid out twice, so that
# a whole period can be read from any offset.
cdef bytes PATTERN = random.Random(65521).randbytes(PATTERN_PERIOD) * 2


cdef uint64_t latency_within(LoadRow *row, double share) noexcept:
    """Nanoseconds within which that share of the echoes came."""
    cdef uint64_t seen = 0
    cdef unsigned int bucket
    for bucket in range(<unsigned int> LATENCY_BUCKETS):
        seen += row.latency[bucket]
        if seen > 0 and seen >= share * row.echoes:
            return latency_of(bucket)
    return 0


cdef class Load(Handler):
    """Load(connections=50, messages=1000, size=64, pipeline=1)

    A native load client: connections that send messages and check every byte that an echo server returns.

    connections: how many; messages: of each connection; size: bytes of a message, or (least, most) for random sizes;
    pipeline: messages a connection sends before the first has come back.
    """
    cdef NativeLoad load
    cdef int workers
    cdef unsigned int connections
    cdef uint64_t started_at
    cdef Proactor proactor

    def __cinit__(self):
        self.load.done = held_lock()

    def __init__(self, connections=50, messages=1000, size=64, pipeline=1):
        if self.native.load != NULL:
            raise RuntimeError("a load is made once")
        if isinstance(size, tuple) and len(size) != 2:
            raise ValueError(f"size must be a number or (least, most), not {size}")
        least, most = size if isinstance(size, tuple) else (size, size)
        self.connections = whole("connections", connections, 1, 1000000)
        self.load.messages = whole("messages", messages, 1, 1 << 48)
        self.load.size_min = whole("size", least, 1, 1 << 30)
        self.load.size_max = whole("size", most, self.load.size_min, 1 << 30)
        self.load.pipeline = whole("pipeline", pipeline, 1, 1 << 16)
        self.load.pattern = PATTERN
        self.load.remaining = self.connections
        self.native.kind = LOAD_KIND
        self.native.load = &self.load
        self.name = "Load"

    def __dealloc__(self):
        free(self.load.rows)
        if self.load.done != NULL:
            PyThread_free_lock(self.load.done)

    def start(self, Proactor proactor not None, host, port):
        """start(proactor, host, port)

        Connect to the server, all connections at once, spread over the proactor's workers.

        Raises RuntimeError if it was started before, OSError if the host cannot be resolved.
        """
        cdef int worker
        if self.proactor is not None:
            raise RuntimeError("a load can be started once")
        proactor.check()
        family, address = _resolve(host, port, 1, 0)
        proactor.check()    # resolving takes its time
        self.workers = proactor.count
        self.load.rows = <LoadRow *> calloc(self.workers, sizeof(LoadRow))
        if self.load.rows == NULL:
            raise MemoryError()
        for worker in range(self.workers):
            InitializeSRWLock(&self.load.rows[worker].lock)
        self.proactor = proactor
        proactor.keep(self)
        self.started_at = iocp_now(proactor.workers[0].port)
        cdef unsigned int i, _missing, begun = 0
        try:
            for i in range(self.connections):
                proactor.connect_native(&self.native, i % self.workers, family, address)
                begun += 1
        finally:
            for _missing in range(begun, self.connections):    # those will never be
                load_over(&self.load)

    def wait(self, timeout=None):
        """wait(timeout=None)

        Until every connection is over, at most `timeout` seconds, or for ever; whether they are. False too if the
        proactor was closed and some operation never ended: what is left in its hands will never be over.
        """
        if self.proactor is None:
            raise RuntimeError("the load was not started")
        cdef double deadline = INFINITY if timeout is None else after("timeout", timeout)
        while not wait_for(self.load.done, min(deadline, time.monotonic() + 1)):
            if self.proactor.leaked or time.monotonic() >= deadline:
                return False
        return True

    @property
    def echoes(self):
        """Messages that have come back whole, until now."""
        cdef LoadRow total
        self.sum_rows(&total)
        return total.echoes

    def result(self):
        """result()

        What happened so far: a dict.

        connections, echoes, bytes (received), seconds (until the last echo), echoes_per_second, mismatches (connections
        that returned a wrong byte), errors (connections that ended before all their messages came back), error (the
        first one's text, or None), latency_us: p50, p99, p999, from a histogram with an error of 1.6 %.
        """
        cdef LoadRow total
        self.sum_rows(&total)
        seconds = max(0, <int64_t> (total.last_at - self.started_at)) / 1e9
        return {
            "connections": self.connections,
            "echoes": total.echoes,
            "bytes": total.bytes,
            "seconds": seconds,
            "echoes_per_second": total.echoes / seconds if seconds else 0.0,
            "mismatches": total.mismatches,
            "errors": total.errors,
            "error": str(system_error(total.first_error)) if total.first_error else None,
            "latency_us": {name: latency_within(&total, share) / 1000
                           for name, share in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999))},
        }

    cdef bint over(self):
        """No worker will look at it again."""
        return wait_for(self.load.done, 0)

    cdef void sum_rows(self, LoadRow *total):
        """What all workers have counted until now."""
        cdef LoadRow *row
        cdef int i
        cdef unsigned int bucket
        memset(total, 0, sizeof(LoadRow))
        for i in range(self.workers):
            row = &self.load.rows[i]
            AcquireSRWLockExclusive(&row.lock)
            total.echoes += row.echoes
            total.bytes += row.bytes
            total.mismatches += row.mismatches
            total.errors += row.errors
            total.last_at = max(total.last_at, row.last_at)
            if total.first_error == 0:
                total.first_error = row.first_error
            for bucket in range(<unsigned int> LATENCY_BUCKETS):
                total.latency[bucket] += row.latency[bucket]
            ReleaseSRWLockExclusive(&row.lock)


# ---- listeners ----

cdef class Listener:
    """A listening socket with its accepts posted. Made by Proactor.listen().

    address: (host, port) as bound; with IPv6 flow info and scope behind them.
    """
    cdef NativeListener *native
    cdef Proactor proactor
    cdef Handler handler
    cdef int worker                 # by number: its memory may be gone when the listener is closed
    cdef bint closed                # by close()
    cdef readonly tuple address

    def __cinit__(self):
        self.native = <NativeListener *> calloc(1, sizeof(NativeListener))
        if self.native == NULL:
            raise MemoryError()
        self.native.socket = INVALID_SOCKET
        self.native.armed = held_lock()

    def __init__(self):
        raise TypeError("a Listener is made by Proactor.listen()")

    def __dealloc__(self):
        if self.native != NULL and self.native.armed != NULL:
            PyThread_free_lock(self.native.armed)
        free(self.native)

    def __repr__(self):
        return f"<iocpcore.Listener {self.address[0]}:{self.address[1]} {self.handler!r}>"

    @property
    def port(self):
        """The port it is bound to."""
        return self.address[1]

    def close(self):
        """close()

        Accept no more; returns at once. Its sessions go on."""
        cdef InboxItem *item
        if self.closed:
            return
        item = inbox_item_about(DO_UNLISTEN, self.native)
        if item == NULL:
            raise MemoryError()
        self.proactor.put(self.worker, item, True)
        self.closed = True

    cdef bint over(self):
        """No worker will look at it again."""
        return InterlockedCompareExchange(&self.native.holds, 0, 0) == 0


cdef bint is_over(one):
    return (<Listener> one).over() if isinstance(one, Listener) else (<Load> one).over()


# ---- the proactor ----

_live = weakref.WeakSet()
_leaked = []    # what an operation that never ended may still write to


def _backend_names():
    cdef int i = 0
    names = []
    while iocp_backend_name(i) != NULL:
        names.append(iocp_backend_name(i).decode())
        i += 1
    return names


def backends():
    """The backends of this build: {name: None if it can run here, else why not}."""
    _start_up()
    return {name: None if iocp_backend_missing(i) == NULL else iocp_backend_missing(i).decode()
            for i, name in enumerate(_backend_names())}


def _start_up():
    cdef int error = iocp_startup()
    if error != 0:
        raise system_error(error)


def _choose_backend(name):
    """Its index; None asks the environment's IOCPCORE_BACKEND, else "auto"."""
    if name is None:
        name = os.environ.get("IOCPCORE_BACKEND") or "auto"
    if not isinstance(name, str):
        raise TypeError(f"backend must be a str, not {type(name).__name__}")
    cdef int found = iocp_backend_find(name.encode("utf-8", "replace"))
    if found < 0:
        raise ValueError(f"unknown backend {name!r}, or not built; this build has auto, {', '.join(_backend_names())}")
    if iocp_backend_missing(found) != NULL:
        raise RuntimeError(f"backend {name!r} cannot run here: {iocp_backend_missing(found).decode()}")
    return found


cdef class Proactor:
    """Proactor(workers=1, backend=None, *, skip_on_success=True)

    Workers, each a thread with a completion port of its own, and their listeners and sessions.

    workers: threads, 1 to 256. backend: "auto", or one of backends(); None asks the environment variable
    IOCPCORE_BACKEND first. skip_on_success: let operations that succeed at once do so without a packet, where the
    system can.

    Raises ValueError or TypeError for a bad argument, RuntimeError for a backend that cannot run here, OSError if the
    system refuses a port. A context manager: leaving it closes.
    """
    cdef Worker *workers
    cdef PyThread_type_lock *ended  # one a worker; freed last, for several threads may wait in close()
    cdef int count
    cdef long process_id
    cdef readonly str backend
    cdef list threads
    cdef list kept          # listeners and loads that workers may look at
    cdef Py_ssize_t kept_enough     # of them, to see which are over
    cdef list last_rows     # the statistics, once the workers have gone
    cdef set begun          # workers whose thread runs the loop, or has
    cdef int listened
    cdef bint closing
    cdef bint leaked
    cdef double close_by    # time.monotonic() when what is left is aborted
    cdef object __weakref__

    def __init__(self, workers=1, backend=None, *, skip_on_success=True):
        if self.workers != NULL or self.closing:
            raise RuntimeError("a proactor is made once")
        cdef int i, error, chosen
        _start_up()
        cdef int count = whole("workers", workers, 1, 256)
        chosen = _choose_backend(backend)
        self.backend = iocp_backend_name(chosen).decode()
        self.threads = []
        self.kept = []
        self.begun = set()
        self.close_by = INFINITY
        self.process_id = iocp_process_id()
        self.workers = <Worker *> calloc(count, sizeof(Worker))
        self.ended = <PyThread_type_lock *> calloc(count, sizeof(PyThread_type_lock))
        if self.workers == NULL or self.ended == NULL:
            raise MemoryError()
        self.count = count
        for i in range(count):
            self.workers[i].ended = self.ended[i] = held_lock()
            error = worker_init(&self.workers[i], i, self.workers, count, chosen, bool(skip_on_success))
            if error != 0:
                raise system_error(error)
        _live.add(self)
        try:
            for i in range(count):
                self.threads.append(
                    threading.Thread(target=self._run, args=(i,), name=f"iocpcore-worker-{i}", daemon=True))
                self.threads[i].start()
        except BaseException:
            self.close(0)
            raise

    def __dealloc__(self):
        # Threads hold a reference: here none has ever started, or close() has freed all.
        cdef int i
        self.free_workers()
        for i in range(self.count if self.ended != NULL else 0):
            if self.ended[i] != NULL:
                PyThread_free_lock(self.ended[i])
        free(self.ended)

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    def _run(self, int index):
        """The body of a worker's thread. If close() came first, the workers are not ours to touch any more."""
        if self.closing:
            return
        self.begun.add(index)
        with nogil:
            worker_run(&self.workers[index])

    def __repr__(self):
        state = "closed" if self.closing else f"{self.count} worker{'s' * (self.count != 1)}"
        return f"<iocpcore.Proactor {self.backend}, {state}>"

    def listen(self, handler, host="127.0.0.1", port=0, *, backlog=None):
        """listen(handler, host="127.0.0.1", port=0, *, backlog=None)

        Accept connections for the handler; returns armed, with the accepts posted.

        host: an address or a name; None or "" is every address, IPv4 and IPv6. port: 0 lets the system choose.
        backlog: connections the system holds until they are accepted; None: as many as is reasonable there. Windows
        takes at most 200 if a number is given.

        Raises OSError with the system's number if the address is in use or cannot be resolved.
        Source: AcceptEx, https://learn.microsoft.com/windows/win32/api/mswsock/nf-mswsock-acceptex
        """
        self.check()
        if isinstance(handler, Load):
            raise TypeError("a Load connects; it cannot listen")
        if not isinstance(handler, Handler):
            raise TypeError(ONLY_NATIVE)
        cdef Handler native = handler
        if backlog is not None:
            whole("backlog", backlog, 1, 65535)
        sock = _listening_socket(host, port, backlog)
        if self.closing:    # resolving takes its time
            sock.close()
        self.check()
        cdef Listener listener = Listener.__new__(Listener)
        listener.proactor = self
        listener.handler = native
        listener.address = sock.getsockname()
        listener.native.family = sock.family
        listener.native.handler = &native.native
        listener.worker = self.listened % self.count
        listener.native.worker = &self.workers[listener.worker]
        self.listened += 1
        listener.native.socket = <SOCKET> <size_t> sock.fileno()
        cdef InboxItem *item = inbox_item_about(DO_LISTEN, listener.native)
        if item == NULL:
            sock.close()
            raise MemoryError()
        self.keep(listener)
        try:
            self.put(listener.worker, item, False)
        except BaseException:
            sock.close()
            raise
        sock.detach()
        try:
            wait_for(listener.native.armed, INFINITY)
        except BaseException:
            listener.close()
            raise
        error = self.error_of(listener.native)
        if error != 0:
            raise system_error(error)
        return listener

    def stats(self):
        """stats()

        A snapshot of the counters: a dict of sums, and under "workers" a list with one dict for each worker. A worker
        publishes its row after each batch of packets. After close(): the last row of each.

        Sessions: accepted (at the listener's worker; the session may live at another), accept_failures (the listener
        goes on), refused (accepted, and closed at once: no memory, or closing), connected, connect_failures, active,
        closed_by_us, closed_by_peer, closed_by_error, closed_by_timeout, undrained (sockets closed before all their
        operations had ended).
        Bytes: bytes_received, bytes_discarded (of them, those that came when the session was finishing already),
        bytes_sent, bytes_unsent (left in the queues of sessions that ended), bytes_queued (to be sent).
        Operations: submitted, packets, inline_successes, failed_starts, in_flight, cancelled and failed (packets).
        submitted == packets + inline_successes + failed_starts + in_flight holds in every row and in the sums.
        The loop: dequeues, dequeue_failures, wakeups (packets posted by other threads). Memory: buffers_used,
        buffers_spare (of 16 KiB).
        """
        self.check_process()
        rows = self.rows()
        sums = {name: sum([row[name] for row in rows]) for name in rows[0]}
        return {"backend": self.backend, **sums, "workers": rows}

    def close(self, drain=DRAIN):
        """close(drain=1.0)

        Stop accepting, let sessions finish for `drain` seconds, abort what is left, end the workers.

        A session finishes when what it has queued is sent and its peer has ended too, or has not ended 5 seconds after
        that. When `drain` seconds are over, those with bytes unsent are aborted and the others closed. Bounded: after a
        margin of 5 seconds more, memory that the system may still write to is leaked, and a RuntimeError says so.
        It may be called again, and by several threads: the shortest drain counts. Not from a worker's thread.
        """
        cdef uint64_t time_to_drain = nanoseconds("drain", drain)
        self.check_process()
        self.closing = True
        self.close_by = min(self.close_by, time.monotonic() + drain)
        if self.workers != NULL:
            self.ask_to_close(time_to_drain)
            ended = self.wait_for_workers()
            if self.workers != NULL:    # else another thread that closes was quicker
                self.last_rows = self.rows()
                self.leaked = not ended or not self.free_workers()
                self.workers = NULL
                _leaked.append(self.kept) if self.leaked else self.kept.clear()
        _live.discard(self)
        if self.leaked:
            raise RuntimeError("operations did not end in time: their memory is left to the system")

    # ---- for the classes above ----

    cdef int check_process(self) except -1:
        if self.process_id == 0:
            raise RuntimeError("Proactor.__init__() was not called")
        if self.process_id != iocp_process_id():
            raise RuntimeError("this proactor belongs to the process that forked: make a new one here")
        return 0

    cdef int check(self) except -1:
        """It is open, and ours."""
        self.check_process()
        if self.closing or self.workers == NULL:
            raise RuntimeError("the proactor is closed")
        return 0

    cdef int keep(self, kept) except -1:
        """Workers will refer to it. At times, let go of those that are over."""
        if len(self.kept) >= self.kept_enough:
            self.kept = [one for one in self.kept if not is_over(one)]
            self.kept_enough = 2 * len(self.kept) + 16
        self.kept.append(kept)
        return 0

    cdef int put(self, int index, InboxItem *item, bint closed_is_fine) except -1:
        """Give the item to a worker."""
        self.check_process()
        if self.workers != NULL and inbox_put(&self.workers[index], item):
            return 0
        inbox_item_free(item)
        if not self.closing:
            raise MemoryError("the system has no room for a packet that wakes the worker")
        if not closed_is_fine:
            raise RuntimeError("the proactor is closed")
        return 0

    cdef int connect_native(self, NativeHandler *handler, int index, int family, tuple address) except -1:
        cdef InboxItem *item
        self.check()
        item = inbox_item(DO_CONNECT)
        if item == NULL:
            raise MemoryError()
        try:
            item.address_length = socket_address(family, address, &item.address)
        except BaseException:
            inbox_item_free(item)
            raise
        item.handler = handler
        InterlockedIncrement(&self.workers[index].load)
        try:
            self.put(index, item, False)
        except BaseException:
            InterlockedDecrement(&self.workers[index].load)
            raise
        return 0

    cdef int ask_to_close(self, uint64_t drain) except -1:
        cdef int i
        for i in range(self.count):
            if not inbox_ask_to_close(&self.workers[i], drain):
                raise MemoryError("the system has no room for a packet that wakes the worker")
        return 0

    cdef int error_of(self, NativeListener *listener):
        """Of one whose worker may have gone: then it is written no more."""
        cdef int error
        if self.workers == NULL:
            return listener.error
        AcquireSRWLockExclusive(&listener.worker.published_lock)
        error = listener.error
        ReleaseSRWLockExclusive(&listener.worker.published_lock)
        return error

    cdef bint wait_for_workers(self) except -1:
        """Whether all that have begun have ended.

        Thread.join() does not tell: interrupted by a signal it takes the thread for dead. And a thread whose start()
        was interrupted may still begin, to find that the proactor is closing.
        """
        cdef int i
        for i in sorted(self.begun):
            while not wait_for(self.ended[i], min(self.close_by + MARGIN, time.monotonic() + 1)):
                if time.monotonic() >= self.close_by + MARGIN:
                    return False    # close_by may have come nearer since this began
            self.threads[i].join(MARGIN)
        return True

    cdef list rows(self):
        cdef int i
        cdef Stats row
        if self.workers == NULL:
            return self.last_rows
        rows = []
        for i in range(self.count):
            AcquireSRWLockExclusive(&self.workers[i].published_lock)
            row = self.workers[i].published
            ReleaseSRWLockExclusive(&self.workers[i].published_lock)
            rows.append(row)
        return rows

    cdef bint free_workers(self):
        """Whether nothing had to be left behind."""
        cdef int i
        cdef bint drained = True
        if self.workers == NULL:
            return True
        for i in range(self.count):
            drained &= worker_free(&self.workers[i])
        if drained:
            free(self.workers)
            self.workers = NULL
        return drained


def _pitfall(str name, bint wrong, stage):
    """One scenario of `iocpcore pitfalls`: (what its peer had to see, what it saw)."""
    return pitfall_run(name, wrong, stage)


@atexit.register
def _close_all():
    """Workers are daemon threads: they must be gone before the interpreter is."""
    cdef Proactor proactor
    for proactor in list(_live):
        if proactor.process_id == iocp_process_id():
            try:
                proactor.close(0)
            except Exception:
                logging.getLogger("iocpcore").exception("a proactor that was left open did not close")
