# The send queue of a session: what is to go out, in order, and how much of it is the user's.
#
# A buffer's bytes are the user's, but for `extra`: those a layer has added. Of a buffer that has gone in part these
# count as gone first: so the user's bytes never count as sent too early, and are all counted when it has gone.
# Ownership: queued buffers belong to the session. Those that a send in flight refers to stay at the queue's head,
# unchanged, until its packet; what joins the last buffer is written behind them.
# Threads: the session's worker.
from iocp cimport InterlockedExchange, iocp_read32, iocp_read64, unlikely
from buffer cimport buffer_append, buffer_copy_here, buffer_has_room, buffer_release
from fifo cimport fifo_put_buffers
from link cimport link_count_sent, link_queued
from structs cimport COPIED, Buffer, Link, Session, Worker
from tuning cimport SEND_GATHER


cdef inline void enqueue(Worker *worker, Session *session, Buffer *first) noexcept nogil:
    """The queue owns the chain from now on. None of it is empty: that would be a send that says nothing."""
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
    """Copy them behind the last buffer's, if it has room: so a hundred small sends are one WSABUF."""
    if session.queue.head == NULL or not buffer_has_room(session.queue.tail, length):
        return False
    buffer_append(session.queue.tail, data, length)
    session.queue_bytes += length
    worker.stats.bytes_queued += length
    return True


cdef inline void enqueue_merged(Worker *worker, Session *session, Buffer *buffer) noexcept nogil:
    """As enqueue(), of one buffer; a small copy is not queued itself, but joins the bytes before it."""
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
    """As enqueue(), for a layer: so many of these bytes are its own."""
    buffer.extra = extra
    session.queue_extra += extra
    enqueue(worker, session, buffer)


cdef inline size_t queue_unsent(Session *session) noexcept nogil:
    """The user's bytes."""
    return session.queue_bytes - session.queue_extra


cdef inline bint queue_above_water(Session *session) noexcept nogil:
    """Buffers count too: a peer that sends single bytes would fill memory with nearly empty ones."""
    return queue_unsent(session) >= session.handler.settings.high_water or session.queue_buffers >= SEND_GATHER


cdef inline bint queue_drained(Session *session) noexcept nogil:
    """A sender was told to wait, and need not any more. Asked once for each time."""
    cdef Link *link = session.link
    if not iocp_read32(&link.above):
        return False
    if link_queued(link) > <size_t> iocp_read64(&link.low_water):
        return False
    InterlockedExchange(&link.above, 0)
    return True


cdef inline size_t take_extra(Buffer *buffer, size_t bytes) noexcept nogil:
    """So many of its bytes go; how many of them are not the user's."""
    cdef size_t extra = min(bytes, <size_t> buffer.extra)
    buffer.extra -= <unsigned int> extra
    return extra


cdef inline size_t drop_front(Worker *worker, Session *session, size_t bytes) noexcept nogil:
    """Take so many bytes off; how many of them are not the user's."""
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
    """So many bytes of the queue's front have gone."""
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
    """What is left will never be sent."""
    cdef Buffer *buffer
    worker.stats.bytes_unsent += queue_unsent(session)
    worker.stats.bytes_queued -= session.queue_bytes
    while session.queue.head != NULL:
        buffer = session.queue.head
        session.queue.head = buffer.next
        buffer_release(worker, buffer)
    session.queue_buffers = 0
    session.queue_bytes = session.queue_extra = 0
