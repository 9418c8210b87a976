# The two doors between a handler and its session: session_write() for output, input_take() for input.
#
# The user's bytes go through them. A layer, if the session has one, stands behind both and puts other bytes on
# the wire. The kernel fills one chain, session.posted; input that the handler has not taken is another,
# session.inbound: a part of a message may wait there while the next receive is posted.
# Ownership: a buffer that is written is the session's from then on. input_take() gives the chain to the caller. Input
# that was only read stays the session's: input_consumed() keeps one of its buffers for the next receive.
# Threads: the session's worker.
from iocp cimport unlikely
from buffer cimport buffer_append, buffer_copy_here, buffer_take, chain_cut, chain_length, chain_release
from link cimport link_count_received
from queue cimport enqueue, enqueue_bytes, enqueue_merged
from structs cimport RECEIVED_DATA, RECEIVED_END, RECEIVED_ERROR, Buffer, Received, Session, Worker


# ---- out ----

cdef inline bint session_write(Worker *worker, Session *session, Buffer *chain) noexcept nogil:
    """Send the bytes of these buffers. False: no memory; a part may have been queued, the rest is released."""
    if unlikely(session.layer != NULL):
        return session.layer.write(worker, session, chain)
    enqueue(worker, session, chain)
    return True


cdef inline bint session_write_merged(Worker *worker, Session *session, Buffer *buffer) noexcept nogil:
    """As session_write(), for one buffer; its bytes may be appended to the last buffer of the queue."""
    if unlikely(session.layer != NULL):
        return session.layer.write(worker, session, buffer)
    enqueue_merged(worker, session, buffer)
    return True


cdef inline bint session_write_copy(Worker *worker, Session *session, const char *data, size_t length) noexcept nogil:
    """Send a copy. False: no memory, and nothing is queued."""
    cdef Buffer *buffer
    if unlikely(session.layer != NULL):
        buffer = buffer_copy_here(worker, data, length)
        return buffer != NULL and session.layer.write(worker, session, buffer)
    return enqueue_bytes(worker, session, data, length)


# ---- in ----

cdef inline Received read_through(Worker *worker, Session *session, Received received) noexcept nogil:
    """The result of a receive, once the layer has read what came."""
    cdef Buffer *wire = session.posted
    if received == RECEIVED_DATA:
        session.posted = NULL
        return session.layer.read(worker, session, wire)
    if received == RECEIVED_END and not session.layer.ended(worker, session):
        return RECEIVED_ERROR
    return received


cdef inline void input_append(Session *session, Buffer *buffer) noexcept nogil:
    """The chain goes behind what the handler has not taken yet."""
    cdef Buffer **at = &session.inbound
    while unlikely(at[0] != NULL):
        at = &at[0].next
    at[0] = buffer


cdef inline void input_give(Session *session, Buffer *buffer) noexcept nogil:
    """For a layer: append a chain of the user's bytes, in pooled buffers, to the session's input."""
    input_append(session, buffer)
    if session.link != NULL:
        link_count_received(session.link, chain_length(buffer))


cdef inline Buffer *input_take(Session *session) noexcept nogil:
    """Take the whole input: a chain that is now the caller's."""
    cdef Buffer *inbound = session.inbound
    session.inbound = NULL
    return inbound


cdef inline Buffer *input_take_bytes(Worker *worker, Session *session, size_t bytes) noexcept nogil:
    """Take the first bytes of the input: a chain that is now the caller's. NULL: too few have come, or no memory."""
    cdef Buffer *first = session.inbound
    cdef Buffer *last = first
    cdef Buffer *rest
    if bytes == 0 or chain_length(first) < bytes:
        return NULL
    while last.length < bytes:
        bytes -= last.length
        last = last.next
    rest = last.next
    if last.length > bytes:
        rest = buffer_take(worker)
        if rest == NULL:
            return NULL
        buffer_append(rest, last.data + bytes, last.length - bytes)
        rest.next = last.next
        last.length = bytes
    last.next = NULL
    session.inbound = rest
    return first


cdef inline void input_consumed(Worker *worker, Session *session) noexcept nogil:
    """The whole input was read: keep one buffer for the next receive, release the rest."""
    cdef Buffer *inbound = input_take(session)
    if unlikely(session.posted != NULL or session.layer != NULL):    # a layer's buffers may begin anywhere
        chain_release(worker, inbound)
        return
    session.posted = inbound
    if unlikely(inbound.next != NULL):
        chain_cut(worker, inbound)


cdef inline void input_discard(Worker *worker, Session *session) noexcept nogil:
    """Drop the whole input, and count it as discarded."""
    worker.stats.bytes_discarded += chain_length(session.inbound)
    input_consumed(worker, session)
