# The structs of all layers, in one file because they refer to each other: operations, items, buffers, sessions,
# listeners, workers. Data only.
#
# Ownership: the kernel owns an Operation from before its start until its packet is dequeued; the core counts it in
# flight for longer, until the packet's step is over. Operations are embedded in what they work for (a session, an
# accept), so that memory is never freed while one of them is in flight.
# Threads: everything below a Worker belongs to that worker's thread, except what is marked "any thread".
from libc.stdint cimport int64_t, uint64_t
from cpython.pythread cimport PyThread_type_lock
from iocp cimport (
    DWORD, HANDLE, IOCP_EVENT, LONG, LONG64, OVERLAPPED, OVERLAPPED_ENTRY, SOCKADDR_STORAGE, SOCKET, SRWLOCK,
    sockaddr_in6)
from stats cimport Stats
from tuning cimport ACCEPTS, BATCH, SLAB_BUFFERS

cdef enum:
    WORKERS_MOST = 256

# The result of a start.
cdef enum Started:
    PENDING     # a packet will come
    INLINE      # it has succeeded, and no packet will come
    FAILED      # it was never in flight, and no packet will come

cdef struct Operation:
    OVERLAPPED overlapped   # first, so that a packet's pointer to it points to the Operation
    void (*completed)(Worker *, Operation *, int status, DWORD bytes) noexcept nogil    # its packet's step
    void *owner             # the Session, or the Accept itself


# ---- items ----

# The callbacks that are due to an item's handler in Python. They are called in this order.
cdef enum Call:
    CALL_CONNECT = 1
    CALL_RECEIVE = 2
    CALL_END = 4
    CALL_DRAIN = 8
    CALL_SHUTDOWN = 16
    CALL_CLOSE = 32

# The functions by which the loop runs an item. `turn` does what is due, at most `most` steps, and with `small_only`
# nothing large.
#
# deliver() is called with the GIL. It runs the callbacks of the item, and of those of its kind that follow it in the
# list of calls, and returns the first of another kind, or NULL.
cdef struct ItemOps:
    Item *(*deliver)(Worker *, Item *) noexcept
    void (*turn)(Worker *, Item *, int most, bint small_only) noexcept nogil
    void (*deadline)(Worker *, Item *) noexcept nogil               # the time that was set has come
    void (*start_due)(Worker *, Item *) noexcept nogil              # something new is due: start it
    void (*told)(Worker *, Item *) noexcept nogil                   # its callbacks have run

# What a worker gives turns, deadlines and callbacks: today a session, in time also a datagram socket or a watched
# descriptor. It is the first field of the struct that embeds it.
cdef struct Item:
    Operation operation         # waits for its input: a session's receive
    Item *next                  # in the worker's due or ready list, or among a slab's spare sessions
    Item *next_call             # in the worker's list of calls
    const ItemOps *ops
    uint64_t timer_at           # the time of its entry in the heap of timers, 0: it has none
    unsigned int timer_index    # the index of that entry
    unsigned int in_flight      # operations, and 1 for each list it is in: due or ready, and calls
    unsigned char ready         # in the due or ready list
    unsigned char calls         # the callbacks that are due: bits of enum Call
    unsigned char calling       # in the list of calls

cdef struct ItemList:           # an item is in one at most, linked through itself
    Item *head
    Item *tail


# ---- buffers ----

cdef enum BufferKind:
    POOLED      # RECEIVE_SIZE bytes of a slab; goes back to its pool
    SMALL       # COPY_SIZE bytes, likewise
    BORROWED    # refers to bytes that outlive every session
    COPIED      # has storage of its own, behind the struct
    PINNED      # refers to a Python object's bytes, and holds the object

cdef struct Buffer:
    Buffer *next
    char *data              # its bytes
    size_t length           # how many there are
    char *end               # of its storage
    void *pinned            # PINNED: the Python object
    Slab *slab              # POOLED, SMALL: the slab that it is part of
    unsigned int extra      # in the send queue: bytes that a layer has added; the rest are the user's
    unsigned char kind

# Pages of the system for many pooled buffers. In the heap, small blocks that share their pages would keep these from
# going back to the system.
cdef struct Slab:               # in the pages, behind the bytes of its buffers
    Slab *next
    char *pages
    unsigned int used           # buffers in use
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

