# Proactors that are not closed: after a fork they stay the parent's, and the end of the interpreter closes them.
#
# Threads: under the GIL.

_live = set()   # proactors that are not closed: nothing else need refer to one that is polled


def _after_fork():
    cdef Proactor proactor
    _waiting.clear()
    for proactor in _live:
        proactor.pool.leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


cdef void warn_unclosed(Proactor proactor) noexcept:
    """A ResourceWarning, as for an unclosed socket. If warnings are errors, it goes to sys.unraisablehook, because the
    other proactors must still be closed."""
    try:
        warnings.warn(f"unclosed proactor {proactor!r}", ResourceWarning, source=proactor)
    except BaseException as error:
        write_unraisable(error, "iocpcore at the interpreter's end")


@atexit.register
def _close_all():
    """Close all proactors: their workers are daemon threads, which must end before the interpreter does."""
    cdef Proactor proactor
    for proactor in list(_live):
        if proactor.pool.process_id == iocp_process_id():
            if not proactor.closing:
                warn_unclosed(proactor)
            try:
                proactor.close(0)
            except BaseException as error:
                Py_INCREF(proactor)     # never freed: the system may still write to memory that it owns
                log_error(error, "a proactor that the program had left open could not be closed", ())
