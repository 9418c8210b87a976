"""poll(): a proactor without threads, driven by its user's loop."""

import contextlib
import select
import socket
import threading
import time

import pytest

import iocpcore
from support import WAIT, Acting, Recorder, assert_nothing_left, receive_exactly, receive_to_end, run_python, until


@pytest.fixture
def polled(backend):
    with iocpcore.Proactor(0, backend) as proactor:
        yield proactor
        proactor.close(0)
    assert_nothing_left(proactor)


def poll_until(proactor, condition, timeout=0.01):
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        proactor.poll(timeout)


def test_there_is_no_thread(polled):
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("iocpcore")]


def test_listen_connect_send_and_close_all_happen_in_poll(polled):
    names = []
    server = Acting(on_receive=lambda session, data: (session.send(data.upper()), names.append(threading.get_ident())))
    client = Recorder()
    session = polled.connect(client, "127.0.0.1", polled.listen(server).port)
    session.send(b"hello")
    poll_until(polled, lambda: client.received() == b"HELLO")
    assert names == [threading.get_ident()]
    session.close()
    poll_until(polled, lambda: server.of("on_end"))
    server.of("on_connect")[0][0].close()
    poll_until(polled, lambda: server.of("on_close") and client.of("on_close"))
    assert client.of("on_close") == [(session, None)]


def test_what_callbacks_have_sent_is_on_its_way_when_poll_returns(polled, connect):
    """On io_uring a send is only queued until the next system call of the port's: that may be a long time off."""
    handler = Acting(on_receive=lambda session, data: session.send(data))
    peer = connect(polled.listen(handler))
    peer.sendall(b"now")
    poll_until(polled, lambda: handler.received() == b"now")
    assert receive_exactly(peer, 3) == b"now"


def test_fifty_busy_connections_take_the_gil_for_less_than_every_second_packet(polled, connect):
    """All have written before the worker looks, as where a server is busy."""
    echo = Acting(on_receive=lambda session, data: session.send(data))
    listener = polled.listen(echo, backlog=64)
    peers = [connect(listener) for _ in range(50)]
    poll_until(polled, lambda: len(echo.of("on_connect")) == 50)
    before = polled.stats()
    for turn in range(1, 11):
        for peer in peers:
            peer.sendall(b"fourteen bytes")
        poll_until(polled, lambda sent=50 * 14 * turn: polled.stats().bytes_sent >= sent)
        assert all(receive_exactly(peer, 14) == b"fourteen bytes" for peer in peers)
    after = polled.stats()
    assert after.attaches - before.attaches < 0.5 * (after.packets - before.packets)


@pytest.fixture
def attaches_for_much(polled, connect):
    """How often 128 KiB that have come from eight peers take the GIL: to be called, again and again."""
    handler = Recorder()
    listener = polled.listen(handler)
    peers = [connect(listener) for _ in range(8)]
    poll_until(polled, lambda: len(handler.of("on_connect")) == 8)

    def attaches():
        before = polled.stats()
        for peer in peers:
            peer.sendall(bytes(16_384))
        poll_until(polled, lambda: polled.stats().bytes_received - before.bytes_received == 8 * 16_384)
        return polled.stats().attaches - before.attaches

    return attaches


def test_callbacks_run_before_more_is_received_than_a_cache_holds(attaches_for_much):
    until(lambda: attaches_for_much() > 1)


def test_where_the_gil_must_be_waited_for_a_batch_takes_it_once_however_large(attaches_for_much):
    over = threading.Event()

    def compute():
        while not over.is_set():
            pass

    thread = threading.Thread(target=compute)
    thread.start()
    try:
        until(lambda: attaches_for_much() == 1)
    finally:
        over.set()
        thread.join()


def test_poll_returns_the_number_of_packets(polled, connect):
    handler = Recorder()
    listener = polled.listen(handler)
    assert polled.poll(0) == 0
    before = polled.stats()
    connect(listener)
    total = 0
    while not handler.of("on_connect"):
        total += polled.poll(WAIT)
    after = polled.stats()
    packets = after.packets + after.wakeups - before.packets - before.wakeups
    assert total == packets > 0


