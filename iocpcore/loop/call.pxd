# Calls into Python: which callbacks are due, in which order, and the GIL taken once for all of them.
#
# A packet's step notes in its item which callbacks are due, and puts the item in the worker's list. When the batch has
# been handled, or has brought much data already, the worker attaches once and runs the list. Sends and other requests
# of the callbacks start after it has detached, except a large send, which starts before the next callback.
# Ownership: the list holds its items. The worker owns the messages in its list, with their references.
# Threads: the worker's own.
from libc.stdint cimport uint64_t
from iocp cimport iocp_now
from fifo cimport fifo_put_call, fifo_put_message
from inbox cimport run_inbox
from item cimport item_drop, item_hold
from structs cimport Item, Message, Worker
from tuning cimport GIL_TIME, MUCH
from warn cimport warnings_are_due


cdef inline void schedule_call(Worker *worker, Item *item, unsigned char what) noexcept nogil:
    """Note which callbacks are due, as bits of enum Call, and put the item in the list."""
    item.calls |= what
    if item.calling:
        return
    item_hold(item)
    item.calling = 1
    fifo_put_call(&worker.calls, item)


cdef inline void schedule_message(Worker *worker, Message *message) noexcept nogil:
    """The message is to be handled with the GIL. The worker owns it from now on."""
    fifo_put_message(&worker.python, message)


cdef inline bint calls_are_due(Worker *worker) noexcept nogil:
    return (worker.calls.head != NULL or worker.python.head != NULL or worker.unpinned != NULL
            or warnings_are_due(worker))


cdef inline void run_calls(Worker *worker) noexcept nogil:
    """Attach, run all that is due, detach; then start the sends and other requests of the callbacks."""
    cdef uint64_t began
    cdef Item *item = worker.calls.head
    cdef Item *after
    worker.told = worker.stats.bytes_received
    if worker.abandoned or not calls_are_due(worker):
        return
    began = iocp_now(worker.port)
    worker.calls.head = NULL
    worker.attach(worker, item)
    if worker.abandoned:
        return
    worker.now = iocp_now(worker.port)
    worker.gil_wait = worker.attached_at - began
    worker.stats.attaches += 1
    worker.stats.callback_time += worker.now - began
    run_inbox(worker)   # sends that callbacks put in the inbox, behind older ones, go before the peer's end is acted on
    while item != NULL:
        after = item.next_call
        item.calling = 0
        item_drop(item)
        item.ops.told(worker, item)
        item = after


cdef inline bint much_to_tell(Worker *worker) noexcept nogil:
    """Should callbacks run now, while the cache has their data? Not if the last wait for the GIL was long."""
    if worker.calls.head == NULL:
        return False
    return worker.stats.bytes_received - worker.told >= MUCH and worker.gil_wait < GIL_TIME


cdef inline bint do_call(Worker *worker, Message *message) noexcept nogil:
    """A function that Proactor.post() was given."""
    schedule_message(worker, message)
    return False
