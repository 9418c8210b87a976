# The numbers of every layer, declared to Cython. tuning.h describes each.
from libc.stdint cimport uint64_t

cdef extern from "tuning.h" nogil:
    enum:   # lengths of arrays
        ACCEPTS
        BATCH
        RECEIVE_GATHER
        SEND_GATHER
        SLAB_BUFFERS
    const int ACCEPT_PATIENCE
    const uint64_t ACCEPT_RETRY_TIME
    const int BACKLOG_MOST
    const size_t BACKLOG_BYTES
    const size_t BACKLOG_ITEMS
    const uint64_t BACKLOG_TIME
    const int CONTENDED_MORE
    const unsigned int CONTENDED_ROUND
    const uint64_t CONTENDED_TIME
    const int CONTENDED_TURN
    const size_t COPY_SIZE
    const uint64_t DRAIN_TIME
    const unsigned int FAILURES_MOST
    const uint64_t GIL_TIME
    const unsigned int HIGH_WATER_DEFAULT
    const uint64_t IDLE_TIME
    const uint64_t LARGE_TIME
    const size_t LEAST_TIMERS
    const uint64_t LEAVE_TIME
    const uint64_t LINGER_DEFAULT
    const unsigned int LITTLE
    const unsigned int LOW_WATER_DEFAULT
    const unsigned int MUCH
    const uint64_t QUEUE_MOST
    const unsigned int RECEIVE_DEFAULT
    const unsigned int RECEIVE_MOST
    const unsigned int RECEIVE_SIZE
    const bint RELEASED_SPOILT
    const unsigned int ROUND
    const unsigned char SELDOM
    const size_t SEND_LIMIT
    const unsigned int SEND_LIMIT_DEFAULT
    const int SHORT_TURN
    const unsigned int SLAB_SESSIONS
    const uint64_t SPARE_TIME
    const uint64_t STALL_TIME
    const unsigned int STEP
    const uint64_t TRIM_TIME
    const int TURN
    const uint64_t WARN_PERIOD
