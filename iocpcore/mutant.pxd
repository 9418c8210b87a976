# Deliberate faults, one for each rule of lifetime. The simulation's test build has one at a time, chosen when it runs,
# and must catch it; in every other build the number is 0 and the C compiler removes them all.
cdef extern from *:
    """
    #ifdef IOCPCORE_SIMULATED
    extern unsigned sim_mutant;
    #define IOCPCORE_MUTANT sim_mutant
    #define IOCPCORE_CHECKED 1
    #else
    #define IOCPCORE_MUTANT 0
    #define IOCPCORE_CHECKED 0
    #endif
    """
    const unsigned int IOCPCORE_MUTANT
    const bint CHECKED "IOCPCORE_CHECKED"   # the simulation's build: what only its checks ask for is noted

cdef enum Mutant:
    RECEIVE_NOT_COUNTED = 1     # a receive in flight does not keep its session
    FREED_AT_DEQUEUE            # a packet stops counting when it is dequeued, before the rest of its batch is handled
    SEND_BUFFER_FREED_EARLY     # a send's buffers go back to the pool at its start
    WRITTEN_AFTER_SUBMIT        # an operation's state is written when the kernel has it already
    GENERATION_NOT_RAISED       # a slot's next session answers to the name of the one before
    SEND_NOT_COUNTED            # a send in flight does not keep its session
    NOT_ZEROED                  # an OVERLAPPED is started as its last operation left it
    FAILURE_TAKEN_FOR_SUCCESS   # a packet's status is not looked at
    DEQUEUE_RESULT_IGNORED      # a dequeue that fails, or whose time is over, is believed to have brought packets
    FAILED_START_KEPT           # a receive that could not be started holds its session for ever
    ACCEPT_NOT_REPOSTED         # one connection's error takes an accept from its listener
    INLINE_ENDED_TWICE          # a start that succeeds at once is over, although its packet will come
    WAKE_UP_LOST                # an emptied inbox still believes that a packet is on its way
    CLOSED_BEFORE_CANCEL        # a socket is closed under its operations, and they are not cancelled first
    CLOSED_WITH_UNREAD_INPUT    # the peer's end is not waited for: what was sent to it is destroyed
    HAND_OVER_LOSES_SOCKET      # a socket that no worker takes is forgotten
    IDLE_BUFFER_FREED_EARLY     # an idle receive's buffer goes back to the pool before its cancel has ended
    IDLE_DATA_DROPPED           # a cancelled receive is believed to have brought nothing
    TIMER_NOT_RENEWED           # a session that was asked too early is never asked again
    COUNT_IGNORED               # a send is believed to have sent all that it was given
    SENT_TWICE                  # a second send starts while one is in flight
    LISTENER_NOT_TOLD           # whoever waits for a listener that could not be armed waits for ever
    LISTENER_NOT_HELD           # a listener's memory is freed while sessions refer to it
    ON_CLOSE_TWICE              # a session whose on_close is over has to be told again
    RECEIVE_AFTER_CLOSE         # data that came before its session was closed is told after it
    REFERENCE_DROPPED_EARLY     # the kernel sends from bytes that nothing keeps alive
    FOREIGN_SEND_OVERTAKEN      # a callback's send goes before one that another thread made earlier
    DRAIN_LOST                  # a queue that has drained is not told of
    UNSENT_MISCOUNTED           # what a send has moved before it was cancelled is counted as unsent
    CONNECT_END_NOT_TOLD        # a session that never was connected has no on_close
    PAUSE_NOT_COUNTED           # a resume takes back what no pause has given
    PEERS_END_OVERTAKES         # what a callback has sent through the inbox waits until the peer's end was acted on
    LATER_BUFFERS_FREED_EARLY   # of a receive's buffers, all but the first go back to the pool at its start
    SLAB_GIVEN_BACK_EARLY       # pages in which sessions live go back to the system
    DEADLINES_WAIT_FOR_REST     # no deadline is looked at while packets come
    COME_DATA_OVERLOOKED        # a deadline ends a session though what would spare it has come
    WAITED_LONGEST_SERVED_LAST  # a place goes to the connection that has waited for the shortest time
    PLACE_NOT_GRANTED           # a place that a session leaves stays empty while connections wait for it
    BACKLOG_DROPPED             # connections that wait in the system are reset when their listener closes
    ACCEPTED_REFUSED_AT_CLOSE   # a connection that was accepted is closed because its listener closes
    CLOSE_COUNTS_NO_PROGRESS    # a worker that closes leaves 2 seconds after the drain, whatever gets done
    CLOSING_DROPS_SENDS         # what other threads send while a worker closes is forgotten
    SHUTDOWN_OVERTAKES          # on_shutdown comes before what the peer had sent by then
    TURNS_WITHOUT_END           # a session goes on as long as it can
    ROUNDS_WITHOUT_END          # all who are ready have their turn before new packets are looked at
    TURNS_OVERTAKEN             # who waits first for a turn is not the first to have one
    SEND_JOINS_TAKEN            # a small send joins one that the worker has taken from the inbox already
    IDLE_RECEIVE_CANCELLED      # to take its buffer back, on a system that delivers nothing more to a connection then
    ACCEPT_CONTEXT_MISSING      # an accepted socket is used without its context from the listening one
    REFUSED_RECEIVE_CLOSES      # a receive that fails to start for want of memory ends its session


cdef inline bint mutant(Mutant fault) noexcept nogil:
    return IOCPCORE_MUTANT == fault
