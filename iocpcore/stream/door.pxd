# The door through which a handler gets what a session has received.
#
# What the kernel fills, session.posted, and what the handler has not taken, session.inbound, are two chains: a part of
# a message may wait in the one while the next receive fills the other.
# Ownership: input_take() gives the chain to the caller. What was only read stays the session's: input_consumed()
# keeps one of its buffers for the next receive.
# Threads: the session's worker.
from iocp cimport unlikely
from buffer cimport chain_cut, chain_length, chain_release
from structs cimport Buffer, Session, Worker

cdef inline Buffer *input_take(Session *session) noexcept nogil:
    """All that has come: a chain that is the caller's."""
    cdef Buffer *inbound = session.inbound
    session.inbound = NULL
    return inbound


cdef inline void input_consumed(Worker *worker, Session *session) noexcept nogil:
    """All that has come was read."""
    cdef Buffer *inbound = input_take(session)
    if session.posted != NULL:
        chain_release(worker, inbound)
        return
    session.posted = inbound
    if unlikely(inbound.next != NULL):
        chain_cut(worker, inbound)


cdef inline void input_discard(Worker *worker, Session *session) noexcept nogil:
    """What has come will not be told."""
    worker.stats.bytes_discarded += chain_length(session.inbound)
    input_consumed(worker, session)