# What any thread may know of a session, also after the session has ended: its name, and its counts of bytes. The
# session, its Python object and messages hold it.
cdef struct Link:
    LONG holds                  # any thread
    LONG above                  # any thread: a sender was told that the queue is above the high-water mark
    LONG finishes               # any thread; written by the worker: the session ends, and takes no more sends
    LONG64 given                # any thread; written under the GIL: bytes that senders have given
    LONG64 high_water           # under the GIL: bytes queued above which senders are told to wait
    LONG64 low_water            # any thread: bytes queued at which they may go on
    LONG64 received             # any thread; written by the worker: the user's bytes that have come
    LONG64 sent                 # any thread; written by the worker: the user's bytes that the kernel has taken
    Message *last_send          # under the inbox's lock: the last send, if last_take is still the inbox's `takes`
    uint64_t last_take          # under the inbox's lock: its `takes` when last_send was put in
    uint64_t generation         # with `slot` the session's name; only the worker resolves it
    unsigned int slot

cdef enum SessionState:
    FREE            # no session: its memory is spare
    CONNECTING      # ConnectEx is in flight
    OPEN            # receives and sends
    FINISHING       # sends what is queued, ends its sending side, discards input until the peer's end
    CLOSING         # starts nothing more; waits until nothing is in flight

# The state of a session's one receive. From RECEIVE_POSTED on it is in flight.
cdef enum ReceiveState:
    RECEIVE_NONE
    RECEIVE_DUE         # a zero-byte receive has announced data, and no receive with a buffer has begun since
    RECEIVE_POSTED      # into buffers
    RECEIVE_YIELDING    # ... but the session is idle: the buffer is to go back. Cancelled if the worker reclaims
    RECEIVE_WAITING     # zero bytes: it holds no buffer

cdef enum CloseReason:
    BY_US
    BY_PEER         # the peer has ended its side, and we have ended ours
    BY_ERROR        # a receive or send failed: reset, lost, refused
    BY_TIMEOUT      # connecting, idle, sending, or waiting for the peer's end took too long
    BY_EXCEPTION    # a callback has raised an exception, so we have aborted

cdef struct Session:
    Item item                   # its operation is the receive
    Operation send              # also ConnectEx's operation: nothing is sent before that ends
    SOCKET socket
    Worker *worker
    Listener *listener          # NULL: connect() or adopt() made the session
    Handler *handler
    const SessionOps *ops
    void *handler_data
    const LayerOps *layer       # between the user's bytes and the wire's; NULL: they are the same
    void *layer_data
    Link *link                  # NULL: it has no Python object
    void *python                # the Python object, held until on_close; a listener's session has it from on_connect
    uint64_t generation         # unique in the worker: (slot, generation) never names another session
    unsigned int slot
    unsigned char state
    unsigned char reason
    unsigned char skips         # inline successes post no packet
    unsigned char receive       # enum ReceiveState
    unsigned char filled        # the last receive was full, and the next has several buffers: more data is likely there
    unsigned char more_buffers  # of the next receive, beside the first: plan_next() says how many
    unsigned char seldom        # it was idle lately: for so many messages more it waits without a buffer
    unsigned char sending       # a send is in flight
    unsigned char connected
    unsigned char peer_ended
    unsigned char end_sent
    unsigned char resets        # closing its socket resets the connection
    unsigned char ending        # the sending side ends when the queue is empty
    unsigned char last_word     # the layer has queued its last word, which goes before that end
    unsigned char leaving       # CONNECTING: it finishes as soon as it is connected
    unsigned char shutdown_due  # CALL_SHUTDOWN is still to come, after data that came before closing began
    unsigned char end_told      # CALL_END is due or over
    unsigned char close_told    # CALL_CLOSE is over, or will never come
    int error                   # the system's number of the error that ended it, or 0
    unsigned int queue_buffers
    Buffer *posted              # a chain that the kernel fills, or that the next receive will use
    Buffer *inbound             # received, and not yet taken: a chain of pooled buffers
    BufferList queue            # to be sent, including the part in flight
    size_t queue_bytes
    size_t queue_extra          # bytes among these that a layer has added
    uint64_t active_at          # when it last received, nanoseconds
    uint64_t sent_at            # when its last send began or made progress; CONNECTING: when that began
    uint64_t taken              # iocp_taken() when the pending send began, or when it was last looked at
    uint64_t closing_at         # when its end began, or last made progress
    unsigned int paused         # not 0: the handler wants no data; 2 while an older resume() is still in the inbox

