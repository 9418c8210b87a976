# A handler as handler_init() makes it: it discards what it receives (DISCARD), and has the default settings.
#
# The other files here are other handlers: each has an init that sets its own functions in handler.ops.
# Ownership: a handler outlives the sessions that refer to it.
# Threads: the session's worker; handler_init() any.
from door cimport input_consumed, input_discard
from structs cimport Handler, Session, Worker
from tuning cimport HIGH_WATER_DEFAULT, LINGER_DEFAULT, LOW_WATER_DEFAULT, RECEIVE_DEFAULT, SEND_LIMIT_DEFAULT

cdef inline bint nothing_opened(Worker *_worker, Session *_session) noexcept nogil:
    return True


cdef inline bint forget_data(Worker *worker, Session *session) noexcept nogil:
    input_consumed(worker, session)
    return True


cdef inline void nothing_closed(Worker *_worker, Session *_session) noexcept nogil:
    pass


cdef inline void nothing_refused(Worker *_worker, Handler *_handler, int _error) noexcept nogil:
    pass


cdef inline void handler_init(Handler *handler) noexcept nogil:
    handler.ops.opened = nothing_opened
    handler.ops.data = forget_data
    handler.ops.discarded = input_discard
    handler.ops.closed = nothing_closed
    handler.ops.refused = nothing_refused
    handler.settings.linger = LINGER_DEFAULT
    handler.settings.high_water = HIGH_WATER_DEFAULT
    handler.settings.low_water = LOW_WATER_DEFAULT
    handler.settings.send_limit = SEND_LIMIT_DEFAULT
    handler.settings.receive_size = RECEIVE_DEFAULT
    handler.settings.no_delay = True
