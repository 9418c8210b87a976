# LOAD: the load client. It sends a pattern, checks every byte that comes back and measures each message's time.
#
# Ownership: a Load and its rows outlive the sessions; each worker writes its own row.
# Threads: the session's worker.
from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp
from cpython.pythread cimport PyThread_release_lock
from iocp cimport AcquireSRWLockExclusive, InterlockedDecrement, ReleaseSRWLockExclusive, iocp_now
from buffer cimport buffer_borrow, chain_length
from close cimport finish
from door cimport input_consumed, input_discard, session_write
from discard cimport handler_init
from structs cimport BY_US, LATENCY_BUCKETS, LATENCY_OCTAVE, Buffer, Handler, Load, LoadRow, Session, Worker

cdef enum:
    PATTERN_PERIOD = 65521      # bytes; a prime, so that no message size or buffer size divides it
    PATTERN_LENGTH = 2 * 65521  # bytes in memory, so that a period can be read from any offset


# ---- the load client's session ----

cdef struct LoadMessage:
    uint64_t end        # the offset in the stream behind its last byte
    uint64_t sent_at    # nanoseconds

cdef struct LoadSession:
    uint64_t offset     # where in the pattern its stream begins
    uint64_t queued     # bytes given to the send queue
    uint64_t received   # bytes that came back
    uint64_t begun      # messages begun
    uint64_t echoed     # messages that came back whole
    uint64_t random
    LoadMessage outstanding[1]  # a ring of `pipeline` places


cdef inline unsigned int latency_bucket(uint64_t nanoseconds) noexcept nogil:
    """LATENCY_OCTAVE linear buckets for each power of two."""
    cdef unsigned int octave = 0
    while nanoseconds >= 2 * LATENCY_OCTAVE:
        nanoseconds >>= 1
        octave += 1
    return min(<unsigned int> (octave * LATENCY_OCTAVE + nanoseconds), <unsigned int> (LATENCY_BUCKETS - 1))


cdef inline uint64_t latency_of(unsigned int bucket) noexcept nogil:
    """The upper end of a bucket, in nanoseconds."""
    cdef unsigned int octave
    if bucket < 2 * LATENCY_OCTAVE:
        return bucket
    octave = bucket // LATENCY_OCTAVE - 1
    return (<uint64_t> (bucket - octave * LATENCY_OCTAVE) + 1) << octave


cdef inline uint64_t next_random(uint64_t *state) noexcept nogil:
    """Marsaglia's xorshift64: the sizes of messages need no better."""
    state[0] ^= state[0] << 13
    state[0] ^= state[0] >> 7
    state[0] ^= state[0] << 17
    return state[0]


cdef inline LoadMessage *load_message(Load *load, LoadSession *own, uint64_t number) noexcept nogil:
    return &own.outstanding[number % load.pipeline]


cdef inline bint load_queue(Worker *worker, Session *session, LoadSession *own, uint64_t size) noexcept nogil:
    """Queue the pattern's next `size` bytes; False without memory."""
    cdef const char *pattern = session.handler.load.pattern
    cdef Buffer *buffer
    cdef uint64_t step
    while size > 0:
        step = min(size, <uint64_t> PATTERN_PERIOD)
        buffer = buffer_borrow(worker, pattern + (own.offset + own.queued) % PATTERN_PERIOD, <unsigned int> step)
        if buffer == NULL or not session_write(worker, session, buffer):
            return False
        own.queued += step
        size -= step
    return True


cdef inline bint load_fill(Worker *worker, Session *session) noexcept nogil:
    """Begin messages until as many are outstanding as the pipeline allows; False without memory."""
    cdef Load *load = session.handler.load
    cdef LoadSession *own = <LoadSession *> session.handler_data
    cdef LoadMessage *message
    cdef uint64_t size
    while own.begun < load.messages and own.begun - own.echoed < load.pipeline:
        size = load.size_min + next_random(&own.random) % (load.size_max - load.size_min + 1)
        if not load_queue(worker, session, own, size):
            return False
        message = load_message(load, own, own.begun)
        message.end = own.queued
        message.sent_at = iocp_now(worker.port)
        own.begun += 1
    return True


