# A handler in Python: notes which callbacks are due.
#
# Ownership: received buffers stay in session.inbound until on_receive has been given their bytes.
# Threads: the session's worker.
from call cimport schedule_call
from discard cimport handler_init
from structs cimport CALL_CONNECT, CALL_RECEIVE, Handler, Session, Worker

cdef inline bint python_opened(Worker *worker, Session *session) noexcept nogil:
    schedule_call(worker, &session.item, CALL_CONNECT)
    return True


cdef inline bint python_data(Worker *worker, Session *session) noexcept nogil:
    schedule_call(worker, &session.item, CALL_RECEIVE)
    return True


cdef inline void python_init(Handler *handler) noexcept nogil:
    handler_init(handler)
    handler.wants_names = True
    handler.ops.opened = python_opened
    handler.ops.data = python_data
