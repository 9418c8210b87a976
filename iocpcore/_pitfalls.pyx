# cython: language_level=3, boundscheck=False, wraparound=False, auto_pickle=False
"""The four classic mistakes with a completion port, each made and avoided: the servers behind `iocpcore pitfalls`.

A separate extension module, written with the raw calls: nothing here is a part of the core, and the core does not use
it. A scenario is a small server. `wrong` chooses its version; `stage` makes its connections, to peers that are plain
sockets, and reports its steps. A scenario returns what its peer should see, and what the peer saw.
Ownership: memory that the kernel may write to is freed only when no operation on it is in flight. If a scenario raises,
its memory is left until its process ends.
Threads: one, with the GIL: the process has nothing else to do.
"""
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from iocp cimport (
    BOOL, DWORD, HANDLE, OVERLAPPED, OVERLAPPED_ENTRY, SOCKET, ULONG, ULONG_PTR, WAIT_TIMEOUT, WSABUF, WSA_IO_PENDING,
    CloseHandle, CreateIoCompletionPort, GetLastError, GetQueuedCompletionStatusEx, PostQueuedCompletionStatus,
    WSAGetLastError, WSARecv, WSASend, closesocket, iocp_backend_find, iocp_error_text, iocp_open_port, iocp_startup,
    iocp_status)

cdef enum:
    ROOM = 64               # bytes a Connection receives into
    MESSAGE = 4194304       # bytes: more than a system will hold for a peer that does not read
    SOON = 10000            # milliseconds to wait for a packet that must come
    FOR_EVER = 1000         # milliseconds to wait for a packet that never comes

cdef enum PitfallKey:
    KEY_SOCKET = 1          # lpOverlapped is a Connection's
    KEY_CLOSE               # posted: close the connection whose generation is the packet's byte count

cdef struct Connection:
    OVERLAPPED overlapped   # first: a packet's pointer is the connection's
    SOCKET socket
    unsigned int generation
    unsigned int in_flight
    char data[ROOM]


# ---- the calls, with their errors as exceptions: only the four mistakes may go wrong here ----

cdef int pitfall_raise(str call, int error) except -1:
    raise OSError(error, f"{call}: {pitfall_error(error)}")


cdef str pitfall_error(int error):
    """The error's number, and the system's text for it if there is one."""
    cdef char text[512]
    iocp_error_text(error, text, sizeof(text))
    number = f"error {error}"
    words = text.decode("utf-8", "replace")
    return number if words == number else f"{number}, {words}"


cdef HANDLE pitfall_port(object stage) except NULL:
    cdef HANDLE port
    cdef int error = iocp_startup()
    if error != 0:
        pitfall_raise("WSAStartup", error)
    port = iocp_open_port(iocp_backend_find(stage.backend.encode()))
    if port == NULL:
        pitfall_raise("CreateIoCompletionPort", <int> GetLastError())
    return port


cdef void *pitfall_memory(size_t size) except NULL:
    cdef void *memory = calloc(1, size)
    if memory == NULL:
        raise MemoryError()
    return memory


cdef object pitfall_connect(object stage, HANDLE port, Connection *connection):
    """Make a connection in this memory, and associate it with the port. Returns the peer's socket."""
    peer, descriptor = stage.connect()
    connection.socket = <SOCKET> <ULONG_PTR> descriptor
    if CreateIoCompletionPort(<HANDLE> <ULONG_PTR> connection.socket, port, KEY_SOCKET, 0) == NULL:
        pitfall_raise("CreateIoCompletionPort", <int> GetLastError())
    return peer


cdef int pitfall_receive(Connection *connection) except -1:
    cdef WSABUF buffer
    cdef DWORD flags = 0
    buffer.buf = connection.data
    buffer.len = ROOM
    if (WSARecv(connection.socket, &buffer, 1, NULL, &flags, &connection.overlapped, NULL) != 0
            and WSAGetLastError() != WSA_IO_PENDING):
        pitfall_raise("WSARecv", WSAGetLastError())
    connection.in_flight += 1
    return 0


cdef int pitfall_send(SOCKET socket, OVERLAPPED *overlapped, char *data, size_t length) except -1:
    cdef WSABUF buffer
    buffer.buf = data
    buffer.len = <ULONG> length
    if WSASend(socket, &buffer, 1, NULL, 0, overlapped, NULL) != 0 and WSAGetLastError() != WSA_IO_PENDING:
        pitfall_raise("WSASend", WSAGetLastError())
    return 0


cdef BOOL pitfall_dequeue(HANDLE port, OVERLAPPED_ENTRY *packet, DWORD milliseconds) noexcept:
    """Dequeue one packet. Returns the result of the call."""
    cdef ULONG count = 0
    return GetQueuedCompletionStatusEx(port, packet, 1, &count, milliseconds, 0)


