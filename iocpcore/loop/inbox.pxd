# The inbox: the only way for other threads to reach a worker. It is a queue of messages; one posted packet makes the
# worker look at it.
#
# Small sends of one session share a message: the second is appended to the first as long as the worker has not taken
# it. It overtakes the messages put in between, but with no visible effect: those are about other sessions, or do not
# end the session's sending.
#
# A request to close is not a message but a deadline beside the queue, so that it needs no memory. A closing worker goes
# on taking messages, because its sessions may still have something to send. It shuts the inbox when it ends.
# Ownership: inbox_put() takes the message over if it succeeds; the worker frees it. A message holds its listener.
# Threads: any thread may put, join, wake, ask to close, and ask whether the inbox is shut; all else is the worker's.
# As long as the inbox is open its worker's port is, too; both change, and are used, under the lock. Else only a small
# send is copied under it. A thread that finds `posted` set posts no packet, so it must be able to rely on the one that
# another thread has posted.
from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free
from iocp cimport (
    INVALID_SOCKET, LONG, AcquireSRWLockExclusive, InterlockedCompareExchange, InterlockedDecrement,
    InterlockedExchange, InterlockedIncrement, ReleaseSRWLockExclusive, iocp_now, iocp_read32)
from buffer cimport buffer_append, buffer_has_room
from fifo cimport fifo_put_message
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
    """Its Python object and its buffer are not freed: they have been handed on."""
    if message.listener != NULL:
        InterlockedDecrement(&message.listener.holds)
    if message.link != NULL:
        link_drop(message.link)
    free(message.address)
    free(message)


cdef inline bint wake(Worker *worker) noexcept nogil:
    """Under the lock: post the packet, unless one is on its way. False without memory for it."""
    if not worker.inbox.posted:
        worker.inbox.posted = port_wake(worker)
    return worker.inbox.posted


cdef inline bint inbox_wake(Worker *worker) noexcept nogil:
    """Any thread: make the worker look at something that is no message. False without memory for the packet."""
    cdef bint woken
    AcquireSRWLockExclusive(&worker.inbox.lock)
    woken = worker.inbox.closed or wake(worker)     # one that is shut has no port any more, and nobody to wake
    ReleaseSRWLockExclusive(&worker.inbox.lock)
    return woken


cdef inline void append(Inbox *inbox, Message *message, uint64_t now) noexcept nogil:
    if inbox.messages.head == NULL:
        inbox.since = now
        InterlockedExchange(&inbox.waiting, 1)
    fifo_put_message(&inbox.messages, message)
    inbox.items += 1
    if message.buffer != NULL:      # it is a send
        inbox.bytes += message.buffer.length
        message.link.last_send = message
        message.link.last_take = inbox.takes
    see_backlog(inbox, now)


cdef inline void see_backlog(Inbox *inbox, uint64_t now) noexcept nogil:
    """Mark the inbox as overdue if too much waits in it, or for too long. The worker clears the mark when it comes."""
    if inbox.items <= BACKLOG_ITEMS and inbox.bytes <= BACKLOG_BYTES and now < inbox.since + BACKLOG_TIME:
        return
    InterlockedCompareExchange(&inbox.overdue, OVERDUE, NOT_OVERDUE)    # OVERDUE_TOLD is set without the lock


cdef inline bint inbox_put(Worker *worker, Message *message) noexcept nogil:
    """False if the worker has ended, or cannot be woken: then the message is still the caller's."""
    cdef Inbox *inbox = &worker.inbox
    cdef bint taken
    AcquireSRWLockExclusive(&inbox.lock)
    taken = not inbox.closed and wake(worker)
    if taken:
        append(inbox, message, iocp_now(worker.port))   # the worker looks under the lock, even if it is awake already
    ReleaseSRWLockExclusive(&inbox.lock)
    return taken


cdef inline bint inbox_join(Worker *worker, Link *link, const char *data, size_t length, size_t *room) noexcept nogil:
    """Append a small send to the session's last one, if that still waits and has room.

    False: it needs a message of its own, with a buffer of `room` bytes: COPY_SIZE, or twice the buffer that was full,
    up to RECEIVE_SIZE.
    """
    cdef Inbox *inbox = &worker.inbox
    cdef Buffer *buffer
    cdef bint taken = False
    room[0] = COPY_SIZE
    if iocp_read32(&inbox.waiting) == 0:    # nothing to join; no lock: see inbox_is_empty()
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
    """Any thread: close within `drain` nanoseconds; the earliest of several deadlines counts. False: not woken.

    Nothing if the worker has ended, or is about to.
    """
    cdef Inbox *inbox = &worker.inbox
    cdef uint64_t by
    cdef bint woken = True
    AcquireSRWLockExclusive(&inbox.lock)
    if not inbox.closed:
        by = iocp_now(worker.port) + drain
        if inbox.close_by == 0 or by < inbox.close_by:
            inbox.close_by = by
        woken = wake(worker)
    ReleaseSRWLockExclusive(&inbox.lock)
    return woken


cdef inline Message *inbox_take(Worker *worker, uint64_t *close_by, LONG *overdue) noexcept nogil:
    """Take all messages, in order. Also tells when to close, or 0, and whether the inbox was overdue (enum Overdue).

    The next thread that puts a message in posts a packet again.
    """
    cdef Inbox *inbox = &worker.inbox
    cdef Message *messages
    AcquireSRWLockExclusive(&inbox.lock)
    messages = inbox.messages.head
    if messages != NULL:
        see_backlog(inbox, worker.now)
    inbox.messages.head = NULL
    inbox.items = inbox.bytes = 0
    inbox.takes += 1
    InterlockedExchange(&inbox.waiting, 0)
    overdue[0] = InterlockedExchange(&inbox.overdue, NOT_OVERDUE)
    inbox.posted = 0
    close_by[0] = inbox.close_by
    ReleaseSRWLockExclusive(&inbox.lock)
    return messages


cdef inline bint inbox_is_empty(Worker *worker) noexcept nogil:
    """The worker asks, with the GIL: has it taken everything that other threads have put in?

    It needs no lock: where order matters, the other thread has put its message in with the GIL too.
    """
    return iocp_read32(&worker.inbox.waiting) == 0


cdef inline bint inbox_shut(Worker *worker, bint when_empty) noexcept nogil:
    """The worker ends: inbox_put() fails from now on. With `when_empty` an inbox with messages stays open: False."""
    cdef Inbox *inbox = &worker.inbox
    cdef bint closed
    AcquireSRWLockExclusive(&inbox.lock)
    if inbox.messages.head == NULL or not when_empty:
        inbox.closed = 1
    closed = inbox.closed
    ReleaseSRWLockExclusive(&inbox.lock)
    return closed


cdef inline bint inbox_is_shut(Worker *worker) noexcept nogil:
    """Any thread, after inbox_put() has failed: is that because the worker ends? Else it could not be woken."""
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
