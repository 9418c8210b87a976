# The send queue of a session: buffers to be sent, in order, and how many of their bytes are the user's.
#
# A buffer's bytes are the user's, except for `extra` bytes that a layer has added. When a part of a buffer has gone,
# the layer's bytes count as gone first: so the user's bytes never count as sent too early, and all of them count once
# the whole buffer has gone.
# Ownership: queued buffers belong to the session. Those that a send in flight refers to stay at the queue's head,
# unchanged, until its packet; bytes that are appended to the last buffer are written behind them.
# Threads: the session's worker.
from iocp cimport InterlockedExchange, iocp_read32, iocp_read64, unlikely
from buffer cimport buffer_append, buffer_copy_here, buffer_has_room, buffer_release
from fifo cimport fifo_put_buffers
from link cimport link_count_sent, link_queued
from structs cimport COPIED, Buffer, Link, Session, Worker
from tuning cimport SEND_GATHER


cdef inline void enqueue(Worker *worker, Session *session, Buffer *first) noexcept nogil:
    """Append a chain, which the queue owns from now on. No buffer of it is empty: that would be a send of no bytes."""
    cdef Buffer *last = first
    cdef size_t bytes = first.length
    cdef unsigned int count = 1
    while unlikely(last.next != NULL):
        last = last.next
        bytes += last.length
        count += 1
    fifo_put_buffers(&session.queue, first, last)
    session.queue_buffers += count
    session.queue_bytes += bytes
    worker.stats.bytes_queued += bytes


cdef inline bint append_bytes(Worker *worker, Session *session, const char *data, size_t length) noexcept nogil:
    """Append the bytes to the last buffer, if that has room: so a hundred small sends are one WSABUF."""
    if session.queue.head == NULL or not buffer_has_room(session.queue.tail, length):
        return False
    buffer_append(session.queue.tail, data, length)
    session.queue_bytes += length
    worker.stats.bytes_queued += length
    return True


cdef inline void enqueue_merged(Worker *worker, Session *session, Buffer *buffer) noexcept nogil:
    """As enqueue(), for one buffer. A copy's bytes are appended to the last buffer instead, if that has room."""
    if buffer.kind == COPIED and append_bytes(worker, session, buffer.data, buffer.length):
        buffer_release(worker, buffer)
    else:
        enqueue(worker, session, buffer)


cdef inline bint enqueue_bytes(Worker *worker, Session *session, const char *data, size_t length) noexcept nogil:
    """Append a copy; False without memory."""
    cdef Buffer *buffer
    if append_bytes(worker, session, data, length):
        return True
    buffer = buffer_copy_here(worker, data, length)
    if buffer == NULL:
        return False
    enqueue(worker, session, buffer)
    return True


cdef inline void enqueue_sealed(Worker *worker, Session *session, Buffer *buffer, unsigned int extra) noexcept nogil:
    """As enqueue(), for a layer that has added `extra` of the buffer's bytes."""
    buffer.extra = extra
    session.queue_extra += extra
    enqueue(worker, session, buffer)


cdef inline size_t queue_unsent(Session *session) noexcept nogil:
    """How many of the user's bytes are queued."""
    return session.queue_bytes - session.queue_extra


cdef inline bint queue_above_water(Session *session) noexcept nogil:
    """Too many bytes, or too many buffers? A peer that sends single bytes would fill memory with nearly empty ones."""
    return queue_unsent(session) >= session.handler.settings.high_water or session.queue_buffers >= SEND_GATHER


cdef inline bint queue_drained(Session *session) noexcept nogil:
    """Has the queue drained so far that a sender which was told to wait may go on? True once for each such wait."""
    cdef Link *link = session.link
    if not iocp_read32(&link.above):
        return False
    if link_queued(link) > <size_t> iocp_read64(&link.low_water):
        return False
    InterlockedExchange(&link.above, 0)
    return True


cdef inline size_t take_extra(Buffer *buffer, size_t bytes) noexcept nogil:
    """Count `bytes` of the buffer as gone; returns how many of these a layer has added."""
    cdef size_t extra = min(bytes, <size_t> buffer.extra)
    buffer.extra -= <unsigned int> extra
    return extra


cdef inline size_t drop_front(Worker *worker, Session *session, size_t bytes) noexcept nogil:
    """Take `bytes` off the queue's front; returns how many of these a layer has added."""
    cdef Buffer *buffer
    cdef size_t step, extra = 0
    while bytes > 0:
        buffer = session.queue.head
        step = min(buffer.length, bytes)
        bytes -= step
        if unlikely(buffer.extra != 0):
            extra += take_extra(buffer, step)
        if step < buffer.length:
            buffer.data += step
            buffer.length -= step
            break
        session.queue.head = buffer.next
        session.queue_buffers -= 1
        buffer_release(worker, buffer)
    return extra


cdef inline void consume(Worker *worker, Session *session, size_t bytes) noexcept nogil:
    """Take the first `bytes` off the queue, and count them as sent."""
    cdef size_t extra = drop_front(worker, session, bytes)
    session.queue_bytes -= bytes
    session.queue_extra -= extra
    if bytes > 0:
        session.sent_at = worker.now
        if session.link != NULL:
            link_count_sent(session.link, bytes - extra)
    worker.stats.bytes_queued -= bytes
    worker.stats.bytes_sent += bytes


cdef inline void queue_free(Worker *worker, Session *session) noexcept nogil:
    """Release the queue. What is left in it counts as unsent."""
    cdef Buffer *buffer
    worker.stats.bytes_unsent += queue_unsent(session)
    worker.stats.bytes_queued -= session.queue_bytes
    while session.queue.head != NULL:
        buffer = session.queue.head
        session.queue.head = buffer.next
        buffer_release(worker, buffer)
    session.queue_buffers = 0
    session.queue_bytes = session.queue_extra = 0