cdef int pitfall_packet(HANDLE port, OVERLAPPED_ENTRY *packet) except -1:
    """Dequeue one packet; raise if none comes."""
    if not pitfall_dequeue(port, packet, SOON):
        pitfall_raise("GetQueuedCompletionStatusEx", <int> GetLastError())
    return 0


cdef int pitfall_success(OVERLAPPED_ENTRY *packet) except -1:
    if iocp_status(packet) != 0:
        pitfall_raise("an operation", iocp_status(packet))
    return 0


cdef str pitfall_text(bytes data):
    return f'"{data.decode()}"' if data else "nothing"


# ---- 1: freed in flight ----

cdef tuple pitfall_use_after_free(bint wrong, object stage):
    """A pool of one slot, which A has. It is given to B; then A's receive ends, and its packet points to the slot."""
    cdef HANDLE port = pitfall_port(stage)
    cdef Connection *slot = <Connection *> pitfall_memory(sizeof(Connection))
    cdef OVERLAPPED_ENTRY packet
    tell = stage.tell
    slot.generation = 1
    pitfall_connect(stage, port, slot)
    pitfall_receive(slot)
    tell("The pool has one slot. A connects and gets it: slot 0.")
    tell("A's WSARecv is in flight. Its OVERLAPPED, and its buffer, lie in slot 0.")
    closesocket(slot.socket)
    if wrong:
        tell(f"The server closes A and frees slot 0. In flight: {slot.in_flight}, but it does not look.")
        peer = pitfall_connect(stage, port, slot)
        peer.sendall(b"hello")
        tell('B connects, gets slot 0, and sends "hello".')
        pitfall_packet(port, &packet)
        slot = <Connection *> packet.lpOverlapped
        tell(f"A packet: a WSARecv has failed ({pitfall_error(iocp_status(&packet))}). Its pointer leads to slot 0.")
        closesocket(slot.socket)
        tell("The server closes the connection that it finds there. It is B's, and B has done nothing.")
    else:
        tell(f"The server closes A. In flight: {slot.in_flight}, so slot 0 is not free yet.")
        tell("B wants to connect: it has to wait for a slot.")
        pitfall_packet(port, &packet)
        slot = <Connection *> packet.lpOverlapped
        slot.in_flight -= 1
        slot.generation += 1
        tell(f"A packet: A's WSARecv has failed ({pitfall_error(iocp_status(&packet))}). In flight: {slot.in_flight}.")
        tell(f"Only now slot 0 is free. It is at generation {slot.generation}.")
        memset(&slot.overlapped, 0, sizeof(OVERLAPPED))
        peer = pitfall_connect(stage, port, slot)
        peer.sendall(b"hello")
        tell('B connects, gets slot 0, and sends "hello".')
        pitfall_late_order(port, slot, tell)
        pitfall_echo(port, slot)
        tell("B's WSARecv ends with 5 bytes, and they are sent back.")
        closesocket(slot.socket)
    seen = stage.read(peer, 5)
    CloseHandle(port)
    free(slot)
    return 'B reads "hello"', f"B reads {pitfall_text(seen)}{'' if seen else ': its connection is gone'}"


cdef int pitfall_late_order(HANDLE port, Connection *slot, object tell) except -1:
    """Code that still refers to A asks to close it, by slot and generation."""
    cdef OVERLAPPED_ENTRY packet
    PostQueuedCompletionStatus(port, 1, KEY_CLOSE, NULL)
    pitfall_packet(port, &packet)
    if packet.lpCompletionKey == KEY_CLOSE and packet.dwNumberOfBytesTransferred != slot.generation:
        tell("A posted packet: close slot 0 of generation 1. That was A: nothing is closed.")
    else:
        closesocket(slot.socket)
    return 0


cdef int pitfall_echo(HANDLE port, Connection *connection) except -1:
    """Receive and send back once, with a zeroed OVERLAPPED each time."""
    cdef OVERLAPPED_ENTRY packet
    memset(&connection.overlapped, 0, sizeof(OVERLAPPED))
    pitfall_receive(connection)
    pitfall_packet(port, &packet)
    pitfall_success(&packet)
    memset(&connection.overlapped, 0, sizeof(OVERLAPPED))
    pitfall_send(connection.socket, &connection.overlapped, connection.data, packet.dwNumberOfBytesTransferred)
    pitfall_packet(port, &packet)
    return pitfall_success(&packet)


# ---- 2: a send's buffer is written to in flight ----

