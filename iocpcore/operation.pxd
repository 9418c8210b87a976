# Operations and every struct that refers to another. Data only.
#
# Ownership: the kernel owns an Operation from before its start until its packet was dequeued; the core counts it in
# flight for longer, until the packet's step is over. Operations are embedded in what they work for (a session, an
# accept), so that memory is never freed while one of them is in flight.
# Threads: everything below a Worker belongs to that worker's thread, but for what stands under "any thread".
from libc.stdint cimport uint64_t
from cpython.pythread cimport PyThread_type_lock
from iocp cimport HANDLE, LONG, OVERLAPPED, OVERLAPPED_ENTRY, SOCKADDR_STORAGE, SOCKET, SRWLOCK
from stats cimport Stats

cdef enum:
    BATCH = 128             # packets a dequeue may return
    ACCEPTS = 16            # AcceptEx pre-posted by each listener
    RECEIVE_SIZE = 16384    # bytes of a pooled buffer
    SEND_GATHER = 16        # WSABUFs of one WSASend
    SEND_LIMIT = 262144     # bytes of one WSASend: more would show no progress for too long
    HIGH_WATER = 65536      # bytes queued for sending above which a native handler stops receiving

cdef enum OperationKind:
    ACCEPT = 1
    CONNECT
    RECEIVE
    SEND

# What became of a start.
cdef enum Started:
    PENDING     # a packet will come
    INLINE      # it has succeeded, and no packet will come
    FAILED      # it never was; all it took has been given back

cdef struct Operation:
    OVERLAPPED overlapped   # first: a packet's pointer is the operation's
    void *owner             # the Session, or the Accept itself
    unsigned char kind


# ---- buffers ----

cdef enum BufferKind:
    POOLED      # RECEIVE_SIZE bytes of storage behind it; goes back to the pool
    BORROWED    # refers to bytes that outlive every session

cdef struct Buffer:
    Buffer *next
    char *data              # the bytes that count
    unsigned int length     # how many
    unsigned char kind

cdef struct BufferPool:
    Buffer *pooled          # spare, with storage
    Buffer *headers         # spare, without


# ---- sessions ----

cdef enum SessionState:
    FREE            # in the pool
    CONNECTING      # ConnectEx is in flight
    OPEN            # receives and sends
    FINISHING       # sends what is queued, ends its sending side, discards input until the peer's end
    CLOSING         # starts nothing more; waits until nothing is in flight

cdef enum CloseReason:
    BY_US
    BY_PEER         # the peer has ended, and we have answered
    BY_ERROR        # a receive or send failed: reset, lost, refused
    BY_TIMEOUT      # the peer neither read nor ended in time

cdef struct Session:
    Operation receive
    Operation send              # ConnectEx's too: nothing is sent before it ends
    SOCKET socket
    Worker *worker
    Listener *listener          # NULL if we connected
    Handler *handler
    void *handler_data
    Session *next               # in the pool or in the worker's ready list
    unsigned int slot
    unsigned int generation     # raised when the slot is released: (slot, generation) names one connection for ever
    unsigned int in_flight      # operations, and 1 for being in the ready list
    unsigned char state
    unsigned char reason
    unsigned char skips         # inline successes post no packet
    unsigned char receiving     # a receive is in flight
    unsigned char waiting       # ... of zero bytes: it holds no buffer
    unsigned char yielding      # its buffer is to be given back: it was cancelled for that
    unsigned char sending       # a send is in flight
    unsigned char peer_ended
    unsigned char end_sent
    unsigned char ready         # in the ready list
    int error                   # the system's number of what ended it, or 0
    Buffer *input               # received into
    Buffer *queue_head          # to be sent, the part that is in flight included
    Buffer *queue_tail
    unsigned int queue_buffers
    size_t queue_bytes
    uint64_t active_at          # when it last received, nanoseconds; 0: it is not connected yet
    uint64_t closing_at         # when its end last made progress
    uint64_t timer_at           # the deadline it waits for, 0: none

