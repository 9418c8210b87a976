# Sessions: the table of a worker's connections, their names, and the holds that delay their release.
#
# Ownership: a session lives in a slab of its worker's table. It is held once for each operation in flight and for each
# list that it is in, and released when it is CLOSING and nothing holds it. Then its memory is for the next session. A
# slab in which no session is left goes back to the system a while later, at the end of a turn of the worker.
# A generation is given once, so an old (slot, generation) resolves to NULL, whatever has become of the slot. A session
# holds its listener; Python frees the listener's memory when nothing holds it.
# Threads: the worker's own, except the counts `load` and `holds`, which any thread may change.
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset
from iocp cimport (
    INVALID_SOCKET, SOCKET, InterlockedDecrement, InterlockedIncrement, closesocket, iocp_break_off, iocp_give_pages,
    iocp_has_forked, iocp_linger_zero, iocp_shutdown_send, iocp_take_pages)
from buffer cimport chain_release
from call cimport schedule_message
from link cimport link_drop, link_finish
from limit cimport leave_place
from queue cimport queue_free
from structs cimport (
    CLOSING, FREE, NOT_BROKEN, OPEN, RECEIVE_POSTED, Handler, Item, Listener, Message, Session, SessionSlab,
    SessionTable, Worker)
from timer cimport timer_drop, timers_reserve
from tuning cimport RELEASED_SPOILT, SLAB_SESSIONS, TRIM_TIME


# ---- memory ----

cdef inline size_t session_slab_size() noexcept nogil:
    return sizeof(SessionSlab) + (SLAB_SESSIONS - 1) * sizeof(Session)


cdef inline unsigned int spare_number(SessionTable *table) noexcept nogil:
    """The lowest number that no slab has."""
    cdef unsigned int i
    for i in range(table.count):
        if table.slabs[i] == NULL:
            return i
    return table.count


cdef inline bint session_table_grow(SessionTable *table) noexcept nogil:
    cdef unsigned int room = 2 * table.room if table.room else 16
    cdef SessionSlab **grown = <SessionSlab **> realloc(table.slabs, room * sizeof(SessionSlab *))
    if grown == NULL:
        return False
    table.slabs = grown
    table.room = room
    return True


cdef inline bint session_slab_add(Worker *worker) noexcept nogil:
    """Add a slab, because no other has room; False without memory."""
    cdef SessionTable *table = &worker.sessions
    cdef unsigned int number = spare_number(table)
    cdef SessionSlab *slab
    if number == table.room and not session_table_grow(table):
        return False
    if not timers_reserve(worker, SLAB_SESSIONS):
        return False
    slab = <SessionSlab *> iocp_take_pages(session_slab_size())
    if slab == NULL:
        return False
    slab.number = number
    table.slabs[number] = slab
    if number == table.count:
        table.count += 1
    table.roomy = slab
    worker.stats.sessions_spare += SLAB_SESSIONS
    return True


cdef inline Session *session_take(Worker *worker) noexcept nogil:
    """A zeroed session with a name that no other has had, or NULL without memory."""
    cdef SessionTable *table = &worker.sessions
    cdef SessionSlab *slab
    cdef Session *session
    if table.roomy == NULL and not session_slab_add(worker):
        return NULL
    slab = table.roomy
    session = slab.spare
    if session != NULL:
        slab.spare = <Session *> session.item.next
    else:
        session = &slab.sessions[slab.made]
        slab.made += 1
    slab.used += 1
    worker.stats.sessions_spare -= 1
    if slab.used == SLAB_SESSIONS:
        table.roomy = slab.next
    table.opened += 1
    memset(session, 0, sizeof(Session))
    session.slot = slab.number * SLAB_SESSIONS + <unsigned int> (session - slab.sessions)
    session.generation = table.opened
    return session


