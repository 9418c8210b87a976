# What the Python-visible types share: errors, arguments, waiting, addresses.

cdef double INFINITY = float("inf")


# ---- errors ----

cdef str CANNOT_WAKE = "cannot wake the worker: the system has no memory for a packet"


cdef object system_error(int number):
    """The OSError for an error number of the system; on Windows it has a winerror."""
    cdef char text[512]
    iocp_error_text(number, text, sizeof(text))
    return OSError(number, text.decode("utf-8", "replace"), None, number)


cdef object log_error(object error, str what, tuple arguments):
    """Log the error. Returns None, or the KeyboardInterrupt or SystemExit that interrupted the logging.

    If logging fails, both errors go to sys.unraisablehook. If the hook fails too, the interpreter prints that and goes
    on.
    """
    try:
        logging.getLogger("iocpcore").error(what, *arguments, exc_info=error)
    except (KeyboardInterrupt, SystemExit) as ending:
        return ending
    except BaseException as failure:
        write_unraisable(error, "reported by iocpcore")
        write_unraisable(failure, "while iocpcore logged the previous error")
    return None


cdef void write_unraisable(object error, str where) noexcept:
    """Pass the error to sys.unraisablehook, with its own traceback and context."""
    kind = type(error)
    Py_INCREF(kind)
    Py_INCREF(error)
    PyErr_Restore(<void *> kind, <void *> error, PyException_GetTraceback(error))
    PyErr_WriteUnraisable(where)


cdef uint64_t whole(str name, object value, uint64_t least, uint64_t most) except? 0:
    """The argument as a number from `least` to `most`; raises TypeError or ValueError if it is none.

    For a subclass of int this is the stored number: methods of the subclass could return any other.
    """
    cdef int overflow
    cdef long long number
    if not PyLong_Check(value) or PyBool_Check(value):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    number = PyLong_AsLongLongAndOverflow(value, &overflow)
    if overflow != 0 or number < 0 or not least <= <uint64_t> number <= most:
        shown = number if overflow == 0 else "a number of more than 63 bits"
        raise ValueError(f"{name} must be from {least} to {most}, not {shown}")
    return <uint64_t> number


cdef bint truth(str name, object value) except -1:
    """The argument, which must be True or False; raises TypeError if it is neither."""
    if not PyBool_Check(value):
        raise TypeError(f"{name} must be True or False, not of type {type(value).__name__}")
    return value is True


cdef uint64_t nanoseconds(str name, object seconds) except? 0:
    """The argument, from 0 seconds to a year, in nanoseconds. Errors and subclasses of numbers: see whole()."""
    cdef double number
    cdef int overflow = 0
    if PyFloat_Check(seconds):
        number = PyFloat_AS_DOUBLE(seconds)
    elif PyLong_Check(seconds) and not PyBool_Check(seconds):
        number = PyLong_AsLongLongAndOverflow(seconds, &overflow)
        if overflow != 0:
            number = overflow * INFINITY
    else:
        raise TypeError(f"{name} must be a number of seconds, not {type(seconds).__name__}")
    if not 0 <= number <= 366 * 86400:
        raise ValueError(f"{name} must be from 0 seconds to a year, not {number:g}")
    return <uint64_t> (number * 1e9)


def check_seconds(name, value):
    """TypeError or ValueError unless the argument is a number of seconds from 0 to a year."""
    nanoseconds(name, value)


# ---- waiting ----


cdef double after(str name, object seconds) except? -1:
    """What time.monotonic() will be in that many seconds. Errors as in nanoseconds()."""
    return time.monotonic() + nanoseconds(name, seconds) / 1e9


cdef int AWAITED = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
cdef int ITERATED = inspect.CO_GENERATOR


cdef str why_useless(object function):
    """Why it cannot be called, or why a call would run nothing; None if neither."""
    cdef int flags
    if not callable(function):
        return "cannot be called"
    if PyMethod_Check(function):
        function = <object> PyMethod_Function(function)
    if not PyFunction_Check(function):
        return None
    flags = (<object> PyFunction_GetCode(function)).co_flags
    if flags & AWAITED:
        return "is an async function, which nobody would await"
    if flags & ITERATED:
        return "is a generator function, which nobody would run"
    return None


