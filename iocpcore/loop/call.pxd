# Calls into Python: what is due to be told to whom, in which order, and the GIL once for all of it.
#
# A packet's step notes in its session what is due, and puts the session in the worker's list; when the whole batch has
# been handled, or what it brought so far is much, the worker attaches once and the list is run. What those calls want
# done is done after detaching.
# Ownership: being in the list holds the session. The worker owns the inbox items in its list, with their references.
# Threads: the worker's own.
from operation cimport InboxItem, Session, Worker
from session cimport session_hold
from warn cimport warnings_are_due


cdef inline void call(Worker *worker, Session *session, unsigned char what) noexcept nogil:
    """That is due: bits of enum Call."""
    session.calls |= what
    if session.calling:
        return
    session_hold(session)
    session.calling = 1
    session.next_call = NULL
    if worker.calls_head == NULL:
        worker.calls_head = session
    else:
        worker.calls_tail.next_call = session
    worker.calls_tail = session


cdef inline void call_with_item(Worker *worker, InboxItem *item) noexcept nogil:
    """Python is to be told what the item says; the worker's from now on."""
    item.next = NULL
    if worker.python_head == NULL:
        worker.python_head = item
    else:
        worker.python_tail.next = item
    worker.python_tail = item


cdef inline bint calls_are_due(Worker *worker) noexcept nogil:
    return (worker.calls_head != NULL or worker.python_head != NULL or worker.unpinned != NULL
            or warnings_are_due(worker))
