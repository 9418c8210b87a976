# Warnings in the log "iocpcore", of the troubles that the steps have counted (warn.pxd).
#
# Threads: under the GIL. A log handler may block, raise, fork, or close the proactor. So a warning is marked as told
# before it is logged, and when the log handler returns the worker may have ended.

WARNED_EVERY = WARN_PERIOD / 1e9    # seconds between two warnings of the same trouble

cdef tuple TROUBLE_TEXTS = (    # by enum Trouble
    "worker %(worker)d cannot take new connections, which wait until it can: %(error)s",
    "worker %(worker)d cannot connect: out of descriptors or memory: %(error)s",
    "a connection to %(peer)s failed: %(error)s; its handler has no on_close to tell it to",
    "worker %(worker)d cannot wait for completions any more, and has ended its sessions: %(error)s",
    "worker %(worker)d is behind: more than 100,000 calls of other threads (send, connect, post) wait for it, or more "
    "than 64 MiB, or one for more than 5 seconds; a callback blocks it, poll() is called too rarely, or it gets more "
    "than it can handle",
)


cdef void tell_warnings(Worker *worker) noexcept:
    """In the worker's thread: log the warnings that are due, and note when the next one will be."""
    cdef uint64_t now = worker.now
    cdef uint64_t due
    cdef Warning *warning
    cdef int trouble
    worker.warn_at = 0
    for trouble in range(<int> TROUBLES):
        if worker.abandoned:    # a log handler has forked
            return
        warning = warning_of(worker, trouble)
        if iocp_read64(&warning.count) == 0:
            continue
        due = warning_due(worker, warning, now)
        if due > now:
            warn_by(worker, due)
        else:
            tell_warning(worker, trouble, now)


cdef void tell_warning(Worker *worker, int trouble, uint64_t now) noexcept:
    """Log a warning that is due."""
    cdef Warning *warning = warning_of(worker, trouble)
    cdef LONG number_of_worker = iocp_read32(&warning.worker)
    cdef sockaddr_in6 peer = worker.peers[number_of_worker].unheard
    cdef bint first = iocp_read64(&warning.told_at) == 0
    cdef long long count = InterlockedExchange64(&warning.count, 0)
    cdef LONG number = iocp_read32(&warning.error)
    cdef str text = TROUBLE_TEXTS[trouble]
    InterlockedExchange64(&warning.told_at, now)
    if count > 1 or not first:
        text += f" (%(count)d times {'so far' if first else 'since the last warning'})"
    try:
        logging.getLogger("iocpcore").log(logging.ERROR if trouble == TROUBLE_DEQUEUE else logging.WARNING, text, {
            "worker": number_of_worker, "count": count, "peer": peer_text(address_of(&peer)),
            "error": None if number == 0 else system_error(number)})
    except KeyboardInterrupt:   # Ctrl+C during the logging: raise it again in what this thread runs next
        _thread.interrupt_main()


cdef str peer_text(address):
    return "an unknown address" if address is None else f"{address[0]} port {address[1]}"


cdef void warn_of_backlog(Worker *worker) noexcept:
    """Called in the thread that has filled the inbox: if it is too full, warn here, because the worker may be blocked.

    This must be the caller's last step: during the logging other threads may close the proactor.
    """
    cdef uint64_t now
    if iocp_read32(&worker.inbox.overdue) != OVERDUE:
        return
    now = iocp_now(worker.port)
    if warning_due(worker, warning_of(worker, TROUBLE_INBOX), now) > now:
        return      # not due yet: the worker warns when it comes to its inbox
    if InterlockedCompareExchange(&worker.inbox.overdue, OVERDUE_TOLD, OVERDUE) == OVERDUE:
        InterlockedExchange(&warning_of(worker, TROUBLE_INBOX).worker, worker.index)
        InterlockedExchangeAdd64(&warning_of(worker, TROUBLE_INBOX).count, 1)
        tell_warning(worker, TROUBLE_INBOX, now)


cdef void warn_unheard(Worker *worker, Session session, int error) noexcept:
    """A connection was never made. Count a warning if that is an error and its handler has no on_close to tell."""
    if error != 0 and session.handler.on_close is None and not session.leaving and not worker.closing:
        worker.unheard = session.peer
        report_trouble(worker, TROUBLE_UNHEARD, error)
