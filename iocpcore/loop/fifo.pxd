# First-in-first-out lists, linked through a member of their elements: one macro for all kinds of elements.
#
# It is a macro because C has no generic function. Each declaration below is one kind of list, so that the compiler
# checks the types. To take all elements, copy `head` and set it to NULL: `tail` means something only while there is a
# head.
# Ownership: as the list's user says.
# Threads: those of the list's user; no call here is atomic.
from structs cimport Buffer, BufferList, Item, ItemList, Message, MessageList, Waiting, WaitingList

cdef extern from *:
    """
    #define FIFO_PUT_CHAIN(list, first, last, link) do { \\
            (last)->link = NULL; \\
            if ((list)->head == NULL) \\
                (list)->head = (first); \\
            else \\
                (list)->tail->link = (first); \\
            (list)->tail = (last); \\
        } while (0)
    #define FIFO_PUT(list, one) FIFO_PUT_CHAIN(list, one, one, next)
    #define FIFO_PUT_CALL(list, one) FIFO_PUT_CHAIN(list, one, one, next_call)
    #define FIFO_PUT_BUFFERS(list, first, last) FIFO_PUT_CHAIN(list, first, last, next)
    """
    void fifo_put_item "FIFO_PUT"(ItemList *items, Item *item) noexcept nogil
    void fifo_put_call "FIFO_PUT_CALL"(ItemList *calls, Item *item) noexcept nogil
    void fifo_put_message "FIFO_PUT"(MessageList *messages, Message *message) noexcept nogil
    void fifo_put_waiting "FIFO_PUT"(WaitingList *line, Waiting *waiting) noexcept nogil
    void fifo_put_buffers "FIFO_PUT_BUFFERS"(BufferList *buffers, Buffer *first, Buffer *last) noexcept nogil