def test_poll_with_nothing_to_do_ends_when_the_time_is_over(polled):
    for timeout in (0, 0.001, 0.25):
        began = time.monotonic()
        assert polled.poll(timeout) == 0
        assert time.monotonic() - began >= timeout * 0.99


def test_poll_returns_when_there_was_something_to_do_without_a_packet(polled):
    """What has come before the session is served is received at once: no packet tells of it.

    A poll that slept on would end when the session, idle, gives its buffer back.
    """
    handler = Acting(on_receive=lambda session, data: session.send(data))
    with socket.create_connection(polled.listen(handler).address, timeout=WAIT) as peer:
        peer.sendall(b"x")
        poll_until(polled, lambda: handler.of("on_receive"), WAIT)
        poll_until(polled, lambda: select.select([peer], [], [], 0)[0], WAIT)
    assert polled.stats().cancelled == 0


def test_poll_without_a_timeout_waits_for_a_packet(polled):
    done = []
    timer = threading.Timer(0.3, polled.post, [done.append, 1])
    timer.start()
    assert polled.poll() == 1
    assert done == [1]
    timer.join(WAIT)


def test_a_post_before_the_first_poll_is_not_lost(polled):
    done = []
    polled.post(done.append, 1)
    poll_until(polled, lambda: done)


def test_sends_between_polls_go_out_in_the_next(polled, connect):
    handler = Recorder()
    peer = connect(polled.listen(handler))
    poll_until(polled, lambda: handler.of("on_connect"))
    session, _ = handler.of("on_connect")[0]
    session.send(b"between")
    assert session.unsent == 7
    poll_until(polled, lambda: session.unsent == 0)
    assert receive_exactly(peer, 7) == b"between"


def test_much_that_a_callback_sends_goes_out_before_the_next_callback(polled):
    """Else all that a batch's callbacks make is in memory at a time."""
    if polled.backend != "epoll":
        pytest.skip("a send ends by its packet there, after the batch")
    waiting = []

    def answer(session, data):
        waiting.append(sum(session.unsent for session, _ in handler.of("on_connect")))
        session.send(bytes(100_000))

    handler = Acting(on_receive=answer)
    listener = polled.listen(handler)
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(socket.create_connection(listener.address, timeout=WAIT)) for _ in range(2)]
        poll_until(polled, lambda: len(handler.of("on_connect")) == 2)
        for peer in peers:
            peer.sendall(b"x")
        poll_until(polled, lambda: len(waiting) == 2)
    assert waiting == [0, 0]


def test_another_thread_may_send_while_one_polls(polled, connect):
    handler = Recorder()
    peer = connect(polled.listen(handler))
    poll_until(polled, lambda: handler.of("on_connect"))
    session, _ = handler.of("on_connect")[0]
    thread = threading.Thread(target=session.send, args=(b"foreign",))
    thread.start()
    thread.join(WAIT)
    poll_until(polled, lambda: session.unsent == 0)
    assert receive_exactly(peer, 7) == b"foreign"


def in_another_thread(function):
    """What it raises there."""
    raised = []

    def run():
        try:
            function()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(WAIT)
    assert not thread.is_alive()
    return raised[0] if raised else None


def test_only_one_thread_polls(polled):
    polled.poll(0)
    error = in_another_thread(lambda: polled.poll(0))
    assert isinstance(error, RuntimeError) and "another thread" in str(error)
    polled.poll(0)


def test_a_thread_that_does_not_poll_cannot_close_and_changes_nothing(polled):
    polled.poll(0)
    error = in_another_thread(lambda: polled.close(0))
    assert isinstance(error, RuntimeError) and "another thread" in str(error)
    assert not polled.closing
    polled.listen(iocpcore.ECHO)


def test_who_closes_after_the_polling_thread_has_ended_is_told_so(backend):
    output = run_python(
        BEGIN
        + f"""
proactor = iocpcore.Proactor(0, {backend!r})
thread = threading.Thread(target=proactor.poll, args=(0,))
thread.start()
thread.join()
try:
    proactor.close()
except RuntimeError as error:
    print(error)
"""
    )
    assert output.strip() == "this proactor is polled by another thread, which has ended without closing it"