cdef tuple pitfall_send_buffer(bint wrong, object stage):
    """Two messages, one all A and one all B; the second is written while the first is in flight."""
    cdef HANDLE port = pitfall_port(stage)
    cdef Connection *connection = <Connection *> pitfall_memory(sizeof(Connection))
    cdef char *buffer = <char *> pitfall_memory(MESSAGE)
    cdef char *other = <char *> pitfall_memory(MESSAGE)
    cdef char *following = buffer if wrong else other
    cdef OVERLAPPED_ENTRY packet
    tell = stage.tell
    peer = pitfall_connect(stage, port, connection)
    memset(buffer, c'A', MESSAGE)
    pitfall_send(connection.socket, &connection.overlapped, buffer, MESSAGE)
    tell(f"WSASend of the first message, {MESSAGE:,} A, is in flight. The peer does not read yet.")
    if pitfall_dequeue(port, &packet, 0):
        raise RuntimeError("a send to a peer that does not read has ended")
    tell("No packet: the kernel has not taken all of it, and will read the rest from the same buffer.")
    memset(following, c'B', MESSAGE)
    if wrong:
        tell("The server writes its next message, as many B, into that buffer. In flight: 1, but it does not look.")
    else:
        tell("In flight: 1, so that buffer is the kernel's. The next message, as many B, is written into another.")
    received = pitfall_read_message(port, stage, peer)
    tell("The peer reads; the kernel goes on reading the buffer. A packet: the WSASend has succeeded. In flight: 0.")
    memset(&connection.overlapped, 0, sizeof(OVERLAPPED))
    pitfall_send(connection.socket, &connection.overlapped, following, MESSAGE)
    if pitfall_read_message(port, stage, peer) != b"B" * MESSAGE:
        raise RuntimeError("the second message has changed on its way")
    tell("WSASend of the next message, with a packet too. The peer reads it as it was written.")
    closesocket(connection.socket)
    CloseHandle(port)
    free(other)
    free(buffer)
    free(connection)
    return f"The first message is {MESSAGE:,} A", f"The first message is {pitfall_runs(received)}"


cdef object pitfall_read_message(HANDLE port, object stage, object peer):
    """Let the peer read and the send go on, in turns, until its packet has come. Returns what the peer has read."""
    cdef OVERLAPPED_ENTRY packet
    sent = False
    received = bytearray()
    while not sent or len(received) < MESSAGE:
        if pitfall_dequeue(port, &packet, 1):
            pitfall_success(&packet)
            sent = True
        received += stage.read_some(peer)
    return received


cdef str pitfall_runs(object message):
    good = len(message) - len(message.lstrip(b"A"))
    return f"{good:,} A" if good == len(message) else f"{good:,} A and then {message.count(b'B'):,} B"


# ---- 3: an OVERLAPPED used again as it was ----

cdef tuple pitfall_stale_overlapped(bint wrong, object stage):
    """An echo of two messages, "one" and "two". The OVERLAPPED of the first receive serves the first send, too."""
    cdef HANDLE port = pitfall_port(stage)
    cdef Connection *connection = <Connection *> pitfall_memory(sizeof(Connection))
    cdef unsigned int left
    tell = stage.tell
    peer = pitfall_connect(stage, port, connection)
    pitfall_first_receive(port, connection, stage, peer)
    left = <unsigned int> connection.overlapped.InternalHigh
    if wrong:
        tell(f"WSASend of {left} bytes with the same OVERLAPPED, as the WSARecv has left it. In flight: 1.")
    else:
        memset(&connection.overlapped, 0, sizeof(OVERLAPPED))
        tell(f"WSASend of {left} bytes with the same OVERLAPPED, zeroed. In flight: 1.")
    pitfall_send(connection.socket, &connection.overlapped, connection.data, left)
    receives = pitfall_all_sent(port, left, tell)
    seen = stage.read(peer, 3)
    peer.sendall(b"two")
    tell(f'The peer reads {pitfall_text(seen)}, and sends "two".')
    if receives:
        pitfall_echo(port, connection)
        tell("The server receives it and sends it back, with a zeroed OVERLAPPED each time.")
    else:
        tell("Nobody receives it.")
    closesocket(connection.socket)
    seen += stage.read(peer, 3)
    CloseHandle(port)
    free(connection)
    return 'The peer reads "onetwo"', f"The peer reads {pitfall_text(seen)}"