cdef inline bint load_matches(Load *load, LoadSession *own, Buffer *input) noexcept nogil:
    """Are these the next bytes of the pattern, and have they been sent?"""
    cdef uint64_t at = (own.offset + own.received) % PATTERN_PERIOD
    return (own.received + input.length <= own.queued
            and memcmp(input.data, load.pattern + at, input.length) == 0)


cdef inline void load_count_mismatch(Worker *worker, Load *load) noexcept nogil:
    cdef LoadRow *row = &load.rows[worker.index]
    AcquireSRWLockExclusive(&row.lock)
    row.mismatches += 1
    ReleaseSRWLockExclusive(&row.lock)


cdef inline void load_count_error(Worker *worker, Load *load, int error) noexcept nogil:
    cdef LoadRow *row = &load.rows[worker.index]
    AcquireSRWLockExclusive(&row.lock)
    row.errors += 1
    if row.first_error == 0:
        row.first_error = error
    ReleaseSRWLockExclusive(&row.lock)


cdef inline void load_count_echoes(Worker *worker, Load *load, LoadSession *own, size_t bytes) noexcept nogil:
    """Count correct bytes, and the messages that they complete."""
    cdef LoadRow *row = &load.rows[worker.index]
    cdef LoadMessage *message
    cdef uint64_t now = iocp_now(worker.port)
    AcquireSRWLockExclusive(&row.lock)
    row.bytes += bytes
    while own.echoed < own.begun:
        message = load_message(load, own, own.echoed)
        if own.received < message.end:
            break
        row.latency[latency_bucket(now - message.sent_at)] += 1
        row.echoes += 1
        row.last_at = now
        own.echoed += 1
    ReleaseSRWLockExclusive(&row.lock)


cdef inline bint load_opened(Worker *worker, Session *session) noexcept nogil:
    cdef Load *load = session.handler.load
    cdef LoadSession *own = <LoadSession *> calloc(1, sizeof(LoadSession) + load.pipeline * sizeof(LoadMessage))
    if own == NULL:
        return False
    session.handler_data = own
    own.random = <uint64_t> 0x9E3779B97F4A7C15U * (<uint64_t> session.slot * 256 + worker.index + 1)
    own.offset = own.random % PATTERN_PERIOD
    return load_fill(worker, session)


cdef inline bint load_data(Worker *worker, Session *session) noexcept nogil:
    """False if a byte is wrong, or there is one too many."""
    cdef Load *load = session.handler.load
    cdef LoadSession *own = <LoadSession *> session.handler_data
    cdef Buffer *input = session.inbound
    while input != NULL:
        if not load_matches(load, own, input):
            load_count_mismatch(worker, load)
            return False
        own.received += input.length
        input = input.next
    load_count_echoes(worker, load, own, chain_length(session.inbound))
    input_consumed(worker, session)
    if own.echoed < load.messages:
        return load_fill(worker, session)
    finish(worker, session, BY_US)
    return True


cdef inline void load_closed(Worker *worker, Session *session) noexcept nogil:
    """The connection has ended, or was never made. If messages have not come back, that is an error."""
    cdef Load *load = session.handler.load
    cdef LoadSession *own = <LoadSession *> session.handler_data
    if own == NULL or own.echoed < load.messages:
        load_count_error(worker, load, session.error)
    free(own)
    load_over(load)


cdef inline void load_over(Load *load) noexcept nogil:
    """One connection fewer to wait for."""
    if InterlockedDecrement(&load.remaining) == 0:
        PyThread_release_lock(load.done)


cdef inline void load_discarded(Worker *worker, Session *session) noexcept nogil:
    """Bytes that came after finish(). If all messages had come back by then, these are too many."""
    cdef LoadSession *own = <LoadSession *> session.handler_data
    input_discard(worker, session)
    if own.echoed == session.handler.load.messages:
        load_count_mismatch(worker, session.handler.load)


cdef inline void load_refused(Worker *worker, Handler *handler, int error) noexcept nogil:
    load_count_error(worker, handler.load, error)
    load_over(handler.load)


cdef inline void load_init(Handler *handler, Load *load) noexcept nogil:
    handler_init(handler)
    handler.load = load
    handler.ops.opened = load_opened
    handler.ops.data = load_data
    handler.ops.discarded = load_discarded
    handler.ops.closed = load_closed
    handler.ops.refused = load_refused