cdef inline void session_give_back(Worker *worker, Session *session) noexcept nogil:
    """Make its memory spare. Until the worker's turn is over it can still be read: its state is FREE."""
    cdef SessionTable *table = &worker.sessions
    cdef SessionSlab *slab = table.slabs[session.slot // SLAB_SESSIONS]
    if RELEASED_SPOILT:
        memset(session, 0xDB, sizeof(Session))
    session.state = FREE
    session.item.next = <Item *> slab.spare
    slab.spare = session
    if slab.used == SLAB_SESSIONS:
        slab.next = table.roomy
        table.roomy = slab
    slab.used -= 1
    worker.stats.sessions_spare += 1
    if slab.used == 0 and worker.trim_at == 0:
        worker.trim_at = worker.now + TRIM_TIME


cdef inline void sessions_trim(Worker *worker) noexcept nogil:
    """Give empty slabs back to the system. An old name from there finds no slab, or another generation."""
    cdef SessionTable *table = &worker.sessions
    cdef SessionSlab **at = &table.roomy
    cdef SessionSlab *slab
    while at[0] != NULL:
        slab = at[0]
        if slab.used == 0:
            at[0] = slab.next
            table.slabs[slab.number] = NULL
            worker.stats.sessions_spare -= SLAB_SESSIONS
            iocp_give_pages(slab, session_slab_size())
        else:
            at = &slab.next
    while table.count > 0 and table.slabs[table.count - 1] == NULL:
        table.count -= 1


# ---- names ----

cdef inline unsigned int session_slots(Worker *worker) noexcept nogil:
    """The number of slots; most may be empty."""
    return worker.sessions.count * SLAB_SESSIONS


cdef inline Session *session_at(Worker *worker, unsigned int slot) noexcept nogil:
    """The session in that slot, or NULL."""
    cdef SessionTable *table = &worker.sessions
    cdef SessionSlab *slab
    cdef Session *session
    if slot // SLAB_SESSIONS >= table.count:
        return NULL
    slab = table.slabs[slot // SLAB_SESSIONS]
    if slab == NULL:
        return NULL
    session = &slab.sessions[slot % SLAB_SESSIONS]
    return session if session.state != FREE else NULL


cdef inline Session *session_resolve(Worker *worker, unsigned int slot, uint64_t generation) noexcept nogil:
    """The session of that name, or NULL if it has gone. Another may be in its slot by now."""
    cdef Session *session = session_at(worker, slot)
    return session if session != NULL and session.generation == generation else NULL


# ---- a session's life ----

cdef inline Session *session_open(Worker *worker, SOCKET socket, unsigned char state, Handler *handler,
                                  Listener *listener) noexcept nogil:
    """A session that owns the socket, or NULL without memory: then the socket is still the caller's."""
    cdef Session *session = session_take(worker)
    if session == NULL:
        return NULL
    session.worker = worker
    session.socket = socket
    session.state = state
    session.handler = handler
    session.ops = &handler.ops
    session.item.ops = &worker.session_ops
    session.listener = listener
    session.connected = state == OPEN
    session.active_at = worker.now
    session.sent_at = worker.now
    session.layer = handler.layer
    if session.layer != NULL and not session.layer.open(worker, session):
        session_give_back(worker, session)
        return NULL
    if listener != NULL:
        InterlockedIncrement(&listener.holds)
    worker.sessions.active += 1
    worker.stats.active += 1
    return session


cdef inline bint is_receiving(Session *session) noexcept nogil:
    """Is its receive in flight?"""
    return session.receive >= RECEIVE_POSTED


cdef inline bint session_releasable(Session *session) noexcept nogil:
    return session.state == CLOSING and session.item.in_flight == 0


cdef inline bint others_may_hold(Session *session) noexcept nogil:
    """May others hold its socket, so that closing it does not tell the peer?

    A forked child may; the program that gave the socket; on a broken port, the operations that still pend.
    """
    return session.listener == NULL or iocp_has_forked() or session.worker.broken != NOT_BROKEN


cdef inline void tell_peer_of_end(Session *session) noexcept nogil:
    """Reset the connection, or end our side. Closing the socket does neither while others hold it."""
    if session.resets:
        iocp_break_off(session.socket)
    elif not session.end_sent and session.connected:
        iocp_shutdown_send(session.socket)


cdef inline void session_close_socket(Session *session) noexcept nogil:
    if session.socket != INVALID_SOCKET:
        if others_may_hold(session):
            tell_peer_of_end(session)
        closesocket(session.socket)
        session.socket = INVALID_SOCKET


cdef inline void session_reset_at_close(Session *session) noexcept nogil:
    session.resets = 1
    iocp_linger_zero(session.socket)


cdef inline void session_free_buffers(Worker *worker, Session *session) noexcept nogil:
    chain_release(worker, session.posted)
    chain_release(worker, session.inbound)
    session.posted = session.inbound = NULL
    queue_free(worker, session)


cdef inline void session_release(Worker *worker, Session *session) noexcept nogil:
    """Only if session_releasable()."""
    session_close_socket(session)
    session_free_buffers(worker, session)
    if session.layer != NULL:
        session.layer.close(worker, session)
    if session.link != NULL:
        link_drop(session.link)
    timer_drop(worker, &session.item)
    if session.listener != NULL:
        leave_place(worker, session.listener)
        InterlockedDecrement(&session.listener.holds)
    session_give_back(worker, session)
    worker.sessions.active -= 1
    worker.stats.active -= 1
    InterlockedDecrement(&worker.load)


cdef inline void session_table_free(Worker *worker) noexcept nogil:
    """The worker has ended. A slab with a session left is leaked: the kernel may still write to it."""
    sessions_trim(worker)
    free(worker.sessions.slabs)
    worker.sessions.slabs = NULL
    worker.sessions.count = 0
    worker.sessions.room = 0
    worker.sessions.roomy = NULL


cdef inline bint tell_refused(Worker *worker, Message *message, int error) noexcept nogil:
    """No session was made, because of that error. False: the message is kept, so that Python is told."""
    if message.python == NULL:
        return True
    link_finish(message.link)
    message.error = error
    schedule_message(worker, message)
    return False


cdef inline void introduce(Message *message, Session *session) noexcept nogil:
    """Connect the session with the Python object that the message has brought."""
    if message.python == NULL:
        return
    session.python = message.python
    session.link = message.link
    session.link.slot = session.slot
    session.link.generation = session.generation
    message.link = NULL