cdef struct SessionTable:
    Session **slots
    unsigned int used           # slots that exist
    unsigned int room
    Session *free
    unsigned int active

cdef struct Timer:
    uint64_t at
    unsigned int slot
    unsigned int generation

cdef struct TimerHeap:
    Timer *timers
    size_t count
    size_t room


# ---- listeners ----

cdef struct Accept:
    Operation operation
    Listener *listener
    SOCKET placeholder
    unsigned char in_flight
    char addresses[2 * (28 + 16)]   # AcceptEx wants sockaddr_in6 and 16 bytes, twice

cdef struct Listener:
    SOCKET socket
    int family
    Worker *worker              # arms it, and owns all that follows
    Handler *handler
    Accept accepts[ACCEPTS]
    unsigned int in_flight
    unsigned int failures       # accepts that failed since the last that did not
    unsigned char closing
    int error                   # why it could not be armed, or 0
    PyThread_type_lock armed    # released by the worker when `error` is known
    LONG holds                  # any thread: its worker, its sessions, inbox items; at 0 nobody will look at it again
    Listener *next              # of its worker


# ---- handlers ----

cdef enum HandlerKind:
    ECHO = 1
    DISCARD
    LOAD

cdef enum:
    LATENCY_OCTAVE = 64         # histogram buckets per power of two: an error of 1.6 %
    LATENCY_BUCKETS = 64 * 40

cdef struct LoadRow:            # what one worker has counted; any thread, under its lock
    SRWLOCK lock
    uint64_t echoes
    uint64_t bytes
    uint64_t mismatches
    uint64_t errors
    uint64_t last_at            # when the last echo came
    int first_error
    uint64_t latency[LATENCY_BUCKETS]

cdef struct Load:
    uint64_t messages           # per connection
    unsigned int size_min
    unsigned int size_max
    unsigned int pipeline
    const char *pattern
    LoadRow *rows               # one a worker
    LONG remaining              # any thread: connections that are not over
    PyThread_type_lock done     # released when none is

cdef struct Handler:
    unsigned char kind
    Load *load


# ---- workers ----

cdef enum InboxKind:
    DO_LISTEN
    DO_UNLISTEN
    DO_ADOPT        # a fresh socket of another worker's listener
    DO_CONNECT
    DO_ABORT        # a session, by slot and generation

cdef struct InboxItem:
    InboxItem *next
    unsigned char kind
    Listener *listener
    Handler *handler
    SOCKET socket
    SOCKADDR_STORAGE address
    int address_length
    unsigned int slot
    unsigned int generation

# Any thread, under its lock. The lock is a leaf: under it no Python, and no other lock.
cdef struct Inbox:
    SRWLOCK lock
    InboxItem *head
    InboxItem *tail
    unsigned char posted        # a packet is on its way that will make the worker look
    unsigned char closed        # nothing is taken any more
    uint64_t close_by           # when what is left must be aborted, 0: nobody has asked the worker to close

cdef struct Worker:
    HANDLE port
    int index
    Worker *peers               # all workers of the proactor, this one among them
    int peer_count
    Inbox inbox                 # any thread
    LONG load                   # any thread: sessions here, reserved places included
    SRWLOCK published_lock
    Stats published             # any thread, under published_lock
    Stats stats
    uint64_t now                # nanoseconds, read once a batch
    SessionTable sessions
    BufferPool buffers
    TimerHeap timers
    Session *ready_head         # sessions that have used up their turn and go on in the next
    Session *ready_tail
    Listener *listeners
    uint64_t retry_at           # when refused accepts are posted again, 0: none are
    uint64_t close_at           # closing: when what is left is aborted; the inbox's, as the worker knows it
    uint64_t leave_at           # closing: when what has not even drained is left behind
    unsigned char closing
    unsigned char skip_on_success
    PyThread_type_lock ended    # any thread: released when the worker touches nothing any more
    OVERLAPPED_ENTRY entries[BATCH]
