# Buffers: what is received into and what is sent from, in chains.
#
# Ownership: a buffer has one owner: the pool, a session's `input`, a session's send queue, or an inbox item. Echoing
# moves it from input to queue without a copy. One that an operation refers to is in flight, and its owner keeps it till
# the packet. A pinned one, once released, waits until the worker has the GIL.
# Threads: a pool belongs to its worker; buffer_copy() and buffer_pin() are for any.
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from operation cimport BORROWED, COPIED, COPY_SIZE, PINNED, POOLED, RECEIVE_SIZE, Buffer, Worker

cdef extern from *:
    """
    #ifdef IOCPCORE_SIMULATED
    #define BUFFERS_SPOILT 1
    #else
    #define BUFFERS_SPOILT 0
    #endif
    """
    const bint BUFFERS_SPOILT   # the simulation's build: what is released is overwritten, so that late readers show

cdef enum:
    SPARE_MOST = 4096   # spare buffers a worker keeps; more go back to the system


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
    cdef Buffer *buffer = worker.buffers.pooled
    if size > RECEIVE_SIZE:
        return buffer_new(COPIED, size)
    if buffer != NULL:
        worker.buffers.pooled = buffer.next
        worker.stats.buffers_spare -= 1
        buffer.next = NULL
        buffer.data = <char *> (buffer + 1)
        buffer.length = 0
    else:
        buffer = buffer_new(POOLED, RECEIVE_SIZE)
        if buffer == NULL:
            return NULL
    worker.stats.buffers_used += 1
    return buffer


cdef inline void buffer_append(Buffer *buffer, const char *data, size_t length) noexcept nogil:
    """There must be room. Bytes that an operation in flight refers to come before these, and stay as they are."""
    memcpy(buffer.data + buffer.length, data, length)
    buffer.length += length


cdef inline bint buffer_has_room(const Buffer *buffer, size_t length) noexcept nogil:
    return buffer.kind == COPIED and <size_t> (buffer.end - buffer.data) - buffer.length >= length


cdef inline Buffer *buffer_copy(const char *data, size_t length) noexcept nogil:
    """A copy of these bytes, or NULL."""
    cdef Buffer *buffer = buffer_new(COPIED, max(length, <size_t> COPY_SIZE))
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
        memset(buffer + 1, 0xDB, RECEIVE_SIZE)
    worker.stats.buffers_used -= 1
    if worker.stats.buffers_spare >= SPARE_MOST:
        free(buffer)
        return
    buffer.next = worker.buffers.pooled
    worker.buffers.pooled = buffer
    worker.stats.buffers_spare += 1


cdef inline void chain_free(Buffer *buffer) noexcept nogil:
    cdef Buffer *after
    while buffer != NULL:
        after = buffer.next
        free(buffer)
        buffer = after


cdef inline void buffer_pool_free(Worker *worker) noexcept nogil:
    chain_free(worker.buffers.pooled)
    chain_free(worker.buffers.headers)
    worker.buffers.pooled = NULL
    worker.buffers.headers = NULL
    worker.stats.buffers_spare = 0
