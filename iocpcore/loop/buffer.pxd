# Buffers to receive into and to send from, linked into chains.
#
# Ownership: a buffer has one owner: a pool, a session's `posted` or `inbound`, its send queue, or a message. Echoing
# moves it from input to queue without a copy. A buffer that an operation refers to is in flight: its owner keeps it
# until the packet. A pinned buffer, once released, waits until the worker has the GIL.
# Threads: pools belong to their worker; any thread may call buffer_copy() and buffer_pin().
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from iocp cimport iocp_give_pages, iocp_take_pages
from structs cimport BORROWED, COPIED, PINNED, POOLED, SMALL, Buffer, BufferPool, Slab, Worker
from tuning cimport COPY_SIZE, RECEIVE_SIZE, RELEASED_SPOILT, SLAB_BUFFERS, TRIM_TIME


cdef inline size_t slab_size(const BufferPool *pool) noexcept nogil:
    """Bytes of the buffers, and of the Slab behind them that describes them."""
    return SLAB_BUFFERS * pool.size + sizeof(Slab)


cdef inline bint slab_add(BufferPool *pool) noexcept nogil:
    """Add a slab of spare buffers to the pool; False without memory."""
    cdef char *pages = <char *> iocp_take_pages(slab_size(pool))
    cdef Slab *slab
    cdef Buffer *buffer
    cdef int i
    if pages == NULL:
        return False
    slab = <Slab *> (pages + SLAB_BUFFERS * pool.size)
    slab.pages = pages
    for i in range(SLAB_BUFFERS - 1, -1, -1):
        buffer = &slab.buffers[i]
        buffer.kind = pool.kind
        buffer.slab = slab
        buffer.end = slab.pages + (i + 1) * pool.size
        buffer.next = pool.spare
        pool.spare = buffer
    slab.next = pool.slabs
    pool.slabs = slab
    pool.made += SLAB_BUFFERS
    return True


cdef inline Buffer *pool_take(BufferPool *pool) noexcept nogil:
    """An empty buffer, or NULL without memory."""
    cdef Buffer *buffer
    if pool.spare == NULL and not slab_add(pool):
        return NULL
    buffer = pool.spare
    pool.spare = buffer.next
    buffer.next = NULL
    buffer.data = buffer.end - pool.size
    buffer.length = 0
    buffer.extra = 0
    buffer.slab.used += 1
    return buffer


cdef inline void pool_give(Worker *worker, BufferPool *pool, Buffer *buffer) noexcept nogil:
    if RELEASED_SPOILT:
        memset(buffer.end - pool.size, 0xDB, pool.size)
    buffer.next = pool.spare
    pool.spare = buffer
    buffer.slab.used -= 1
    if buffer.slab.used == 0 and worker.trim_at == 0:
        worker.trim_at = worker.now + TRIM_TIME


cdef inline void forget_unused(BufferPool *pool) noexcept nogil:
    """Take the buffers of unused slabs out of the pool."""
    cdef Buffer **at = &pool.spare
    while at[0] != NULL:
        if at[0].slab.used == 0:
            at[0] = at[0].next
        else:
            at = &at[0].next


cdef inline void pool_trim(BufferPool *pool) noexcept nogil:
    """Give unused slabs back to the system."""
    cdef Slab **at = &pool.slabs
    cdef Slab *slab
    forget_unused(pool)
    while at[0] != NULL:
        slab = at[0]
        if slab.used == 0:
            at[0] = slab.next
            iocp_give_pages(slab.pages, slab_size(pool))
            pool.made -= SLAB_BUFFERS
        else:
            at = &slab.next


cdef inline void buffers_init(Worker *worker) noexcept nogil:
    worker.buffers.kind = POOLED
    worker.buffers.size = RECEIVE_SIZE
    worker.copies.kind = SMALL
    worker.copies.size = COPY_SIZE


cdef inline void buffers_trim(Worker *worker) noexcept nogil:
    """Give the unused slabs of both pools back to the system."""
    pool_trim(&worker.buffers)
    pool_trim(&worker.copies)


cdef inline Buffer *buffer_new(unsigned char kind, size_t size) noexcept nogil:
    """An empty buffer with that much storage, or NULL."""
    cdef Buffer *buffer = <Buffer *> malloc(sizeof(Buffer) + size)
    if buffer == NULL:
        return NULL
    buffer.kind = kind
    buffer.next = NULL
    buffer.data = <char *> (buffer + 1)
    buffer.length = 0
    buffer.extra = 0
    buffer.end = buffer.data + size
    return buffer


