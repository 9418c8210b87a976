# Buffers: what is received into and what is sent from, in chains.
#
# Ownership: a buffer has one owner: a pool, a session's `posted` or `inbound`, its send queue, or a message. Echoing
# moves it from input to queue without a copy. One that an operation refers to is in flight, and its owner keeps it till
# the packet. A pinned one, once released, waits until the worker has the GIL.
# Threads: pools belong to their worker; buffer_copy() and buffer_pin() are for any.
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from iocp cimport iocp_give_pages, iocp_take_pages
from structs cimport BORROWED, COPIED, PINNED, POOLED, SMALL, Buffer, BufferPool, Slab, Worker
from tuning cimport COPY_SIZE, RECEIVE_SIZE, RELEASED_SPOILT, SLAB_BUFFERS, TRIM_TIME


cdef inline size_t slab_size(const BufferPool *pool) noexcept nogil:
    """Of its buffers' bytes, and of what is known of them behind."""
    return SLAB_BUFFERS * pool.size + sizeof(Slab)


cdef inline bint slab_add(BufferPool *pool) noexcept nogil:
    """Spare buffers for the pool; False without memory."""
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
    """Take the buffers of slabs that nobody uses out of the pool."""
    cdef Buffer **at = &pool.spare
    while at[0] != NULL:
        if at[0].slab.used == 0:
            at[0] = at[0].next
        else:
            at = &at[0].next


cdef inline void pool_trim(BufferPool *pool) noexcept nogil:
    """Give slabs that nobody uses back to the system."""
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
    """What nobody uses goes back to the system."""
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
    """There must be room. Bytes that an operation in flight refers to come before these, and stay as they are."""
    memcpy(buffer.data + buffer.length, data, length)
    buffer.length += length


cdef inline bint buffer_has_room(const Buffer *buffer, size_t length) noexcept nogil:
    if buffer.kind == BORROWED or buffer.kind == PINNED:
        return False
    return <size_t> (buffer.end - buffer.data) - buffer.length >= length


cdef inline Buffer *buffer_copy(const char *data, size_t length, size_t room) noexcept nogil:
    """A copy of these bytes, in room for at least so many, or NULL."""
    cdef Buffer *buffer = buffer_new(COPIED, max(length, room))
    if buffer != NULL:
        buffer_append(buffer, data, length)
    return buffer


cdef inline Buffer *buffer_copy_here(Worker *worker, const char *data, size_t length) noexcept nogil:
    """As buffer_copy(), for the worker itself: what is not large goes into a pooled buffer.

    A batch's copies, taken from the heap and given back together, are more than malloc's cache of a thread holds, and
    larger ones make it return its pages to the system and ask for them again in the next batch.
    """
    cdef Buffer *buffer
    if length > RECEIVE_SIZE:
        return buffer_copy(data, length, length)
    buffer = pool_take(&worker.copies) if length <= COPY_SIZE else buffer_take(worker)
    if buffer != NULL:
        buffer_append(buffer, data, length)
    return buffer


cdef inline Buffer *buffer_pin(void *pinned, const char *data, size_t length) noexcept nogil:
    """A buffer that refers to a Python object's bytes and owns a reference to it, or NULL: then it does not."""
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
    """This one and those behind it; NULL is none."""
    cdef Buffer *after
    while buffer != NULL:
        after = buffer.next
        buffer_release(worker, buffer)
        buffer = after


cdef inline void chain_cut(Worker *worker, Buffer *last) noexcept nogil:
    """Release those behind it."""
    chain_release(worker, last.next)
    last.next = NULL


cdef inline size_t chain_length(const Buffer *buffer) noexcept nogil:
    """Bytes of them all."""
    cdef size_t length = 0
    while buffer != NULL:
        length += buffer.length
        buffer = buffer.next
    return length


cdef inline void buffers_free(Worker *worker) noexcept nogil:
    """What is still in use, the kernel may write to: it is left."""
    cdef Buffer *buffer = worker.headers
    cdef Buffer *after
    while buffer != NULL:
        after = buffer.next
        free(buffer)
        buffer = after
    worker.headers = NULL
    buffers_trim(worker)
