# The structs of all layers, because they refer to each other: operations, items, buffers, sessions, listeners, workers.
# Data only.
#
# Ownership: the kernel owns an Operation from before its start until its packet was dequeued; the core counts it in
# flight for longer, until the packet's step is over. Operations are embedded in what they work for (a session, an
# accept), so that memory is never freed while one of them is in flight.
# Threads: everything below a Worker belongs to that worker's thread, but for what stands under "any thread".
from libc.stdint cimport int64_t, uint64_t
from cpython.pythread cimport PyThread_type_lock
from iocp cimport (
    DWORD, HANDLE, IOCP_EVENT, LONG, LONG64, OVERLAPPED, OVERLAPPED_ENTRY, SOCKADDR_STORAGE, SOCKET, SRWLOCK,
    sockaddr_in6)
from stats cimport Stats
from tuning cimport ACCEPTS, BATCH, SLAB_BUFFERS

cdef enum:
    WORKERS_MOST = 256

# What became of a start.
cdef enum Started:
    PENDING     # a packet will come
    INLINE      # it has succeeded, and no packet will come
    FAILED      # it never was; all it took has been given back

cdef struct Operation:
    OVERLAPPED overlapped   # first: a packet's pointer is the operation's
    void (*completed)(Worker *, Operation *, int status, DWORD bytes) noexcept nogil    # what its packet begins
    void *owner             # the Session, or the Accept itself


# ---- items ----

# What is due to be told to an item's handler in Python, in this order.
cdef enum Call:
    CALL_CONNECT = 1
    CALL_RECEIVE = 2
    CALL_END = 4
    CALL_DRAIN = 8
    CALL_SHUTDOWN = 16
    CALL_CLOSE = 32

# What the loop asks of an item. `turn`: do what is due, at most so many steps; with `small_only` nothing large.
cdef struct ItemOps:
    void (*turn)(Worker *, Item *, int most, bint small_only) noexcept nogil
    void (*deadline)(Worker *, Item *) noexcept nogil               # the one that was set is over
    void (*start_due)(Worker *, Item *) noexcept nogil              # something new is due: start it
    void (*told)(Worker *, Item *) noexcept nogil                   # its callbacks have run

# What a worker gives turns, deadlines and callbacks: a session; in time a datagram socket, a watched descriptor. The
# first of the struct that embeds it.
cdef struct Item:
    Operation operation         # that waits for its input: a session's receive
    Item *next                  # in the worker's due or ready list; of a slab's spare sessions
    Item *next_call             # in the worker's list of calls
    const ItemOps *ops
    uint64_t timer_at           # the deadline it waits for, 0: none
    unsigned int timer_index    # its place in the heap of timers, if there is one
    unsigned int in_flight      # operations, and 1 each for being in the ready list and in the list of calls
    unsigned char ready         # in the due or ready list
    unsigned char calls         # due: bits of enum Call
    unsigned char calling       # in the list of calls

cdef struct ItemList:           # an item is in one at most, linked through itself
    Item *head
    Item *tail


# ---- buffers ----

cdef enum BufferKind:
    POOLED      # RECEIVE_SIZE bytes of a slab; goes back to its pool
    SMALL       # COPY_SIZE bytes, likewise
    BORROWED    # refers to bytes that outlive every session
    COPIED      # storage of its own behind it
    PINNED      # refers to a Python object's bytes, and holds the object

cdef struct Buffer:
    Buffer *next
    char *data              # the bytes that count
    size_t length           # how many
    char *end               # of the storage behind it
    void *pinned            # the Python object
    Slab *slab              # that it is part of
    unsigned int extra      # in the send queue: bytes that a layer has added; the rest are the user's
    unsigned char kind

# Pages of the system for many pooled buffers: apart from the heap, whose small blocks would keep them from going back.
cdef struct Slab:               # behind their bytes
    Slab *next
    char *pages
    unsigned int used           # buffers
    Buffer buffers[SLAB_BUFFERS]

cdef struct BufferList:
    Buffer *head
    Buffer *tail

cdef struct BufferPool:
    Buffer *spare
    Slab *slabs
    size_t size                 # bytes of each buffer
    int64_t made                # buffers, spare or in use
    unsigned char kind