def test_who_listens_after_the_polling_thread_has_ended_is_told_so(backend):
    output = run_python(
        BEGIN
        + f"""
proactor = iocpcore.Proactor(0, {backend!r})
thread = threading.Thread(target=proactor.poll, args=(0,))
thread.start()
thread.join()
try:
    proactor.listen(iocpcore.ECHO)
except RuntimeError as error:
    print(error)
"""
    )
    assert output.strip() == "this proactor is polled by another thread, which has ended without closing it"


@pytest.mark.parametrize("what", ["poll(0)", "listen(iocpcore.ECHO)", "close()"])
def test_a_thread_that_has_the_identity_of_one_that_has_ended_is_another(backend, what):
    output = run_python(
        BEGIN
        + f"""
proactor = iocpcore.Proactor(0, {backend!r})

def run(function):
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()
    return thread.ident

def again():
    if threading.get_ident() == first:
        try:
            proactor.{what}
        except RuntimeError as error:
            print(error)

first = run(lambda: proactor.poll(0))
for _ in range(100):    # the system needs a moment to end a thread
    if run(again) == first:
        break
else:
    print("nobody")
"""
    )
    if output.strip() == "nobody":
        pytest.skip("the system gave the identity to nobody else")
    assert output.strip() == "this proactor is polled by another thread, which has ended without closing it"


def test_another_thread_may_listen_while_one_polls(polled, connect):
    polled.poll(0)
    listeners = []
    thread = threading.Thread(target=lambda: listeners.append(polled.listen(Recorder())))
    thread.start()
    poll_until(polled, lambda: listeners)
    thread.join(WAIT)
    connect(listeners[0])


def test_polling_in_a_callback_is_refused(polled):
    raised = []

    def poll():
        try:
            polled.poll(0)
        except RuntimeError as error:
            raised.append(str(error))

    polled.post(poll)
    poll_until(polled, lambda: raised)
    assert "in a callback" in raised[0]


def test_listening_in_a_callback_works(polled, connect):
    listeners = []
    handler = Recorder()
    polled.post(lambda: listeners.append(polled.listen(handler)))
    poll_until(polled, lambda: listeners)
    connect(listeners[0])
    poll_until(polled, lambda: handler.of("on_connect"))


def test_a_proactor_with_workers_is_not_polled(proactor):
    with pytest.raises(RuntimeError, match="workers=0"):
        proactor.poll(0)


@pytest.mark.parametrize(
    "timeout, error", [(-1, ValueError), ("1", TypeError), (True, TypeError), (float("nan"), ValueError)]
)
def test_a_wrong_timeout_is_refused(polled, timeout, error):
    with pytest.raises(error, match="timeout"):
        polled.poll(timeout)


def test_polling_after_close_says_so(backend):
    proactor = iocpcore.Proactor(0, backend)
    proactor.close()
    with pytest.raises(RuntimeError, match="closed"):
        proactor.poll(0)


def test_close_polls_until_all_is_sent(backend, connect):
    proactor = iocpcore.Proactor(0, backend)
    handler = Acting(on_connect=lambda session: session.send(bytes(1_000_000)))
    peer = connect(proactor.listen(handler))
    poll_until(proactor, lambda: handler.of("on_connect"))
    received = []
    thread = threading.Thread(target=lambda: received.append(receive_exactly(peer, 1_000_001)) or peer.close())
    thread.start()
    proactor.close(WAIT)
    thread.join(WAIT)
    assert len(received[0]) == 1_000_000
    assert len(handler.of("on_close")) == 1
    assert_nothing_left(proactor)


def test_close_in_a_callback_of_poll_returns_at_once_and_ends_the_loop(backend, connect):
    proactor = iocpcore.Proactor(0, backend)
    handler = Acting(on_connect=lambda session: proactor.close(0))
    connect(proactor.listen(handler))
    turns = 0
    while not proactor.closing:
        proactor.poll(WAIT)
        turns += 1
        assert turns < 1000
    proactor.close(0)
    assert len(handler.of("on_close")) == 1
    assert_nothing_left(proactor)


