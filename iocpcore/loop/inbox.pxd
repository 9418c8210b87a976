# The inbox: the only door into a worker from other threads. A message in a queue, and one posted packet that says
# "look".
#
# Small sends of one session share a message: the second joins the first as long as the worker has not taken it. That
# they go before what was put in between is seen by nobody: that is about other sessions, or does not end what can be
# sent.
#
# Closing needs no message, so that it never lacks memory: a deadline beside the queue asks for it. A worker that closes
# goes on taking messages, for its sessions may have something to send yet; it shuts the inbox when it has ended.
# Ownership: inbox_put() takes the message if it succeeds; the worker frees it. A message holds the listener that it is
# about.
# Threads: inbox_put() and inbox_ask_to_close() any; the others the worker. Under the lock nothing but posting the
# packet, and the copy of a small send: whoever finds one posted must be able to rely on it.
from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free
from iocp cimport (
    INVALID_SOCKET, LONG, AcquireSRWLockExclusive, InterlockedCompareExchange, InterlockedDecrement,
    InterlockedExchange, InterlockedIncrement, ReleaseSRWLockExclusive, iocp_now, iocp_read32)
from buffer cimport buffer_append, buffer_has_room
from link cimport link_drop
from port cimport port_wake
from structs cimport COPIED, NOT_OVERDUE, OVERDUE, TROUBLE_INBOX, Buffer, Inbox, Link, Listener, Message, Worker
from tuning cimport BACKLOG_BYTES, BACKLOG_ITEMS, BACKLOG_TIME, COPY_SIZE, RECEIVE_SIZE
from warn cimport report_trouble


cdef inline Message *message_new(bint (*run)(Worker *, Message *) noexcept nogil) noexcept nogil:
    """A new message, or NULL without memory."""
    cdef Message *message = <Message *> calloc(1, sizeof(Message))
    if message != NULL:
        message.run = run
        message.socket = INVALID_SOCKET
    return message


cdef inline Message *message_about(bint (*run)(Worker *, Message *) noexcept nogil, Listener *listener) noexcept nogil:
    """A new message, or NULL without memory."""
    cdef Message *message = message_new(run)
    if message != NULL:
        InterlockedIncrement(&listener.holds)
        message.listener = listener
    return message


cdef inline void message_free(Message *message) noexcept nogil:
    """Not its Python object, nor its buffer: those are handed on."""
    if message.listener != NULL:
        InterlockedDecrement(&message.listener.holds)
    if message.link != NULL:
        link_drop(message.link)
    free(message.address)
    free(message)


cdef inline bint wake(Worker *worker) noexcept nogil:
    """Under the lock, which also keeps others from believing in a packet that could not be posted: False then."""
    if not worker.inbox.posted:
        worker.inbox.posted = port_wake(worker)
    return worker.inbox.posted


cdef inline bint inbox_wake(Worker *worker) noexcept nogil:
    """Any thread: there is something to look at that is no message. False: not woken, for want of memory."""
    cdef bint woken
    AcquireSRWLockExclusive(&worker.inbox.lock)
    woken = wake(worker)
    ReleaseSRWLockExclusive(&worker.inbox.lock)
    return woken


cdef inline void append(Inbox *inbox, Message *message, uint64_t now) noexcept nogil:
    message.next = NULL
    if inbox.head == NULL:
        inbox.head = message
        inbox.since = now
        InterlockedExchange(&inbox.waiting, 1)
    else:
        inbox.tail.next = message
    inbox.tail = message
    inbox.items += 1
    if message.buffer != NULL:      # it is a send
        inbox.bytes += message.buffer.length
        message.link.last_send = message
        message.link.last_take = inbox.takes
    see_backlog(inbox, now)


cdef inline void see_backlog(Inbox *inbox, uint64_t now) noexcept nogil:
    """Does more wait than should, or for longer? Said once, until the worker has come."""
    if inbox.items <= BACKLOG_ITEMS and inbox.bytes <= BACKLOG_BYTES and now < inbox.since + BACKLOG_TIME:
        return
    InterlockedCompareExchange(&inbox.overdue, OVERDUE, NOT_OVERDUE)    # who has told of it does so without the lock


cdef inline bint inbox_put(Worker *worker, Message *message) noexcept nogil:
    """False if the worker has ended, or cannot be woken: then the message is still the caller's."""
    cdef Inbox *inbox = &worker.inbox
    cdef uint64_t now = iocp_now(worker.port)
    cdef bint taken
    AcquireSRWLockExclusive(&inbox.lock)
    taken = not inbox.closed and wake(worker)
    if taken:
        append(inbox, message, now)    # the worker, awake already or not, looks under the lock
    ReleaseSRWLockExclusive(&inbox.lock)
    return taken