cdef inline Buffer *buffer_take(Worker *worker) noexcept nogil:
    """An empty pooled buffer, or NULL."""
    cdef Buffer *buffer
    buffer = pool_take(&worker.buffers)
    if buffer != NULL:
        worker.stats.buffers_used += 1
    return buffer


cdef inline void buffer_append(Buffer *buffer, const char *data, size_t length) noexcept nogil:
    """The buffer must have room. Its bytes so far stay as they are, for an operation in flight may refer to them."""
    memcpy(buffer.data + buffer.length, data, length)
    buffer.length += length


cdef inline bint buffer_has_room(const Buffer *buffer, size_t length) noexcept nogil:
    if buffer.kind == BORROWED or buffer.kind == PINNED:
        return False
    return <size_t> (buffer.end - buffer.data) - buffer.length >= length


cdef inline Buffer *buffer_copy(const char *data, size_t length, size_t room) noexcept nogil:
    """A copy of these bytes, with room for at least `room` bytes, or NULL."""
    cdef Buffer *buffer = buffer_new(COPIED, max(length, room))
    if buffer != NULL:
        buffer_append(buffer, data, length)
    return buffer


cdef inline Buffer *buffer_copy_here(Worker *worker, const char *data, size_t length) noexcept nogil:
    """As buffer_copy(), in the worker's own thread: a copy of up to RECEIVE_SIZE bytes goes into a pooled buffer.

    On the heap the copies of a batch, freed together, are more than malloc's per-thread cache holds, and larger ones
    make malloc return pages to the system and ask for them again in the next batch.
    """
    cdef Buffer *buffer
    if length > RECEIVE_SIZE:
        return buffer_copy(data, length, length)
    buffer = pool_take(&worker.copies) if length <= COPY_SIZE else buffer_take(worker)
    if buffer != NULL:
        buffer_append(buffer, data, length)
    return buffer


cdef inline Buffer *buffer_pin(void *pinned, const char *data, size_t length) noexcept nogil:
    """A buffer that refers to a Python object's bytes and owns the reference to it; NULL: the caller still owns it."""
    cdef Buffer *buffer = buffer_new(PINNED, 0)
    if buffer != NULL:
        buffer.data = <char *> data
        buffer.length = length
        buffer.pinned = pinned
    return buffer


cdef inline Buffer *buffer_borrow(Worker *worker, const char *data, unsigned int length) noexcept nogil:
    """A buffer that refers to bytes which outlive every session, or NULL."""
    cdef Buffer *buffer = worker.headers
    if buffer != NULL:
        worker.headers = buffer.next
    else:
        buffer = <Buffer *> malloc(sizeof(Buffer))
        if buffer == NULL:
            return NULL
        buffer.kind = BORROWED
    buffer.next = NULL
    buffer.data = <char *> data
    buffer.length = length
    buffer.extra = 0
    return buffer


cdef inline void buffer_release(Worker *worker, Buffer *buffer) noexcept nogil:
    if buffer.kind == BORROWED:
        buffer.next = worker.headers
        worker.headers = buffer
        return
    if buffer.kind == PINNED:
        buffer.next = worker.unpinned
        worker.unpinned = buffer
        return
    if buffer.kind == COPIED:
        if RELEASED_SPOILT:
            memset(buffer + 1, 0xDB, <char *> buffer.end - <char *> (buffer + 1))
        free(buffer)
        return
    if buffer.kind == SMALL:
        pool_give(worker, &worker.copies, buffer)
        return
    pool_give(worker, &worker.buffers, buffer)
    worker.stats.buffers_used -= 1


cdef inline void chain_release(Worker *worker, Buffer *buffer) noexcept nogil:
    """Release this buffer and those behind it; NULL is an empty chain."""
    cdef Buffer *after
    while buffer != NULL:
        after = buffer.next
        buffer_release(worker, buffer)
        buffer = after


cdef inline void chain_cut(Worker *worker, Buffer *last) noexcept nogil:
    """Release the buffers behind the last one to be kept."""
    chain_release(worker, last.next)
    last.next = NULL


cdef inline size_t chain_length(const Buffer *buffer) noexcept nogil:
    """Bytes in all its buffers."""
    cdef size_t length = 0
    while buffer != NULL:
        length += buffer.length
        buffer = buffer.next
    return length


cdef inline void buffers_free(Worker *worker) noexcept nogil:
    """Slabs with a buffer in use are leaked: the kernel may still write to it."""
    cdef Buffer *buffer = worker.headers
    cdef Buffer *after
    while buffer != NULL:
        after = buffer.next
        free(buffer)
        buffer = after
    worker.headers = NULL
    buffers_trim(worker)
