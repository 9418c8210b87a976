# Backends: which ones this build has, which of them can run here, and which one a proactor gets.
#
# Threads: under the GIL.

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


def _backend_absent(name):
    """Why this build lacks a backend that other builds have; None if it has the backend, or if no build does."""
    encoded = name.encode("utf-8", "replace")
    absent = iocp_backend_find(encoded) < 0 and iocp_backend_absent(encoded) != NULL
    return iocp_backend_absent(encoded).decode() if absent else None


def _start_up():
    cdef int error = iocp_startup()
    if error != 0:
        raise system_error(error)


def _choose_backend(name):
    """The index of the backend of that name. None: the name in the environment's IOCPCORE_BACKEND, else "auto".

    An error says so if the name came from the environment.
    """
    where = ""
    if name is None:
        name = os.environ.get("IOCPCORE_BACKEND") or "auto"
        where = "IOCPCORE_BACKEND: "
    if not isinstance(name, str):
        raise TypeError(f"backend must be a str, not {type(name).__name__}")
    cdef int found = iocp_backend_find(name.encode("utf-8", "replace"))
    if found < 0:
        absent = _backend_absent(name)
        if absent is not None:
            raise RuntimeError(f"{where}backend {name!r} cannot run here: {absent}")
        known = ", ".join(_backend_names())
        raise ValueError(f"{where}unknown backend {name!r}; this build has auto, {known}")
    if iocp_backend_missing(found) != NULL:
        raise RuntimeError(f"{where}backend {name!r} cannot run here: {iocp_backend_missing(found).decode()}")
    return found
