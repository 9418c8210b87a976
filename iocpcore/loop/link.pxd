# Links: what threads other than its worker know of a session.
#
# A link names its session by slot and generation, and only the session's worker resolves that name: a link of a session
# that has ended reaches none. Each count of bytes has one writer, and is exact at any time, in any thread. Queued bytes
# are those that were given and are not yet sent.
# Ownership: reference-counted; each struct or object that refers to a link holds it.
# Threads: any, but the worker alone writes the name, once. link_give() needs the GIL.
from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free
from iocp cimport (
    InterlockedDecrement, InterlockedExchange, InterlockedIncrement, iocp_read32, iocp_read64, iocp_write64)
from structs cimport Link

cdef extern from *:
    """
    #define NO_SLOT UINT32_C(0xFFFFFFFF)
    """
    const unsigned int NO_SLOT  # of a session that is yet to be made


cdef inline Link *link_new() noexcept nogil:
    """Held once, or NULL without memory."""
    cdef Link *link = <Link *> calloc(1, sizeof(Link))
    if link != NULL:
        link.holds = 1
        link.slot = NO_SLOT
    return link


cdef inline Link *link_hold(Link *link) noexcept nogil:
    InterlockedIncrement(&link.holds)
    return link


cdef inline void link_drop(Link *link) noexcept nogil:
    if InterlockedDecrement(&link.holds) == 0:
        free(link)


cdef inline size_t link_queued(Link *link) noexcept nogil:
    """With the GIL, or in the worker: then one of the two counts stands still."""
    return <size_t> (iocp_read64(&link.given) - iocp_read64(&link.sent))


cdef inline void link_give(Link *link, long long bytes) noexcept nogil:
    """Count bytes that a sender gives; a negative number takes back bytes that were not taken."""
    iocp_write64(&link.given, link.given + bytes)


cdef inline bint link_finishes(Link *link) noexcept nogil:
    """Has it stopped taking sends? send(), closing and repr() all ask this, so that they agree."""
    return iocp_read32(&link.finishes) != 0


# The worker's own.

cdef inline void link_finish(Link *link) noexcept nogil:
    """Called at the moment when the session stops taking sends. A session without a Python object has no link."""
    if link != NULL:
        InterlockedExchange(&link.finishes, 1)


cdef inline void link_count_received(Link *link, size_t bytes) noexcept nogil:
    iocp_write64(&link.received, link.received + <long long> bytes)


cdef inline void link_count_sent(Link *link, size_t bytes) noexcept nogil:
    iocp_write64(&link.sent, link.sent + <long long> bytes)


cdef inline uint64_t link_received(Link *link) noexcept nogil:
    return <uint64_t> iocp_read64(&link.received)


cdef inline uint64_t link_sent(Link *link) noexcept nogil:
    return <uint64_t> iocp_read64(&link.sent)