# Pages of the system for many sessions. They go back when no session is left in them.
cdef struct SessionSlab:
    SessionSlab *next           # in the list of slabs with room
    Session *spare              # sessions that were used before, and are FREE
    unsigned int number         # the slots of its sessions begin at number * SLAB_SESSIONS
    unsigned int used           # sessions that are not FREE
    unsigned int made           # the sessions behind these have never been used: their pages are untouched
    Session sessions[1]         # SLAB_SESSIONS

cdef struct SessionTable:
    SessionSlab **slabs         # by number; NULL: given back
    unsigned int count          # of numbers, including those of slabs that were given back
    unsigned int room
    SessionSlab *roomy          # the list of slabs with room; the last that was full is its first
    uint64_t opened             # sessions ever opened: the last one's generation
    unsigned int active

cdef struct Timer:
    uint64_t at
    Item *item                  # its timer_at is the same

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
    unsigned char updated       # its socket has got its context, before the listening socket was closed
    char addresses[2 * (28 + 16)]   # AcceptEx needs room for a sockaddr_in6 and 16 bytes, twice

# Any thread. Where a limit is set, `sessions` changes under the lock of the proactor's Places.
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
    Limit limit                 # of all listeners together; each listener also has one of its own
    WaitingList line

cdef struct Listener:
    SOCKET socket
    int family
    Worker *worker              # arms it, and owns all that follows
    Handler *handler
    void *python                # the Python object
    Accept accepts[ACCEPTS]
    unsigned int in_flight
    unsigned int waiting        # accepted connections that are not yet served: they wait for a place
    unsigned int failures       # accepts that have failed in a row
    Limit limit
    LONG64 accepted             # any thread: connections accepted
    LONG64 refused              # any thread: connections among these that were closed at once
    unsigned char refuses       # above its limit it closes connections, instead of letting them wait
    unsigned char shared        # other processes listen on the socket too
    unsigned char given         # the user gave the socket: others may listen on it, and go on when this listener closes
    unsigned char lingers       # accepted sockets inherit SO_LINGER from it
    unsigned char no_delay      # its sessions' sockets inherit TCP_NODELAY from its own
    unsigned char closing
    uint64_t serving[4]         # WORKERS_MOST bits: the workers that may serve its sessions
    int error                   # why it could not be armed, or 0
    unsigned char answered      # `error` is known; both under its worker's published_lock
    PyThread_type_lock armed    # released by the worker when `error` is known
    PyThread_type_lock unlistened   # released by the worker when the socket is closed
    LONG holds                  # any thread: by its worker, sessions and messages; at 0 the core refers to it no more
    Listener *next              # in its worker's list


# ---- handlers ----

# The settings of a listener's sessions, or of a connect's. Times are in nanoseconds.
cdef struct Settings:
    uint64_t idle_timeout       # without receiving or sending anything, 0: no timeout
    uint64_t connect_timeout    # 0: no timeout
    uint64_t send_timeout       # while the peer takes nothing of what is queued, 0: no timeout
    uint64_t linger             # to wait for the peer's end after ours, 0: not at all
    size_t high_water           # bytes queued above which senders are told to wait; where ECHO stops receiving
    size_t low_water            # bytes queued at which they may go on
    size_t send_limit           # with that many bytes queued send() refuses more, 0: never
    unsigned int receive_size   # bytes of one receive, at most RECEIVE_MOST
    unsigned int keep_alive_idle    # seconds, 0: no keep-alive
    unsigned int keep_alive_interval
    unsigned int keep_alive_probes
    bint no_delay

cdef enum:
    LATENCY_OCTAVE = 64         # histogram buckets per power of two: an error of 1.6 %
    LATENCY_BUCKETS = 64 * 40

cdef struct LoadRow:            # the counts of one worker; any thread, under its lock
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
    LoadRow *rows               # one for each worker
    LONG remaining              # any thread: connections that are not over
    PyThread_type_lock done     # released when none remains

