# Sessions: the table of a worker's connections, their names, and what keeps one from being released.
#
# Ownership: a session belongs to its worker's table for ever; its memory is reused, never freed while the worker lives.
# It is held once for each operation in flight, and released when it is CLOSING, held by nothing and its socket closed.
# Then its generation rises: whoever still has the old (slot, generation) resolves it to nothing.
# A session holds its listener, whose memory Python frees when nobody does.
# Threads: the worker's own, but for the counts: a worker's load, holds, places.
from libc.stdlib cimport calloc, free, realloc
from iocp cimport INVALID_SOCKET, InterlockedDecrement, InterlockedIncrement, SOCKET, closesocket
from buffer cimport buffer_release, chain_release
from link cimport link_drop
from mutant cimport GENERATION_NOT_RAISED, LISTENER_NOT_HELD, mutant
from operation cimport CLOSING, FREE, Buffer, Handler, Limit, Listener, Session, SessionTable, Worker
from timer cimport timer_drop


cdef inline bint session_table_grow(SessionTable *table) noexcept nogil:
    cdef unsigned int room = 2 * table.room if table.room else 64
    cdef Session **grown = <Session **> realloc(table.slots, room * sizeof(Session *))
    if grown == NULL:
        return False
    table.slots = grown
    table.room = room
    return True


cdef inline Session *session_make(Worker *worker) noexcept nogil:
    """A session in a slot of its own, or NULL without memory."""
    cdef SessionTable *table = &worker.sessions
    cdef Session *session
    if table.used == table.room and not session_table_grow(table):
        return NULL
    session = <Session *> calloc(1, sizeof(Session))
    if session == NULL:
        return NULL
    session.worker = worker
    session.slot = table.used
    session.socket = INVALID_SOCKET
    table.slots[table.used] = session
    table.used += 1
    return session


cdef inline Session *session_open(Worker *worker, SOCKET socket, unsigned char state, Handler *handler,
                                  Listener *listener) noexcept nogil:
    """A session that owns the socket, or NULL without memory: then the socket is still the caller's."""
    cdef SessionTable *table = &worker.sessions
    cdef Session *session = table.free
    if session != NULL:
        table.free = session.next
    else:
        session = session_make(worker)
        if session == NULL:
            return NULL
    session.next = NULL
    session.socket = socket
    session.state = state
    session.handler = handler
    session.listener = listener
    if listener != NULL and not mutant(LISTENER_NOT_HELD):
        InterlockedIncrement(&listener.holds)
    session.active_at = worker.now
    session.sent_at = worker.now
    table.active += 1
    worker.stats.active += 1
    return session


cdef inline Session *session_resolve(Worker *worker, unsigned int slot, unsigned int generation) noexcept nogil:
    """The session of that name, or NULL: it has gone, and perhaps another lives in its slot."""
    cdef Session *session
    if slot >= worker.sessions.used:
        return NULL
    session = worker.sessions.slots[slot]
    if session.state == FREE or session.generation != generation:
        return NULL
    return session


cdef inline void session_hold(Session *session) noexcept nogil:
    session.in_flight += 1


cdef inline void session_drop(Session *session) noexcept nogil:
    session.in_flight -= 1


cdef inline bint session_releasable(Session *session) noexcept nogil:
    return session.state == CLOSING and session.in_flight == 0


cdef inline void session_close_socket(Session *session) noexcept nogil:
    if session.socket != INVALID_SOCKET:
        closesocket(session.socket)
        session.socket = INVALID_SOCKET


cdef inline void session_free_buffers(Worker *worker, Session *session) noexcept nogil:
    cdef Buffer *buffer
    chain_release(worker, session.input)
    session.input = NULL
    while session.queue_head != NULL:
        buffer = session.queue_head
        session.queue_head = buffer.next
        worker.stats.bytes_unsent += buffer.length
        worker.stats.bytes_queued -= buffer.length
        buffer_release(worker, buffer)
    session.queue_tail = NULL
    session.queue_buffers = 0
    session.queue_bytes = 0


cdef inline bint limit_take(Limit *limit) noexcept nogil:
    """One session more; False if that would be too many."""
    if InterlockedIncrement(&limit.sessions) <= limit.most or limit.most == 0:
        return True
    InterlockedDecrement(&limit.sessions)
    return False


cdef inline bint take_place(Worker *worker, Listener *listener) noexcept nogil:
    """May the listener and the proactor have another session?"""
    if not limit_take(&listener.limit):
        return False
    if limit_take(&worker.peers[0].limit):
        return True
    InterlockedDecrement(&listener.limit.sessions)
    return False


cdef inline void leave_place(Worker *worker, Listener *listener) noexcept nogil:
    """There is room for another; the worker looks soon whether somebody waits for it."""
    InterlockedDecrement(&worker.peers[0].limit.sessions)
    InterlockedDecrement(&listener.limit.sessions)
    if worker.retry_at != 0:
        worker.retry_at = worker.now


cdef inline void session_release(Worker *worker, Session *session) noexcept nogil:
    """Back to the pool; only if session_releasable()."""
    session_close_socket(session)
    session_free_buffers(worker, session)
    if session.link != NULL:
        link_drop(session.link)
        session.link = NULL
    session.state = FREE
    session.reason = 0
    session.skips = 0
    session.receiving = 0
    session.waiting = 0
    session.data_waits = 0
    session.more_buffers = 0
    session.yielding = 0
    session.sending = 0
    session.peer_ended = 0
    session.end_sent = 0
    session.calls = 0
    session.paused = 0
    session.ending = 0
    session.leaving = 0
    session.end_told = 0
    session.close_told = 0
    session.error = 0
    timer_drop(worker, session)
    session.handler_data = NULL
    if session.listener != NULL:
        leave_place(worker, session.listener)
        if not mutant(LISTENER_NOT_HELD):
            InterlockedDecrement(&session.listener.holds)
    session.listener = NULL
    if not mutant(GENERATION_NOT_RAISED):
        session.generation += 1
    session.next = worker.sessions.free
    worker.sessions.free = session
    worker.sessions.active -= 1
    worker.stats.active -= 1
    InterlockedDecrement(&worker.load)


cdef inline void session_table_free(Worker *worker) noexcept nogil:
    """The worker has ended. A session that still has something in flight is leaked: the kernel may write to it."""
    cdef SessionTable *table = &worker.sessions
    cdef unsigned int i
    for i in range(table.used):
        if table.slots[i].state == FREE:
            free(table.slots[i])
    free(table.slots)
    table.slots = NULL
    table.used = 0
    table.room = 0
    table.free = NULL