# ---- sessions ----

# What any thread may know of a session, for longer than the session lives: its name, and what it has still to send.
# Held by its session, by the Python object, and by messages.
cdef struct Link:
    LONG holds                  # any thread
    LONG above                  # any thread: a sender was told that the queue is above the high-water mark
    LONG finishes               # any thread, but only the worker writes: it takes no more sends, its end is on the way
    LONG64 given                # any thread, but only under the GIL it is written: bytes that senders have given
    LONG64 low_water            # any thread: bytes queued at which senders may go on
    LONG64 received             # any thread, but only the worker writes: bytes
    LONG64 sent                 # so too: bytes the kernel has taken
    Message *last_send        # any thread, under the inbox's lock: its last item to send, if that is still in there
    uint64_t last_take          # so too: it is, if nothing was taken since this many times
    uint64_t generation         # the worker's, who alone resolves it
    unsigned int slot

cdef enum SessionState:
    FREE            # nobody's: its memory is spare
    CONNECTING      # ConnectEx is in flight
    OPEN            # receives and sends
    FINISHING       # sends what is queued, ends its sending side, discards input until the peer's end
    CLOSING         # starts nothing more; waits until nothing is in flight

# Of a session's one receive. From RECEIVE_POSTED on it is in flight.
cdef enum ReceiveState:
    RECEIVE_NONE
    RECEIVE_DUE         # there is data: a receive of zero bytes has said so, and none with a buffer has begun since
    RECEIVE_POSTED      # into buffers
    RECEIVE_YIELDING    # ... and it is idle, and its buffer is to go back: it was cancelled, where that may be
    RECEIVE_WAITING     # of zero bytes: it holds no buffer

cdef enum CloseReason:
    BY_US
    BY_PEER         # the peer has ended, and we have answered
    BY_ERROR        # a receive or send failed: reset, lost, refused
    BY_TIMEOUT      # the peer neither read nor ended in time
    BY_EXCEPTION    # a callback has raised it: aborted by us

cdef struct Session:
    Item item                   # its operation is the receive
    Operation send              # ConnectEx's too: nothing is sent before it ends
    SOCKET socket
    Worker *worker
    Listener *listener          # NULL if we connected
    Handler *handler
    const SessionOps *ops
    void *handler_data
    const LayerOps *layer       # between the user's bytes and the wire's; NULL: they are the same
    void *layer_data
    Link *link                  # NULL: its handler is native
    void *python                # the Python object, held from on_connect till on_close
    uint64_t generation         # no other session of the worker has it: (slot, generation) names one for ever
    unsigned int slot
    unsigned char state
    unsigned char reason
    unsigned char skips         # inline successes post no packet
    unsigned char receive       # enum ReceiveState
    unsigned char filled        # what came last filled all its room, and the next has more: the rest is there as a rule
    unsigned char more_buffers  # beside the first, to receive into: as many as what came before has asked for
    unsigned char seldom        # it has been idle of late: so many receives more wait without a buffer
    unsigned char sending       # a send is in flight
    unsigned char connected
    unsigned char peer_ended
    unsigned char end_sent
    unsigned char resets        # closing its socket is to break the connection off
    unsigned char ending        # the sending side is to end when the queue is empty
    unsigned char last_word     # the layer has queued what it says before that
    unsigned char leaving       # it is to finish as soon as it is connected
    unsigned char shutdown_due  # CALL_SHUTDOWN is to come, after what its peer has sent by now
    unsigned char end_told      # CALL_END is due or over
    unsigned char close_told    # CALL_CLOSE is over, or will never be
    int error                   # the system's number of what ended it, or 0
    unsigned int queue_buffers
    Buffer *posted              # the kernel fills it, or will: a chain
    Buffer *inbound             # received, and not yet taken: a chain of pooled buffers
    BufferList queue            # to be sent, the part that is in flight included
    size_t queue_bytes
    size_t queue_extra          # of them, those that a layer has added
    uint64_t active_at          # when it last received, nanoseconds
    uint64_t sent_at            # when its sending last made progress; while it connects: when that began
    uint64_t taken              # bytes that the peer's system had when a send that pends was begun, or last looked at
    uint64_t closing_at         # when its end last made progress
    unsigned int paused         # the handler wants no data; 2 while a resume from before the pause is in the inbox

