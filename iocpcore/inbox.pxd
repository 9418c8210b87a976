# The inbox: the only door into a worker from other threads. An item in a queue, and one posted packet that says "look".
#
# Ownership: inbox_put() takes the item if it succeeds; the worker frees it.
# Threads: inbox_put() any; inbox_take() and inbox_shut() the worker. The lock is a leaf.
from libc.stdlib cimport calloc, free
from iocp cimport AcquireSRWLockExclusive, ReleaseSRWLockExclusive, closesocket
from operation cimport DO_ADOPT, Inbox, InboxItem, Worker
from port cimport port_wake


cdef inline InboxItem *inbox_item(unsigned char kind) noexcept nogil:
    """A new item, or NULL without memory."""
    cdef InboxItem *item = <InboxItem *> calloc(1, sizeof(InboxItem))
    if item != NULL:
        item.kind = kind
    return item


cdef inline bint inbox_put(Worker *worker, InboxItem *item) noexcept nogil:
    """False if the worker takes nothing any more: then the item is still the caller's."""
    cdef Inbox *inbox = &worker.inbox
    cdef bint wake = False
    AcquireSRWLockExclusive(&inbox.lock)
    if inbox.closed:
        ReleaseSRWLockExclusive(&inbox.lock)
        return False
    item.next = NULL
    if inbox.head == NULL:
        inbox.head = item
    else:
        inbox.tail.next = item
    inbox.tail = item
    if not inbox.posted:
        inbox.posted = 1
        wake = True
    ReleaseSRWLockExclusive(&inbox.lock)
    if wake:
        port_wake(worker)
    return True


cdef inline InboxItem *inbox_take(Worker *worker) noexcept nogil:
    """All that is in it, in order; whoever puts something in from now on posts a packet."""
    cdef Inbox *inbox = &worker.inbox
    cdef InboxItem *items
    AcquireSRWLockExclusive(&inbox.lock)
    items = inbox.head
    inbox.head = NULL
    inbox.posted = 0
    ReleaseSRWLockExclusive(&inbox.lock)
    return items


cdef inline void inbox_free(Worker *worker) noexcept nogil:
    """Of a worker that never ran, or was left behind: nobody else will look."""
    cdef InboxItem *item = inbox_take(worker)
    cdef InboxItem *after
    while item != NULL:
        after = item.next
        if item.kind == DO_ADOPT:
            closesocket(item.socket)
        free(item)
        item = after


cdef inline void inbox_shut(Worker *worker) noexcept nogil:
    """From now on inbox_put() fails. What came before is still to be taken."""
    AcquireSRWLockExclusive(&worker.inbox.lock)
    worker.inbox.closed = 1
    ReleaseSRWLockExclusive(&worker.inbox.lock)