def test_poll_says_so_when_all_is_over_that_a_callback_has_closed(backend, connect):
    proactor = iocpcore.Proactor(0, backend)
    handler = Acting(on_connect=lambda session: proactor.close(0))
    connect(proactor.listen(handler))
    with pytest.raises(RuntimeError, match="the proactor is closed"):
        until(lambda: proactor.poll(0.1) < 0)
    assert len(handler.of("on_close")) == 1
    proactor.close(0)
    assert_nothing_left(proactor)


BEGIN = "import iocpcore, signal, socket, threading, time\n"


def test_an_interrupt_ends_a_poll_that_waits(backend):
    """signal.raise_signal from another thread is what Ctrl+C does, on both systems."""
    output = run_python(
        BEGIN
        + f"""
with iocpcore.Proactor(0, {backend!r}) as proactor:
    proactor.listen(iocpcore.ECHO)
    threading.Timer(0.2, signal.raise_signal, [signal.SIGINT]).start()
    try:
        proactor.poll()
    except KeyboardInterrupt:
        print("interrupted")
    print(proactor.poll(0), proactor.closing)
"""
    )
    assert output.split() == ["interrupted", "0", "False"]


@pytest.mark.parametrize("when", ["poll", "close"])
def test_a_signal_handler_may_close_a_proactor_that_is_polled(backend, when):
    output = run_python(
        BEGIN
        + f"""
proactor = iocpcore.Proactor(0, {backend!r})
listener = proactor.listen(iocpcore.ECHO)
peer = socket.create_connection(listener.address)
peer.sendall(b"x")
while proactor.stats().bytes_sent == 0:
    proactor.poll(1)
signal.signal(signal.SIGINT, lambda number, frame: proactor.close(0))
threading.Timer(0.2, signal.raise_signal, [signal.SIGINT]).start()
if {when!r} == "poll":
    while not proactor.closing:
        proactor.poll()
proactor.close(1000)
print(proactor.stats().active)
"""
    )
    assert output.split() == ["0"]


@pytest.mark.parametrize("sessions", [0, 1])
def test_a_polled_proactor_that_is_forgotten_ends_with_the_interpreter(backend, sessions):
    run_python(
        BEGIN
        + f"""
import gc
class Greeter:
    def on_connect(self, session):
        session.send(b"x")
def forget():
    proactor = iocpcore.Proactor(0, {backend!r})
    listener = proactor.listen(Greeter())
    peers = [socket.create_connection(listener.address) for _ in range({sessions})]
    for _ in range(5):
        proactor.poll(0.1)
    return peers
peers = forget()
gc.collect()
for _ in range(100):
    bytearray(1000)
"""
    )


def test_a_long_time_between_two_polls_is_not_the_peers(polled):
    """What is sent or aborted between two polls has its time from then on, not from the poll before."""
    handler = Recorder()
    listener = polled.listen(handler, send_timeout=0.3)
    with socket.create_connection(listener.address, timeout=WAIT) as peer:
        poll_until(polled, lambda: handler.of("on_connect"))
        session = handler.of("on_connect")[0][0]
        polled.poll(0)
        time.sleep(0.4)  # the program is busy
        session.send(b"x")
        polled.poll(0)
        polled.poll(0)
        assert receive_exactly(peer, 1) == b"x"
        assert not handler.of("on_close")


# ---- deadlines while packets come ----


@pytest.fixture
def flooded(polled, connect):
    """A function: poll once, with a packet that waits. Many more receives are in flight than packets will come."""
    handler = Recorder()
    listener = polled.listen(handler)
    peers = [connect(listener) for _ in range(200)]
    poll_until(polled, lambda: len(handler.of("on_connect")) == len(peers))

    def poll_once():
        peers[0].sendall(b"flood")
        before = len(handler.received())
        poll_until(polled, lambda: len(handler.received()) > before, 0)

    poll_once()
    return poll_once


def over_within(poll_once, handler, polls=4):
    """The error of its only session's end, which so few polls must bring."""
    for _ in range(polls):
        poll_once()
    assert len(handler.of("on_close")) == 1, "its time was over, and it goes on"
    return handler.of("on_close")[0][1]