# Pages of the system for many sessions, which go back when nobody lives in them.
cdef struct SessionSlab:
    SessionSlab *next           # of those with room
    Session *spare              # used before
    unsigned int number         # the slots of its sessions begin at number * SLAB_SESSIONS
    unsigned int used           # sessions that are not FREE
    unsigned int made           # those behind have never been used: their pages are untouched
    Session sessions[1]         # SLAB_SESSIONS

cdef struct SessionTable:
    SessionSlab **slabs         # by number; NULL: given back
    unsigned int count          # numbers that there are
    unsigned int room
    SessionSlab *roomy          # slabs with room, the one that was full last first
    uint64_t opened             # sessions, ever: the last one's generation
    unsigned int active

cdef struct Timer:
    uint64_t at
    Item *item                  # whose timer_at is the same

cdef struct TimerHeap:
    Timer *timers
    size_t count
    size_t room


# ---- listeners ----

cdef struct Accept:
    Operation operation
    Listener *listener
    SOCKET placeholder
    IOCP_EVENT event            # of a shared listener: open from its arming until nothing is in flight
    unsigned char in_flight
    unsigned char updated       # the accepted socket has its context from the listening one, which is closed
    char addresses[2 * (28 + 16)]   # AcceptEx wants sockaddr_in6 and 16 bytes, twice

# Any thread; where one is set, `sessions` changes under the lock of the proactor's Places.
cdef struct Limit:
    LONG sessions               # served, or on their way to their worker
    LONG most                   # 0: any number

# A connection that was accepted and waits for a place.
cdef struct Waiting:
    Waiting *next
    Listener *listener
    SOCKET socket

cdef struct WaitingList:
    Waiting *head
    Waiting *tail

# The places of a proactor's sessions, and the connections that wait for one, the oldest first. Any thread, under its
# lock, which is a leaf.
cdef struct Places:
    SRWLOCK lock
    Limit limit                 # of all listeners together; each listener has its own beside it
    WaitingList line

cdef struct Listener:
    SOCKET socket
    int family
    Worker *worker              # arms it, and owns all that follows
    Handler *handler
    void *python                # the Python object
    Accept accepts[ACCEPTS]
    unsigned int in_flight
    unsigned int waiting        # connections that were accepted and are not yet served, for want of a place
    unsigned int failures       # accepts that failed since the last that did not
    Limit limit
    LONG64 accepted             # any thread: connections
    LONG64 refused              # any thread: of them, those closed at once
    unsigned char refuses       # connections beyond that, instead of letting them wait
    unsigned char shared        # other processes listen on the socket too
    unsigned char given         # by the user: others may listen on the socket, and go on when this listener closes
    unsigned char lingers       # accepted sockets inherit SO_LINGER from it
    unsigned char no_delay      # its sessions' sockets have that from its own
    unsigned char closing
    uint64_t serving[4]         # bits, WORKERS_MOST of them: the workers that its sessions may go to
    int error                   # why it could not be armed, or 0
    unsigned char answered      # `error` is known; both under its worker's published_lock
    PyThread_type_lock armed    # released by the worker then
    PyThread_type_lock unlistened   # released by the worker when the socket is closed
    LONG holds                  # any thread: its worker, its sessions, messages; at 0 nobody will look at it again
    Listener *next              # of its worker


# ---- handlers ----

# What a listener or a connect wants for its sessions. Times in nanoseconds, 0: for ever.
cdef struct Settings:
    uint64_t idle_timeout       # neither received nor sent anything
    uint64_t connect_timeout
    uint64_t send_timeout       # the peer takes nothing of what is queued
    uint64_t linger             # waiting for the peer's end after ours
    size_t high_water           # bytes queued above which senders are told, and a native handler stops receiving
    size_t low_water            # bytes queued at which they may go on
    size_t send_limit           # bytes queued from which on a send is refused, 0: never
    unsigned int receive_size   # bytes of one receive, at most RECEIVE_MOST
    unsigned int keep_alive_idle    # seconds, 0: no keep-alive
    unsigned int keep_alive_interval
    unsigned int keep_alive_probes
    bint no_delay

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

