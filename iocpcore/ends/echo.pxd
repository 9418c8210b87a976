# ECHO: sends back what it receives.
#
# Ownership: the received buffers move to the send queue, without a copy.
# Threads: the session's worker.
from iocp cimport unlikely
from door cimport input_take
from handler cimport handler_init
from send cimport enqueue, enqueue_chain
from structs cimport Buffer, Handler, Session, Worker

cdef inline bint echo_data(Worker *worker, Session *session) noexcept nogil:
    cdef Buffer *input = input_take(session)
    if unlikely(input.next != NULL):
        enqueue_chain(worker, session, input)
    else:
        enqueue(worker, session, input)
    return True


cdef inline void echo_init(Handler *handler) noexcept nogil:
    """An echo whose peer does not read must stop receiving, or its queue would grow without bound."""
    handler_init(handler)
    handler.ops.data = echo_data
    handler.ops.throttled = True