def one_session(polled, connect, **options):
    handler = Recorder()
    peer = connect(polled.listen(handler, **options))
    poll_until(polled, lambda: handler.of("on_connect"))
    return handler.of("on_connect")[0][0], peer, handler


def test_an_idle_session_ends_although_others_flood(polled, flooded, connect):
    session, peer, handler = one_session(polled, connect, idle_timeout=0.2)
    time.sleep(0.3)  # its time is over
    assert isinstance(over_within(flooded, handler), TimeoutError)


def test_a_peer_that_takes_nothing_is_given_up_although_others_flood(polled, flooded, connect):
    session, peer, handler = one_session(polled, connect, send_timeout=0.2)
    session.send(bytes(32 << 20))
    for _ in range(200):  # a round sends no more than its part
        polled.poll(0)
    for _ in range(3):  # its system takes some at first, which is looked at no oftener than each send_timeout
        flooded()
        time.sleep(0.3)
    assert isinstance(over_within(flooded, handler), TimeoutError)


def test_a_peer_that_never_ends_is_given_up_although_others_flood(polled, flooded, connect):
    session, peer, handler = one_session(polled, connect, linger=0.2)
    session.close()
    flooded()
    time.sleep(0.3)
    over_within(flooded, handler)


def test_a_peer_that_goes_on_sending_is_not_waited_for_longer_than_linger(polled, connect):
    session, peer, handler = one_session(polled, connect, linger=0.2)
    session.close()
    polled.poll(0)
    time.sleep(0.3)

    def poll_once():
        with contextlib.suppress(ConnectionError):  # it has ended
            peer.sendall(b"more")
        polled.poll(0.01)

    over_within(poll_once, handler)


def test_an_attempt_to_connect_ends_although_others_flood(polled, flooded, full_server):
    handler = Recorder()
    polled.connect(handler, *full_server, timeout=0.2)
    flooded()
    time.sleep(0.3)
    assert isinstance(over_within(flooded, handler), TimeoutError)


@pytest.mark.parametrize("count", [1, 300], ids=["in one batch", "in several batches"])
def test_who_has_sent_in_time_is_not_idle_although_others_flood(polled, flooded, connect, count):
    handler = Recorder()
    listener = polled.listen(handler, idle_timeout=2.0)  # connecting all takes much less
    peers = [connect(listener) for _ in range(count)]
    poll_until(polled, lambda: len(handler.of("on_connect")) == count)
    for peer in peers:
        peer.sendall(b"x")
    time.sleep(2.1)  # the program is busy
    flooded()
    poll_until(polled, lambda: len(handler.received()) == count)
    assert not handler.of("on_close")


def test_after_close_no_data_comes_even_if_the_inbox_holds_something_older(polled, connect):
    """Both have data in one batch: whoever is first closes the other, which waits in the inbox behind the post."""
    sessions = []

    def close_the_other(session, data):
        polled.post(sessions.index, session)
        sessions[1 - sessions.index(session)].close()

    handler = Acting(on_connect=sessions.append, on_receive=close_the_other, on_end=iocpcore.Session.close)
    listener = polled.listen(handler)
    peers = [connect(listener), connect(listener)]
    poll_until(polled, lambda: len(sessions) == 2)
    for peer in peers:
        peer.sendall(b"x")
    poll_until(polled, lambda: handler.of("on_receive"))
    for peer in peers:
        peer.close()
    poll_until(polled, lambda: len(handler.of("on_close")) == 2)
    assert len(handler.of("on_receive")) == 1


def test_what_a_callback_sends_goes_before_the_peers_end_ends_the_session(polled, connect):
    """The send waits in the inbox behind the post; the peer's end is there already, and there is no on_end."""

    class Echo:
        def on_receive(self, session, data):
            polled.post(len, data)
            session.send(data)

    peer = connect(polled.listen(Echo()))
    peer.sendall(b"hello")
    peer.shutdown(socket.SHUT_WR)
    poll_until(polled, lambda: polled.stats().closed_by_peer == 1)
    assert receive_to_end(peer) == b"hello"