# What has become of a receive.
cdef enum Received:
    RECEIVED_DATA       # in session.inbound
    RECEIVED_NOTHING    # the buffer was given back, or the zero-byte receive says that there is something
    RECEIVED_PART       # of something that the layer cannot give to the handler before the rest has come
    RECEIVED_END        # the peer has finished sending
    RECEIVED_ERROR      # session.error says why

# A layer stands between the user's bytes and those on the wire: TLS, for example. Each is called in the worker's
# thread, without the GIL. False: memory is short.
#
# write() owns the chain of the user's bytes, and queues them in their form on the wire: of a buffer all or nothing.
# read() finds the wire's bytes in session.inbound, gives the user's by input_give(), and sets session.peer_ended if the
# peer says that it sends no more. end() queues our own last word. ended() is called when the peer's system has ended
# the connection without one: False makes that an error.
cdef struct LayerOps:
    bint (*open)(Worker *, Session *) noexcept nogil        # make layer_data
    bint (*write)(Worker *, Session *, Buffer *chain) noexcept nogil
    Received (*read)(Worker *, Session *) noexcept nogil
    bint (*end)(Worker *, Session *) noexcept nogil
    bint (*ended)(Worker *, Session *) noexcept nogil
    void (*close)(Worker *, Session *) noexcept nogil       # free layer_data

# What becomes of a session's bytes. Each is called in the worker's thread, without the GIL.
cdef struct SessionOps:
    bint (*opened)(Worker *, Session *) noexcept nogil      # there is a connection; False: no memory to serve it
    bint (*data)(Worker *, Session *) noexcept nogil        # session.inbound has come; False: abort the session
    void (*discarded)(Worker *, Session *) noexcept nogil   # session.inbound came after finish()
    void (*closed)(Worker *, Session *) noexcept nogil      # once, when nothing of it is in flight any more
    void (*refused)(Worker *, Handler *, int error) noexcept nogil  # a session that was to connect never came to be
    bint throttled              # above the high-water mark nothing more is received: it would be queued, too

cdef struct Handler:
    SessionOps ops
    const LayerOps *layer       # of its sessions; NULL: none
    unsigned char wants         # bits of enum Call: the callbacks there are
    bint wants_names            # its accepts bring the addresses of both ends
    Load *load
    void *callbacks             # the Python object that has them
    Settings settings


# ---- workers ----

# What another thread asks of a worker, or of one of its sessions.
cdef struct Message:
    Message *next
    bint (*run)(Worker *, Message *) noexcept nogil     # the worker does it; False: it keeps the message, for Python
    void (*request)(Worker *, Session *) noexcept nogil     # ... of the session of the link, unless that has gone
    int error                   # why it could not be done
    Listener *listener
    Handler *handler
    Link *link
    void *python                # a Python object that it holds: a Session, or a function and its arguments
    SOCKET socket
    Buffer *buffer
    SOCKADDR_STORAGE *address
    int address_length

cdef struct MessageList:
    Message *head
    Message *tail

# More waits than a worker that keeps up ever has, or for longer.
cdef enum Overdue:
    NOT_OVERDUE
    OVERDUE
    OVERDUE_TOLD    # and the log has it already: the thread that put it in has seen to that

# Any thread, under its lock. The lock is a leaf: under it no Python, and no other lock.
cdef struct Inbox:
    SRWLOCK lock
    MessageList messages
    LONG waiting                # any thread reads it without the lock: 1 while there is an item
    LONG overdue                # likewise: enum Overdue
    size_t items                # that wait
    size_t bytes                # to be sent, of them
    uint64_t since              # when the oldest was put in
    uint64_t takes              # times that the worker has emptied it
    unsigned char posted        # a packet is on its way that will make the worker look
    unsigned char closed        # nothing is taken any more: the worker has ended, or is about to
    uint64_t close_by           # when what is left must be aborted, 0: nobody has asked the worker to close

# What an operator is warned of: see warn.pxd.
cdef enum Trouble:
    TROUBLE_ACCEPT      # new connections cannot be taken, for want of descriptors or memory, or on and on
    TROUBLE_CONNECT     # a connect lacked descriptors or memory
    TROUBLE_UNHEARD     # a connection never came to be, and its handler has no on_close
    TROUBLE_DEQUEUE     # the port gives no packets any more
    TROUBLE_INBOX       # it is overdue
    TROUBLES

