# ECHO: sends back what it receives.
#
# Ownership: the received buffers move to the send queue, without a copy.
# Threads: the session's worker.
from door cimport input_take, session_write
from discard cimport handler_init
from structs cimport Handler, Session, Worker

cdef inline bint echo_data(Worker *worker, Session *session) noexcept nogil:
    return session_write(worker, session, input_take(session))


cdef inline void echo_init(Handler *handler) noexcept nogil:
    """An echo whose peer does not read must stop receiving, or its queue would grow without bound."""
    handler_init(handler)
    handler.ops.data = echo_data
    handler.ops.throttled = True
