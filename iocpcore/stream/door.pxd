# The two doors between a handler and its session: session_write() for what it sends, input_take() for what has come.
#
# Through them go the user's bytes. Those of the wire differ where the session has a layer, which stands behind both.
# What the kernel fills, session.posted, and what the handler has not taken, session.inbound, are two chains: a part of
# a message may wait in the one while the next receive fills the other.
# Ownership: what is written is the session's from then on. input_take() gives the chain to the caller. What was only
# read stays the session's: input_consumed() keeps one of its buffers for the next receive.
# Threads: the session's worker.
from iocp cimport unlikely
from buffer cimport chain_cut, chain_length, chain_release
from link cimport link_count_received
from queue cimport enqueue_bytes, enqueue_chain
from structs cimport RECEIVED_DATA, RECEIVED_END, RECEIVED_ERROR, Buffer, Received, Session, Worker


# ---- out ----

cdef inline bint session_write(Worker *worker, Session *session, Buffer *buffer) noexcept nogil:
    """Send a chain of buffers. False: no memory; a part of the chain may have been queued, all of it is released."""
    if unlikely(session.layer != NULL):
        return write_through(worker, session, buffer)
    enqueue_chain(worker, session, buffer)
    return True


cdef inline bint session_write_copy(Worker *worker, Session *session, const char *data, size_t length) noexcept nogil:
    """Send a copy. False: no memory, and nothing has happened."""
    if unlikely(session.layer != NULL):
        return session.layer.write(worker, session, data, length)
    return enqueue_bytes(worker, session, data, length)


cdef inline bint write_through(Worker *worker, Session *session, Buffer *buffer) noexcept nogil:
    """As session_write(), where there is a layer."""
    cdef Buffer *first = buffer
    cdef bint taken = True
    while buffer != NULL and taken:
        taken = session.layer.write(worker, session, buffer.data, buffer.length)
        buffer = buffer.next
    chain_release(worker, first)
    return taken


# ---- in ----

cdef inline Received input_arrived(Worker *worker, Session *session, size_t bytes) noexcept nogil:
    """So many bytes from the wire are in session.inbound; what there is for the handler, and where it is: there."""
    cdef Received received = RECEIVED_DATA
    if unlikely(session.layer != NULL):
        received = session.layer.read(worker, session)
        bytes = chain_length(session.inbound)
    if session.link != NULL:
        link_count_received(session.link, bytes)
    return received


cdef inline Received input_ended(Worker *worker, Session *session) noexcept nogil:
    """The peer sends no more. A layer may find that this is no end, but a connection that was cut off."""
    if unlikely(session.layer != NULL) and not session.layer.ended(worker, session):
        return RECEIVED_ERROR
    return RECEIVED_END


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
