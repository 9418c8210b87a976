# A layer between the user's bytes and those on the wire: each write becomes records with five bytes more (records.h).
#
# It proves that the core does what any layer needs: it counts the user's bytes, not the wire's; a part of a record
# waits until the rest has come; our last word goes before the end of the stream; the peer's may come with data.
# Ownership: layer_data belongs to its session, from layer_open() to layer_close(). It keeps the part of a record that
# has come.
# Threads: the world's.

cdef extern from "records.h" nogil:
    struct records:
        bint complete
        bint last
        bint wrong
    enum:
        RECORD_HEAD
        RECORD_MOST
    void record_head(unsigned char *head, size_t length)
    size_t records_step(records *state, const unsigned char **bytes, size_t *count, unsigned char *to, size_t most)

cdef struct LayerData:
    records peer
    Buffer *part        # of the peer's record: what has come, in pooled buffers
    Buffer *part_tail


cdef LayerData *layer_data(NativeSession *session) noexcept nogil:
    return <LayerData *> session.layer_data


cdef bint layer_open(Worker *_worker, NativeSession *session) noexcept nogil:
    session.layer_data = calloc(1, sizeof(LayerData))
    return session.layer_data != NULL


cdef void layer_close(Worker *worker, NativeSession *session) noexcept nogil:
    chain_release(worker, layer_data(session).part)
    free(session.layer_data)
    session.layer_data = NULL


cdef Buffer *new_record(Worker *worker, const char *data, size_t length) noexcept nogil:
    cdef Buffer *record = buffer_take(worker)
    if record != NULL:
        record_head(<unsigned char *> record.data, length)
        record.length = RECORD_HEAD
        buffer_append(record, data, length)
    return record


cdef bint layer_write(Worker *worker, NativeSession *session, Buffer *chain) noexcept nogil:
    cdef Buffer *buffer = chain
    cdef bint well = True
    while buffer != NULL and well:
        well = write_records(worker, session, buffer.data, buffer.length)
        buffer = buffer.next
    chain_release(worker, chain)
    return well


cdef bint write_records(Worker *worker, NativeSession *session, const char *data, size_t length) noexcept nogil:
    """Queue the bytes as records: all, or none without memory."""
    cdef Buffer *first = NULL
    cdef Buffer *last = NULL
    cdef Buffer *record
    cdef size_t step
    while length > 0:
        step = min(length, min(<size_t> RECORD_MOST, <size_t> RECEIVE_SIZE - RECORD_HEAD))
        record = new_record(worker, data, step)
        if record == NULL:
            chain_release(worker, first)
            return False
        if first == NULL:
            first = record
        else:
            last.next = record
        last = record
        data += step
        length -= step
    while first != NULL:
        record = first
        first = record.next
        record.next = NULL
        enqueue_sealed(worker, session, record, RECORD_HEAD)
    return True


cdef bint layer_end(Worker *worker, NativeSession *session) noexcept nogil:
    cdef Buffer *record = new_record(worker, "", 0)
    if record != NULL:
        enqueue_sealed(worker, session, record, RECORD_HEAD)
    return record != NULL


cdef bint layer_ended(Worker *_worker, NativeSession *session) noexcept nogil:
    """The peer has ended without its last word: that is an error."""
    session.error = WSAECONNABORTED
    return False


cdef bint make_room(Worker *worker, LayerData *own) noexcept nogil:
    """Make room in the last buffer of the record's part; False without memory."""
    cdef Buffer *buffer
    if own.part != NULL and buffer_has_room(own.part_tail, 1):
        return True
    buffer = buffer_take(worker)
    if buffer == NULL:
        return False
    if own.part == NULL:
        own.part = buffer
    else:
        own.part_tail.next = buffer
    own.part_tail = buffer
    return True


cdef void give_record(Worker *worker, NativeSession *session, LayerData *own) noexcept nogil:
    """A record is whole: give it to the handler, unless it is the last word."""
    if own.peer.last:
        session.peer_ended = 1
        chain_release(worker, own.part)
    else:
        input_give(session, own.part)
    own.part = NULL


cdef bint read_buffer(Worker *worker, NativeSession *session, Buffer *wire) noexcept nogil:
    """Read the records in this buffer. False: the bytes are no records, or memory is short."""
    cdef LayerData *own = layer_data(session)
    cdef const unsigned char *at = <const unsigned char *> wire.data
    cdef size_t count = wire.length
    cdef Buffer *tail
    while count > 0 and not session.peer_ended:
        if not make_room(worker, own):
            session.error = WSAENOBUFS
            return False
        tail = own.part_tail
        tail.length += records_step(&own.peer, &at, &count, <unsigned char *> tail.data + tail.length,
                                    tail.end - tail.data - tail.length)
        if own.peer.wrong:
            session.error = WSAECONNABORTED
            return False
        if own.peer.complete:
            give_record(worker, session, own)
    return True


cdef Received layer_read(Worker *worker, NativeSession *session, Buffer *wire) noexcept nogil:
    cdef Buffer *buffer = wire
    cdef size_t before = chain_length(session.inbound)
    cdef bint well = True
    while buffer != NULL and well:
        well = read_buffer(worker, session, buffer)
        buffer = buffer.next
    chain_release(worker, wire)
    if not well:
        return RECEIVED_ERROR
    if chain_length(session.inbound) > before:
        return RECEIVED_DATA
    return RECEIVED_END if session.peer_ended else RECEIVED_PART


cdef int count_parts(NativeSession *session) noexcept nogil:
    """The number of pooled buffers that its layer keeps."""
    return count_pooled(layer_data(session).part) if session.layer != NULL else 0


cdef LayerOps layer_ops
layer_ops.open = layer_open
layer_ops.write = layer_write
layer_ops.read = layer_read
layer_ops.end = layer_end
layer_ops.ended = layer_ended
layer_ops.close = layer_close
