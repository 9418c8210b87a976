# Links: what may be known of a session by those who do not own it.
#
# A link names its session by slot and generation, and only the session's worker resolves that: whoever has a link to a
# connection that has gone reaches nobody. Each count of bytes has one writer, and is exact at any time, in any thread;
# what is queued is what was given and has not been sent.
# Ownership: counted; whoever has one holds it.
# Threads: any, but for the name, which the worker writes once. Giving is under the GIL.
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
    """Asked with the GIL, or by the worker: one of both counts stands still then."""
    return <size_t> (iocp_read64(&link.given) - iocp_read64(&link.sent))


cdef inline void link_give(Link *link, long long bytes) noexcept nogil:
    """Less than none: they were not taken."""
    iocp_write64(&link.given, link.given + bytes)


cdef inline bint link_finishes(Link *link) noexcept nogil:
    """Does it take no more to send? send(), closing and repr() all ask this, so that they agree."""
    return iocp_read32(&link.finishes) != 0


# The worker's own.

cdef inline void link_finish(Link *link) noexcept nogil:
    """At the moment when its session stops to take sends. A session without Python's object has no link."""
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