# The result of a receive.
cdef enum Received:
    RECEIVED_DATA       # in session.inbound
    RECEIVED_NOTHING    # its buffer was given back, or a zero-byte receive has announced data
    RECEIVED_PART       # the layer gives nothing to the handler before the rest has come
    RECEIVED_END        # the peer has finished sending
    RECEIVED_ERROR      # session.error says why

# A layer stands between the user's bytes and those on the wire: TLS, for example. Its functions are called in the
# worker's thread, without the GIL. open(), write() and end() return False without memory.
#
# write() owns the chain of the user's bytes, and queues them in the form they have on the wire; it queues each buffer
# whole or not at all. read() owns the chain of the wire's bytes, hands the user's on by input_give(), and sets
# session.peer_ended once the peer's last word has come; RECEIVED_DATA says that it gave some. end() queues our own
# last word. ended() is called when the peer's system ends the stream and no last word has come; False makes that an
# error, session.error. After on_close the session's handler is nobody's: close() must not ask it.
cdef struct LayerOps:
    bint (*open)(Worker *, Session *) noexcept nogil        # make layer_data
    bint (*write)(Worker *, Session *, Buffer *chain) noexcept nogil
    Received (*read)(Worker *, Session *, Buffer *wire) noexcept nogil
    bint (*end)(Worker *, Session *) noexcept nogil
    bint (*ended)(Worker *, Session *) noexcept nogil
    void (*close)(Worker *, Session *) noexcept nogil       # free layer_data

# The behaviour of a session. Its functions are called in the worker's thread, without the GIL.
cdef struct SessionOps:
    bint (*opened)(Worker *, Session *) noexcept nogil      # there is a connection; False: no memory to serve it
    bint (*data)(Worker *, Session *) noexcept nogil        # data is in session.inbound; False: abort the session
    void (*discarded)(Worker *, Session *) noexcept nogil   # the data in session.inbound came after finish()
    void (*closed)(Worker *, Session *) noexcept nogil      # once: at its release, or when it is left behind
    void (*refused)(Worker *, Handler *, int error) noexcept nogil  # a connect got no session
    bint throttled              # above high water it stops receiving: it would queue that too

cdef struct Handler:
    SessionOps ops
    const LayerOps *layer       # its sessions' layer; NULL: none
    unsigned char wants         # the callbacks that it has: bits of enum Call
    bint wants_names            # its accepts bring the addresses of both ends
    Load *load
    void *callbacks             # the Python object that has them
    Settings settings


# ---- workers ----

# A request by another thread, to a worker or to one of its sessions.
cdef struct Message:
    Message *next
    bint (*run)(Worker *, Message *) noexcept nogil     # called by the worker; False: it keeps the message, for Python
    void (*request)(Worker *, Session *) noexcept nogil     # do_request(): called unless the link's session has ended
    int error                   # why the request failed
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

# Is an inbox overdue? Then more waits in it, or for longer, than where the worker keeps up.
cdef enum Overdue:
    NOT_OVERDUE
    OVERDUE
    OVERDUE_TOLD    # ... and logged already, by a thread that put a message in

# Any thread, under its lock. The lock is a leaf: under it no Python, and no other lock.
cdef struct Inbox:
    SRWLOCK lock
    MessageList messages
    LONG waiting                # any thread reads it without the lock: 1 while a message waits
    LONG overdue                # likewise: enum Overdue
    size_t items                # messages that wait
    size_t bytes                # to be sent, in all of these
    uint64_t since              # when the oldest was put in
    uint64_t takes              # times that the worker has emptied it
    unsigned char posted        # a packet is on its way that will make the worker look
    unsigned char closed        # it takes no more messages: the worker has ended, or is about to
    uint64_t close_by           # when sessions that are left are aborted, 0: the worker was not asked to close

# The troubles that an operator is warned of: see warn.pxd.
cdef enum Trouble:
    TROUBLE_ACCEPT      # accepting fails for want of descriptors or memory, or again and again
    TROUBLE_CONNECT     # a connect lacked descriptors or memory
    TROUBLE_UNHEARD     # connecting or adopting failed, and the handler has no on_close
    TROUBLE_DEQUEUE     # the port gives no packets any more
    TROUBLE_INBOX       # an inbox is overdue
    TROUBLES