cdef inline bint inbox_join(Worker *worker, Link *link, const char *data, size_t length, size_t *room) noexcept nogil:
    """Append a small send to the session's last one, if that still waits and has room.

    False: it needs a message of its own, with a buffer of `room` bytes: from 1 to 16 KiB, twice that of the one before.
    """
    cdef Inbox *inbox = &worker.inbox
    cdef Buffer *buffer
    cdef bint taken = False
    room[0] = COPY_SIZE
    if iocp_read32(&inbox.waiting) == 0:    # nothing to join; with the GIL, as inbox_is_empty() asks
        return False
    AcquireSRWLockExclusive(&inbox.lock)
    if link.last_send != NULL and link.last_take == inbox.takes and not inbox.closed:
        buffer = link.last_send.buffer
        taken = buffer_has_room(buffer, length)
        if taken:
            buffer_append(buffer, data, length)
            inbox.bytes += length
            see_backlog(inbox, iocp_now(worker.port))
        elif buffer.kind == COPIED and <size_t> (buffer.end - buffer.data) <= RECEIVE_SIZE:
            room[0] = min(2 * <size_t> (buffer.end - buffer.data), <size_t> RECEIVE_SIZE)
    ReleaseSRWLockExclusive(&inbox.lock)
    return taken


cdef inline bint inbox_ask_to_close(Worker *worker, uint64_t drain) noexcept nogil:
    """Close within so many nanoseconds; if that was asked before, the earlier deadline counts. False: not woken."""
    cdef Inbox *inbox = &worker.inbox
    cdef uint64_t by = iocp_now(worker.port) + drain
    cdef bint woken
    AcquireSRWLockExclusive(&inbox.lock)
    if inbox.close_by == 0 or by < inbox.close_by:
        inbox.close_by = by
    woken = wake(worker)
    ReleaseSRWLockExclusive(&inbox.lock)
    return woken


cdef inline Message *inbox_take(Worker *worker, uint64_t *close_by, LONG *overdue) noexcept nogil:
    """All that is in it, in order; when to close, or 0; and whether it was overdue, by enum Overdue.

    Whoever puts something in from now on posts a packet.
    """
    cdef Inbox *inbox = &worker.inbox
    cdef Message *messages
    AcquireSRWLockExclusive(&inbox.lock)
    messages = inbox.head
    if messages != NULL:
        see_backlog(inbox, worker.now)
    inbox.head = NULL
    inbox.items = inbox.bytes = 0
    inbox.takes += 1
    InterlockedExchange(&inbox.waiting, 0)
    overdue[0] = InterlockedExchange(&inbox.overdue, NOT_OVERDUE)
    inbox.posted = 0
    close_by[0] = inbox.close_by
    ReleaseSRWLockExclusive(&inbox.lock)
    return messages


cdef inline bint inbox_is_empty(Worker *worker) noexcept nogil:
    """The worker itself asks: has everything that others have put in been done?

    With the GIL, and so did they put it in, as far as order matters to anybody: no lock is needed to see that.
    """
    return iocp_read32(&worker.inbox.waiting) == 0


cdef inline bint inbox_shut(Worker *worker, bint when_empty) noexcept nogil:
    """inbox_put() fails from now on: the worker ends. When empty: if something is in it, it stays open, and False."""
    cdef Inbox *inbox = &worker.inbox
    cdef bint closed
    AcquireSRWLockExclusive(&inbox.lock)
    if inbox.head == NULL or not when_empty:
        inbox.closed = 1
    closed = inbox.closed
    ReleaseSRWLockExclusive(&inbox.lock)
    return closed


cdef inline bint inbox_is_shut(Worker *worker) noexcept nogil:
    """Any thread: why inbox_put() has failed; if not so, the worker could not be woken."""
    cdef bint closed
    AcquireSRWLockExclusive(&worker.inbox.lock)
    closed = worker.inbox.closed
    ReleaseSRWLockExclusive(&worker.inbox.lock)
    return closed


cdef inline void run_inbox(Worker *worker) noexcept nogil:
    cdef uint64_t close_by
    cdef LONG overdue
    cdef Message *message = inbox_take(worker, &close_by, &overdue)
    cdef Message *after
    if overdue:
        worker.stats.backlogs += 1
        if overdue == OVERDUE:
            report_trouble(worker, TROUBLE_INBOX, 0)
    while message != NULL:
        after = message.next
        if message.run(worker, message):
            message_free(message)
        message = after
    if close_by != 0:
        worker.close(worker, close_by)
