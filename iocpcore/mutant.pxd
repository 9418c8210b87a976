# Deliberate faults, one for each rule of lifetime. The simulation's test build compiles one in with
# -DIOCPCORE_MUTANT=number and must catch it; in every other build the number is 0 and the C compiler removes them all.
cdef extern from *:
    """
    #ifndef IOCPCORE_MUTANT
    #define IOCPCORE_MUTANT 0
    #endif
    """
    const int IOCPCORE_MUTANT

cdef enum Mutant:
    RECEIVE_NOT_COUNTED = 1     # a receive in flight does not keep its session
    FREED_AT_DEQUEUE            # a packet stops counting when it is dequeued, before the rest of its batch is handled
    SEND_BUFFER_FREED_EARLY     # a send's buffers go back to the pool at its start
    WRITTEN_AFTER_SUBMIT        # an operation's state is written when the kernel has it already
    GENERATION_NOT_RAISED       # a slot's next session answers to the name of the one before


cdef inline bint mutant(Mutant fault) noexcept nogil:
    return IOCPCORE_MUTANT == fault