cdef str function_name(object function):
    """A name for an error message. Not its repr(), which may be the user's code."""
    if PyMethod_Check(function):
        function = <object> PyMethod_Function(function)
    return function.__qualname__ if PyFunction_Check(function) else type(function).__name__


cdef PyThread_type_lock held_lock() except NULL:
    """A new lock, already acquired. Another thread releases it once, to signal that something has happened."""
    cdef PyThread_type_lock lock = PyThread_allocate_lock()
    if lock == NULL:
        raise MemoryError()
    PyThread_acquire_lock(lock, WAIT_LOCK)
    return lock


cdef bint wait_for(PyThread_type_lock lock, double deadline) except -1:
    """Wait until another thread has released the lock; False if time.monotonic() reaches the deadline first.

    Several threads may wait: the one that gets the lock releases it for the next. They wait in slices of 0.1 seconds,
    because on Windows Ctrl+C does not interrupt a wait for a lock: signals are checked after each slice.
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
    """Fill in the sockaddr of a numeric address, given as by getaddrinfo(). Returns its length in bytes."""
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


cdef tuple address_of(sockaddr_in6 *name):
    """The address of a sockaddr, as Python has addresses; None if it was never filled in."""
    cdef sockaddr_in *v4 = <sockaddr_in *> name
    if v4.sin_family == AF_INET:
        return _socket.inet_ntop(_socket.AF_INET, (<const char *> &v4.sin_addr)[:4]), _socket.ntohs(v4.sin_port)
    if v4.sin_family == AF_INET6:
        host = _socket.inet_ntop(_socket.AF_INET6, (<const char *> &name.sin6_addr)[:16])
        return host, _socket.ntohs(name.sin6_port), _socket.ntohl(name.sin6_flowinfo), name.sin6_scope_id
    return None


def _resolve(host, port, least_port, flags, family=_socket.AF_UNSPEC):
    """Resolve a host to (family, address). Raises ValueError, TypeError, or the resolver's OSError.

    If a name has several addresses, this is the first IPv4 one, else the first of all. So a client and a server that
    are both given "localhost" use the same address.
    """
    if host is not None and not isinstance(host, str):
        raise TypeError(f"host must be a str or None, not {type(host).__name__}")
    port = whole("port", port, least_port, 65535)
    try:
        answers = _socket.getaddrinfo(host or None, port, family, _socket.SOCK_STREAM, flags=flags)
    except _socket.gaierror as error:
        raise _socket.gaierror(error.errno, f"cannot resolve {host!r}: {error.strerror}") from None
    except UnicodeError as error:   # a label that is empty, or too long
        raise _socket.gaierror(_socket.EAI_NONAME, f"cannot resolve {host!r}: {error}") from None
    family, _, _, _, address = min(answers, key=lambda answer: answer[0] != _socket.AF_INET)
    return family, address


def _listening_socket(host, port, backlog, no_delay):
    """A new socket that is bound and listens. Raises the system's OSError if the address cannot be used."""
    if host == "" or host is None:
        host = "::" if _socket.has_dualstack_ipv6() else "0.0.0.0"
    family, address = _resolve(host, port, 0, _socket.AI_PASSIVE)
    sock = _socket.socket(family, _socket.SOCK_STREAM)
    try:
        # Windows: without SO_EXCLUSIVEADDRUSE another program could bind the same port. Elsewhere it cannot, and with
        # SO_REUSEADDR a restart need not wait for old connections in TIME_WAIT. Source:
        # https://learn.microsoft.com/windows/win32/winsock/using-so-reuseaddr-and-so-exclusiveaddruse
        exclusive = getattr(_socket, "SO_EXCLUSIVEADDRUSE", None)
        sock.setsockopt(_socket.SOL_SOCKET, exclusive or _socket.SO_REUSEADDR, 1)
        if family == _socket.AF_INET6:
            sock.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, address[0] != "::")
        sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, no_delay)
        sock.bind(address)
        sock.listen(_socket.SOMAXCONN if backlog is None else backlog)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"cannot listen on {address[0]} port {port}: {error.strerror}", None,
                      getattr(error, "winerror", None)) from None
    return sock


def _is_bound(sock):
    try:
        return sock.getsockname()[1] != 0
    except OSError as error:
        if getattr(error, "winerror", None) == 10022:   # WSAEINVAL: on Windows an unbound socket has no name
            return False
        raise


