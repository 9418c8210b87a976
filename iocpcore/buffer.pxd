# Buffers: what is received into and what is sent from, in chains.
#
# Ownership: a buffer has one owner: the pool, a session's `input`, or a session's send queue. Echoing moves it from
# input to queue without a copy. One that an operation refers to is in flight, and its owner keeps it till the packet.
# Threads: a pool belongs to its worker.
from libc.stdlib cimport free, malloc
from libc.string cimport memset
from operation cimport BORROWED, POOLED, RECEIVE_SIZE, Buffer, Worker

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


cdef inline Buffer *buffer_take(Worker *worker) noexcept nogil:
    """An empty buffer with RECEIVE_SIZE bytes of storage, or NULL."""
    cdef Buffer *buffer = worker.buffers.pooled
    if buffer != NULL:
        worker.buffers.pooled = buffer.next
        worker.stats.buffers_spare -= 1
    else:
        buffer = <Buffer *> malloc(sizeof(Buffer) + RECEIVE_SIZE)
        if buffer == NULL:
            return NULL
        buffer.kind = POOLED
    buffer.next = NULL
    buffer.data = <char *> (buffer + 1)
    buffer.length = 0
    worker.stats.buffers_used += 1
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
