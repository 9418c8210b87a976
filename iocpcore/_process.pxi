# Proactors that nobody has closed: a fork leaves them to the parent, and the interpreter's end closes them.
#
# Threads: under the GIL.

_live = set()   # proactors that are not closed: without threads nothing else might hold one


def _after_fork():
    cdef Proactor proactor
    _waiting.clear()
    for proactor in _live:
        proactor.pool.leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


cdef void warn_unclosed(Proactor proactor) noexcept:
    """As of a socket. Where warnings are errors it is unraisable: the others are still to be closed."""
    try:
        warnings.warn(f"unclosed proactor {proactor!r}", ResourceWarning, source=proactor)
    except BaseException as error:
        write_unraisable(error, "iocpcore at the interpreter's end")


@atexit.register
def _close_all():
    """Workers are daemon threads: they must be gone before the interpreter is."""
    cdef Proactor proactor
    for proactor in list(_live):
        if proactor.pool.process_id == iocp_process_id():
            if not proactor.closing:
                warn_unclosed(proactor)
            try:
                proactor.close(0)
            except BaseException as error:
                Py_INCREF(proactor)     # for ever: the system may still write to what it holds
                log_error(error, "a proactor that was left open did not close", ())
