# Counters of one worker. The worker alone counts, without a lock, and publishes its row between two batches.
#
# submitted == packets + inline_successes + failed_starts + in_flight holds in every published row. in_flight is counted
# on its own, so that the sum is a check and not a definition. python/iocpcore/_stats.py describes the fields to users.
from libc.stdint cimport int64_t, uint64_t

cdef struct Stats:
    # sessions
    uint64_t accepted
    uint64_t accept_failures    # AcceptEx that failed; the listener goes on
    uint64_t refused            # accepted, but closed at once: no memory, closing, or a listener's limit
    uint64_t parked             # accepted, and had to wait for a place
    uint64_t adopted
    uint64_t connected
    uint64_t connect_failures
    uint64_t exhausted          # accepts and connects that lacked descriptors or memory
    int64_t active
    uint64_t closed_by_us
    uint64_t closed_by_peer
    uint64_t closed_by_error
    uint64_t closed_by_timeout
    uint64_t undrained          # sockets closed before all their operations had ended
    # bytes
    uint64_t bytes_received
    uint64_t bytes_discarded    # of them, those that came after finish()
    uint64_t bytes_sent
    uint64_t bytes_unsent       # left in the queues of sessions that ended
    int64_t bytes_queued
    # operations
    uint64_t submitted
    uint64_t packets
    uint64_t inline_successes
    uint64_t failed_starts
    int64_t in_flight
    uint64_t cancelled          # packets with ERROR_OPERATION_ABORTED
    uint64_t failed             # packets with any other error
    # the loop
    uint64_t dequeues
    uint64_t dequeue_failures   # dequeues that failed, timeouts not counted
    uint64_t wakeups            # packets posted by inboxes
    uint64_t backlogs           # times that the inbox was overdue
    # Python
    uint64_t attaches           # times the GIL was taken
    uint64_t callbacks
    uint64_t callback_errors    # callbacks that raised an exception
    uint64_t callback_time      # nanoseconds with the GIL, or waiting for it
    # memory
    int64_t buffers_used
    int64_t buffers_spare
    int64_t sessions_spare