cdef struct Warning:
    LONG64 count        # any thread: times, since the log had it
    LONG64 told_at      # any thread, but only under the GIL it is written: when the log had it, nanoseconds; 0: never
    LONG error          # any thread: the last one's
    LONG worker         # any thread: the last one's

# A port whose dequeues go on failing.
cdef enum Broken:
    NOT_BROKEN
    BROKEN          # its sessions end with the error
    LEFT_BEHIND     # ... and what did not end by what the port still had is leaked

cdef struct Worker:
    HANDLE port
    int index
    Worker *peers               # all workers of the proactor, this one among them
    int peer_count
    Inbox inbox                 # any thread
    LONG load                   # any thread: sessions here, reserved places included
    Places places               # the first worker's are those of the whole proactor
    WaitingList granted         # any thread, under the lock of those: its listeners' connections that have a place now
    LONG is_granted             # any thread reads it without the lock: 1 while there is one
    SRWLOCK published_lock
    Stats published             # any thread, under published_lock
    Stats stats
    uint64_t now                # nanoseconds, read once a batch
    uint64_t seen_at            # when it last dequeued: deadlines are counted up to here
    SessionTable sessions
    BufferPool buffers          # to receive into, and for larger copies
    BufferPool copies           # for small ones
    Buffer *headers             # spare buffers without storage
    int64_t buffers_enough      # with more of them in use, sessions wait for data without one
    bint reclaims               # the receive of an idle session is cancelled, to take its buffer back
    uint64_t trim_at            # when slabs that nobody uses go back to the system, 0: all are in use
    TimerHeap timers
    ItemOps session_ops         # of its sessions
    ItemList due                # items to which something new is due
    ItemList ready              # items that have had their turn, or would move much: they go on after those before
    Item *waited             # the last of those that were there when this round began, or NULL
    bint contended              # in this round those that move much take little at a time
    uint64_t contended_until    # when that ends
    uint64_t large_until         # until then somebody is believed to receive much
    uint64_t round_until        # bytes received and sent with which this round has moved what it may
    ItemList calls              # items whose handlers in Python are to be called after this batch
    MessageList python          # functions to be called, and connections that never came to be
    Buffer *unpinned            # their Python objects are to be let go
    void (*close)(Worker *, uint64_t by) noexcept nogil     # what the inbox asks for beside its messages
    void (*attach)(Worker *, Item *) noexcept nogil     # takes the GIL, and does all that; from this item on
    uint64_t attached_at        # when it last had the GIL
    uint64_t gil_wait           # nanoseconds it had waited for that
    uint64_t told               # bytes received when callbacks last ran
    unsigned long thread        # Python's identity of the thread that is attached, 0: none is
    void *callback              # under the GIL: the name of the callback that Python is in, NULL: of none
    void *callee                # ... and the Session, or the function that was posted
    Warning warnings[5]         # TROUBLES; any thread: the first worker's are those of the whole proactor
    uint64_t warn_at            # when some of them are to be logged, 0: none is
    uint64_t warn_period
    sockaddr_in6 unheard        # the peer of the last TROUBLE_UNHEARD
    Listener *listeners
    uint64_t retry_at           # when refused accepts are posted again, 0: none are
    uint64_t close_at           # closing: when what is left is aborted; the inbox's, as the worker knows it
    uint64_t leave_at           # closing: when what has not even drained is left behind, if nothing more gets done
    uint64_t done               # closing: what was done when leave_at was set
    unsigned int failed         # dequeues, in a row
    int broken_by               # the error of the last
    unsigned char broken        # enum Broken
    unsigned char closing
    unsigned char shutdown_due  # closing: there may be sessions that are yet to be told
    unsigned char shutdown_over  # closing: the drain is over, and nobody is to be told any more
    unsigned char skip_on_success
    unsigned char abandoned     # we are a child that a callback has forked: all this is the parent's
    PyThread_type_lock ended    # any thread: released when the worker touches nothing any more
    OVERLAPPED_ENTRY entries[BATCH]