cdef int pitfall_first_receive(HANDLE port, Connection *connection, object stage, object peer) except -1:
    """Receive "one". On Windows an event tells of its end, and no packet: the lowest bit of hEvent asks for that.

    Source: https://learn.microsoft.com/windows/win32/api/ioapiset/nf-ioapiset-getqueuedcompletionstatus
    """
    cdef ULONG_PTR quiet = stage.event | 1
    cdef OVERLAPPED_ENTRY packet
    if stage.event:
        # On Windows alone: its OVERLAPPED is two numbers as long as a pointer, an offset of 8 bytes, and hEvent.
        memcpy(<char *> &connection.overlapped + 2 * sizeof(ULONG_PTR) + 8, &quiet, sizeof(quiet))
    pitfall_receive(connection)
    peer.sendall(b"one")
    if stage.event:
        stage.tell("WSARecv is in flight, with the lowest bit of hEvent set: no packet, the server awaits the event.")
        stage.wait_for_event()
    else:
        stage.tell("WSARecv is in flight.")
        pitfall_packet(port, &packet)
        pitfall_success(&packet)
    stage.tell(f'It ends with {connection.overlapped.InternalHigh} bytes, "one". The OVERLAPPED is free again.')
    return 0


cdef bint pitfall_all_sent(HANDLE port, unsigned int left, object tell) except -1:
    """Wait for the send's packet. Returns whether the server takes the message for sent, and so receives again."""
    cdef OVERLAPPED_ENTRY packet
    cdef unsigned int length = left
    if not pitfall_dequeue(port, &packet, FOR_EVER):
        tell("No packet comes: hEvent still has that bit. The server waits for ever; here, for one second.")
        return False
    pitfall_success(&packet)
    left -= packet.dwNumberOfBytesTransferred
    tell(f"A packet: {packet.dwNumberOfBytesTransferred} bytes sent. Left to send: "
         f"{length} - {packet.dwNumberOfBytesTransferred} = {left:,}.")
    if left != 0:
        tell(f"The call sent {length}, and added them to the count that the WSARecv had left. The server takes its "
             "message for unsent, and never receives again.")
    return left == 0


# ---- 4: the dequeue's result is not looked at ----

cdef tuple pitfall_unchecked_dequeue(bint wrong, object stage):
    """A server that adds records of 3 bytes to a balance. A client pays 10, once, and its connection breaks."""
    cdef HANDLE port = pitfall_port(stage)
    cdef Connection *connection = <Connection *> pitfall_memory(sizeof(Connection))
    cdef OVERLAPPED_ENTRY packet
    cdef BOOL got
    tell = stage.tell
    client = pitfall_connect(stage, port, connection)
    pitfall_receive(connection)
    client.sendall(b"+10")
    pitfall_packet(port, &packet)
    pitfall_success(&packet)
    balance = pitfall_record(connection)
    tell(f'The client sends "+10". A packet: its WSARecv has succeeded. Balance: {balance}.')

    memset(&connection.overlapped, 0, sizeof(OVERLAPPED))
    pitfall_receive(connection)
    stage.reset(client)
    pitfall_packet(port, &packet)
    tell("The server receives again. The client's connection is reset.")
    tell(f"A packet: the WSARecv has failed ({pitfall_error(iocp_status(&packet))}).")
    if wrong or iocp_status(&packet) == 0:
        balance += pitfall_record(connection)
        tell(f'A packet has come, so the server adds what is in the buffer: still "+10". Balance: {balance}.')
    else:
        tell(f"So there is no new record, and the server closes the connection. Balance: {balance}.")
    closesocket(connection.socket)

    got = pitfall_dequeue(port, &packet, 50)
    if not got and GetLastError() != WAIT_TIMEOUT:
        pitfall_raise("GetQueuedCompletionStatusEx", <int> GetLastError())
    tell(f"In flight: 0. The next dequeue returns {'TRUE' if got else 'FALSE: its time is over'}.")
    if wrong or got:
        balance += pitfall_record(<Connection *> packet.lpOverlapped)
        tell(f"The server looks at its packet all the same: it is still the last one. Balance: {balance}.")
    else:
        tell(f"So there is no packet, and nothing to do. Balance: {balance}.")
    CloseHandle(port)
    free(connection)
    return "The balance is 10, after one payment of 10", f"The balance is {balance}, after one payment of 10"


cdef int pitfall_record(Connection *connection) except? -1:
    """The number that the record in its buffer adds."""
    return int(connection.data[:3])


# ---- all of them ----

def run(str name, bint wrong, stage):
    """Run one scenario. Returns what its peer should see, and what the peer saw."""
    if name == "use-after-free":
        return pitfall_use_after_free(wrong, stage)
    if name == "send-buffer":
        return pitfall_send_buffer(wrong, stage)
    if name == "stale-overlapped":
        return pitfall_stale_overlapped(wrong, stage)
    if name == "unchecked-dequeue":
        return pitfall_unchecked_dequeue(wrong, stage)
    raise ValueError(f"no pitfall is called {name!r}")