def _is_connected(sock):
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def _check_tcp(sock):
    """Raise TypeError or ValueError unless it is an open TCP socket without TLS."""
    if not isinstance(sock, _socket.socket):
        raise TypeError(f"sock must be a socket, not {type(sock).__name__}")
    if sock.fileno() == -1:
        raise ValueError("sock is closed, or was given to a proactor before")
    if sock.type != _socket.SOCK_STREAM or sock.family not in (_socket.AF_INET, _socket.AF_INET6):
        raise ValueError(f"sock must be a TCP socket, not {sock!r}")
    if hasattr(sock, "do_handshake"):   # an ssl.SSLSocket: we would write past its encryption
        raise ValueError(f"sock must be without TLS, not {sock!r}")


def _check_connected(sock):
    """Raise ValueError unless it is connected, or its peer has reset it: its session's on_close then has that error."""
    try:
        sock.getpeername()
    except OSError as error:
        if sock.fileno() == -1 or not iocp_was_connected(<SOCKET> <size_t> sock.fileno()):
            raise ValueError(f"sock is not connected: {error}") from None


# The methods of the C type. With these no Python code, and so no other thread, runs between reading a descriptor and
# handing it over: it cannot be handed over twice.
cdef object _descriptor = _csocket.socket.fileno
cdef object _detach = _csocket.socket.detach


cdef SOCKET descriptor_of(sock) except? INVALID_SOCKET:
    """The socket's descriptor; INVALID_SOCKET if it was closed."""
    number = _descriptor(sock)
    return INVALID_SOCKET if number == -1 else <SOCKET> <size_t> number


cdef int let_go_of(sock) except -1:
    """Detach the Python socket from its descriptor, which a worker owns from now on."""
    _detach(sock)
    return 0


def _given_socket(sock, backlog):
    """Make a user's bound socket listen, unless it does already. Raises ValueError if it is unbound or connected."""
    _check_tcp(sock)
    if not _is_bound(sock):
        raise ValueError("sock is not bound")
    if _is_connected(sock):
        raise ValueError("sock is connected and cannot listen; adopt() serves a connected socket")
    if backlog is not None or not sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ACCEPTCONN):
        sock.listen(_socket.SOMAXCONN if backlog is None else backlog)


def _local_address(family, address):
    """Resolve local_address to what bind() takes.

    It is (host, port), where the host may have a %scope, or with IPv6 (host, port, flow info, scope id).
    """
    if not isinstance(address, tuple) or len(address) not in (2, 4) or not isinstance(address[0], str):
        raise TypeError(f"local_address must be (host, port), or with IPv6 (host, port, flow info, scope id), not "
                        f"{address!r}")
    if len(address) == 4 and family != _socket.AF_INET6:
        raise TypeError("local_address must be (host, port): the server's address is IPv4, without flow info")
    port = whole("local_address's port", address[1], 0, 65535)
    found = _resolve(address[0], port, 0, _socket.AI_PASSIVE, family)[1]
    if len(address) == 2:
        return found
    flow = whole("local_address's flow info", address[2], 0, (1 << 20) - 1)
    return (*found[:2], flow, whole("local_address's scope id", address[3], 0, (1 << 32) - 1) or found[3])


def _set_reuse(sock, port):
    """Before bind(): let a given port be used again while it is in TIME_WAIT, or let the system choose the port late.

    With port 0 the system chooses when it connects, so that connections to different servers can share a port
    (IP_BIND_ADDRESS_NO_PORT, on Windows SO_REUSE_UNICASTPORT). On Windows SO_REUSEADDR would take a port away from the
    program that uses it, and is not needed for a port in TIME_WAIT.
    """
    if port == 0:
        with contextlib.suppress(OSError):  # an older system does not have this option
            sock.setsockopt(IOCP_LATE_PORT_LEVEL, IOCP_LATE_PORT, 1)
    elif not hasattr(_socket, "SO_EXCLUSIVEADDRUSE"):
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)


def _bound_socket(family, local_address):
    """A new socket, bound to local_address, to connect from."""
    address = _local_address(family, local_address)
    sock = _socket.socket(family, _socket.SOCK_STREAM)
    try:
        _set_reuse(sock, address[1])
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"cannot connect from {address[0]} port {address[1]}: {error.strerror}", None,
                      getattr(error, "winerror", None)) from None
    return sock
