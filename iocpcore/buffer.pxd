# Buffers: what is received into and what is sent from, in chains.
#
# Ownership: a buffer has one owner: the pool, a session's `input`, a session's send queue, or an inbox item. Echoing
# moves it from input to queue without a copy. One that an operation refers to is in flight, and its owner keeps it till
# the packet. A pinned one, once released, waits until the worker has the GIL.
# Threads: a pool belongs to its worker; buffer_copy() and buffer_pin() are for any.
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset
from iocp cimport iocp_give_pages, iocp_take_pages
from operation cimport (
    BORROWED, COPIED, COPY_SIZE, PINNED, POOLED, RECEIVE_SIZE, SLAB_BUFFERS, Buffer, Slab, Worker)

cdef extern from *:
    """
    #ifdef IOCPCORE_SIMULATED
    #define BUFFERS_SPOILT 1
    #else
    #define BUFFERS_SPOILT 0
    #endif
    """
    const bint BUFFERS_SPOILT   # the simulation's build: what is released is overwritten, so that late readers show

cdef extern from *:
    """
    #define TRIM_TIME UINT64_C(1000000000)
    """
    const unsigned long long TRIM_TIME  # nanoseconds from a slab's last use to giving it back to the system


cdef inline bint slab_add(Worker *worker) noexcept nogil:
    """Spare buffers for the pool; False without memory."""
    cdef Slab *slab = <Slab *> calloc(1, sizeof(Slab))
    cdef Buffer *buffer
    cdef int i
    if slab == NULL:
        return False
    slab.pages = <char *> iocp_take_pages(SLAB_BUFFERS * RECEIVE_SIZE)
    if slab.pages == NULL:
        free(slab)
        return False
    for i in range(SLAB_BUFFERS - 1, -1, -1):
        buffer = &slab.buffers[i]
        buffer.kind = POOLED
        buffer.slab = slab
        buffer.end = slab.pages + (i + 1) * RECEIVE_SIZE
        buffer.next = worker.buffers.pooled
        worker.buffers.pooled = buffer
    slab.next = worker.buffers.slabs
    worker.buffers.slabs = slab
    worker.stats.buffers_spare += SLAB_BUFFERS
    return True


cdef inline void forget_unused(Worker *worker) noexcept nogil:
    """Take the buffers of slabs that nobody uses out of the pool."""
    cdef Buffer **at = &worker.buffers.pooled
    while at[0] != NULL:
        if at[0].slab.used == 0:
            at[0] = at[0].next
            worker.stats.buffers_spare -= 1
        else:
            at = &at[0].next


cdef inline void slabs_trim(Worker *worker) noexcept nogil:
    """Give slabs that nobody uses back to the system."""
    cdef Slab **at = &worker.buffers.slabs
    cdef Slab *slab
    forget_unused(worker)
    while at[0] != NULL:
        slab = at[0]
        if slab.used == 0:
            at[0] = slab.next
            iocp_give_pages(slab.pages, SLAB_BUFFERS * RECEIVE_SIZE)
            free(slab)
        else:
            at = &slab.next


cdef inline Buffer *buffer_new(unsigned char kind, size_t size) noexcept nogil:
    """An empty buffer with that much storage, or NULL."""
    cdef Buffer *buffer = <Buffer *> malloc(sizeof(Buffer) + size)
    if buffer == NULL:
        return NULL
    buffer.kind = kind
    buffer.next = NULL
    buffer.data = <char *> (buffer + 1)
    buffer.length = 0
    buffer.end = buffer.data + size
    return buffer


cdef inline Buffer *buffer_take(Worker *worker, size_t size) noexcept nogil:
    """An empty buffer to receive so many bytes into, or NULL."""
    cdef Buffer *buffer
    if size > RECEIVE_SIZE:
        return buffer_new(COPIED, size)
    if worker.buffers.pooled == NULL and not slab_add(worker):
        return NULL
    buffer = worker.buffers.pooled
    worker.buffers.pooled = buffer.next
    buffer.next = NULL
    buffer.data = buffer.end - RECEIVE_SIZE
    buffer.length = 0
    buffer.slab.used += 1
    worker.stats.buffers_spare -= 1
    worker.stats.buffers_used += 1
    return buffer


cdef inline void buffer_append(Buffer *buffer, const char *data, size_t length) noexcept nogil:
    """There must be room. Bytes that an operation in flight refers to come before these, and stay as they are."""
    memcpy(buffer.data + buffer.length, data, length)
    buffer.length += length


cdef inline bint buffer_has_room(const Buffer *buffer, size_t length) noexcept nogil:
    if buffer.kind != COPIED and buffer.kind != POOLED:
        return False
    return <size_t> (buffer.end - buffer.data) - buffer.length >= length


cdef inline Buffer *buffer_copy(const char *data, size_t length) noexcept nogil:
    """A copy of these bytes, or NULL."""
    cdef Buffer *buffer = buffer_new(COPIED, max(length, <size_t> COPY_SIZE))
    if buffer != NULL:
        buffer_append(buffer, data, length)
    return buffer


cdef inline Buffer *buffer_copy_here(Worker *worker, const char *data, size_t length) noexcept nogil:
    """As buffer_copy(), for the worker itself: what is not small goes into a pooled buffer.

    A batch's copies, taken from the heap and given back together, make the C library return its pages to the system
    and ask for them again in the next batch: page faults that cost more than the copies.
    """
    cdef Buffer *buffer
    if length <= COPY_SIZE or length > RECEIVE_SIZE:
        return buffer_copy(data, length)
    buffer = buffer_take(worker, length)
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
    cdef Buffer *buffer = worker.buffers.headers
    if buffer != NULL:
        worker.buffers.headers = buffer.next
    else:
        buffer = <Buffer *> malloc(sizeof(Buffer))
        if buffer == NULL:
            return NULL
        buffer.kind = BORROWED
    buffer.next = NULL
    buffer.data = <char *> data
    buffer.length = length
    return buffer


cdef inline void buffer_release(Worker *worker, Buffer *buffer) noexcept nogil:
    if buffer.kind == BORROWED:
        buffer.next = worker.buffers.headers
        worker.buffers.headers = buffer
        return
    if buffer.kind == PINNED:
        buffer.next = worker.unpinned
        worker.unpinned = buffer
        return
    if buffer.kind == COPIED:
        if BUFFERS_SPOILT:
            memset(buffer + 1, 0xDB, <char *> buffer.end - <char *> (buffer + 1))
        free(buffer)
        return
    if BUFFERS_SPOILT:
        memset(buffer.end - RECEIVE_SIZE, 0xDB, RECEIVE_SIZE)
    buffer.next = worker.buffers.pooled
    worker.buffers.pooled = buffer
    buffer.slab.used -= 1
    worker.stats.buffers_used -= 1
    worker.stats.buffers_spare += 1
    if buffer.slab.used == 0 and worker.trim_at == 0:
        worker.trim_at = worker.now + TRIM_TIME


cdef inline void buffer_pool_free(Worker *worker) noexcept nogil:
    """What is still in use, the kernel may write to: it is left."""
    cdef Buffer *buffer = worker.buffers.headers
    cdef Buffer *after
    while buffer != NULL:
        after = buffer.next
        free(buffer)
        buffer = after
    worker.buffers.headers = NULL
    slabs_trim(worker)