cdef struct Warning:
    LONG64 count        # any thread: how often it came since it was logged
    LONG64 told_at      # any thread; written under the GIL: when it was logged, nanoseconds; 0: never
    LONG error          # any thread: the last error
    LONG worker         # any thread: the index of the worker that met it last

# The state of a worker whose dequeues keep failing.
cdef enum Broken:
    NOT_BROKEN
    BROKEN          # its sessions end with the error
    LEFT_BEHIND     # ... and the operations that have still not ended are leaked

cdef struct Worker:
    HANDLE port
    int index
    Worker *peers               # all workers of the proactor, including this one
    int peer_count
    Inbox inbox                 # any thread
    LONG load                   # any thread: sessions here, and places reserved for more
    Places places               # the first worker's are those of the whole proactor
    WaitingList granted         # any thread, under their lock: connections of its listeners that now have a place
    LONG is_granted             # any thread reads it without the lock: 1 while there is one
    SRWLOCK published_lock
    Stats published             # any thread, under published_lock
    Stats stats
    uint64_t now                # nanoseconds; read at each dequeue, and when callbacks have run
    uint64_t seen_at            # when it last dequeued: deadlines up to then are over
    SessionTable sessions
    BufferPool buffers          # to receive into, and for larger copies
    BufferPool copies           # for small ones
    Buffer *headers             # spare buffers without storage
    int64_t buffers_enough      # above this many in use, sessions wait for data without a buffer
    bint reclaims               # the receive of an idle session is cancelled, to take its buffer back
    uint64_t trim_at            # when unused slabs go back to the system, 0: there are none
    TimerHeap timers
    ItemOps session_ops         # of its sessions
    ItemList due                # items that have something new to do
    ItemList ready              # items that have had their turn, or would move much: each waits for a turn
    Item *waited                # the last item of the ready list when this round began, or NULL
    bint contended              # in this round turns are short, and large receives take few buffers
    uint64_t contended_until    # when contention ends
    uint64_t large_until         # until then a session is taken to receive much
    uint64_t round_until        # when moved() has come to this, the round has spent its budget
    ItemList calls              # items whose handlers in Python are to be called after this batch
    MessageList python          # posted functions to be called, and failed connects and adopts to be told
    Buffer *unpinned            # buffers: their Python objects are to be released
    void (*close)(Worker *, uint64_t by) noexcept nogil     # called when the inbox asks the worker to close
    void (*attach)(Worker *, Item *) noexcept nogil     # takes the GIL, and runs all calls, from this item on
    uint64_t attached_at        # when it last had the GIL
    uint64_t gil_wait           # how many nanoseconds it waited for it then
    uint64_t told               # bytes received when callbacks last ran
    unsigned long thread        # Python's identifier of the thread that is attached, 0: none is
    void *callback              # under the GIL: the name of the callback that runs, NULL: none does
    void *callee                # under the GIL: its Session, or the function that was posted
    Warning warnings[5]         # TROUBLES; any thread: the first worker's are those of the whole proactor
    uint64_t warn_at            # when a warning is to be logged, 0: none is
    uint64_t warn_period
    sockaddr_in6 unheard        # the peer of the last TROUBLE_UNHEARD
    Listener *listeners
    uint64_t retry_at           # when retry_accepts() is due, 0: it is not
    uint64_t close_at           # closing: when sessions that are left are aborted, 0: that is done
    uint64_t leave_at           # closing: when it leaves and leaks what has not ended, unless it makes progress before
    uint64_t done               # closing: done_by() when leave_at was set
    unsigned int failed         # dequeues that failed in a row
    int broken_by               # the error of the last of them
    unsigned char broken        # enum Broken
    unsigned char closing
    unsigned char shutdown_due  # closing: some sessions may still have to be told
    unsigned char shutdown_over  # closing: the drain is over, and all sessions have been told
    unsigned char skip_on_success
    unsigned char abandoned     # this process was forked in a callback: everything here is the parent's
    PyThread_type_lock ended    # any thread: released when the worker touches nothing any more
    OVERLAPPED_ENTRY entries[BATCH]
