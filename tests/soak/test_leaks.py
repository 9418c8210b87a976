"""Nothing is lost by use: programs of their own do a thing many times, and then as many times again.

After the second time a process holds what it held after the first: descriptors or handles and threads exactly, memory
within a tolerance: what is kept for a while for reuse (spare buffers and sessions) may differ.
"""

import json

import pytest

from support import SCALE, WAIT, run_python

# As many spare buffers as are made together have 1 MiB; a session lost in each of 10,000 would be 3 MiB.
TOLERANCE = 1 << 20  # bytes

BEGIN = """
import ctypes, ctypes.wintypes, gc, json, os, socket, sys, threading
sys.path.insert(0, {tests!r})
import iocpcore
from support import WAIT, assert_nothing_left, open_handles, receive_exactly, receive_to_end, refusing_port
from support import reset, until

BACKEND = {backend!r}
SCALE = {scale!r}


def memory():
    '''Bytes of it that the process has for its own.'''
    if sys.platform != "win32":
        ctypes.CDLL(None).malloc_trim(0)
        return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE")
    counters = (ctypes.c_size_t * 10)()    # PROCESS_MEMORY_COUNTERS_EX; its first field is two numbers of 32 bits
    ctypes.windll.kernel32.GetCurrentProcess.restype = ctypes.c_void_p
    process = ctypes.c_void_p(ctypes.windll.kernel32.GetCurrentProcess())
    assert ctypes.windll.kernel32.K32GetProcessMemoryInfo(process, counters, ctypes.sizeof(counters))
    return counters[2]


def measure():
    gc.collect()    # on Windows a lock has a handle as long as there is the object
    return {{"handles": open_handles(), "threads": threading.active_count(), "memory": memory()}}


def twice(act, settled=lambda: True):
    '''Act, measure, act, measure. Whatever is settled a moment later is waited for.'''
    results = []
    for _ in range(2):
        act()
        until(settled)
        results.append(measure())
    print(json.dumps(results))
"""


@pytest.fixture
def run(backend, pytestconfig):
    """What the program measured after the first and after the second time."""

    def run(code):
        begin = BEGIN.format(tests=str(pytestconfig.rootpath / "tests"), backend=backend, scale=SCALE)
        # One arena: else how many of them a thread has met decides about megabytes.
        output = run_python(begin + code, timeout=3 * WAIT, MALLOC_ARENA_MAX="1")
        return json.loads(output.splitlines()[-1])

    return run


def assert_same_handles(first, second):
    assert (second["handles"], second["threads"]) == (first["handles"], first["threads"])


def assert_same_memory(first, second):
    assert second["memory"] - first["memory"] <= TOLERANCE


TEN_THOUSAND_SESSIONS = """
proactor = iocpcore.Proactor(2, BACKEND)
listener = proactor.listen(iocpcore.ECHO)


def fifty():
    '''Some end, some reset with bytes under way, some vanish.'''
    peers = [socket.create_connection(listener.address, timeout=WAIT) for _ in range(50)]
    for number, peer in enumerate(peers):
        peer.sendall(bytes(100 * number))
        if number % 5 == 0:
            reset(peer)
        elif number % 5 == 1:
            peer.close()
        elif number % 5 == 2:
            peer.shutdown(socket.SHUT_WR)
            assert len(receive_to_end(peer)) == 100 * number
        else:
            assert len(receive_exactly(peer, 100 * number)) == 100 * number
        peer.close()


def ten_thousand():
    for _ in range(int(10_000 * SCALE) // 50):
        fifty()


twice(ten_thousand, lambda: proactor.stats().active == 0)
proactor.close()
assert_nothing_left(proactor)
"""


def test_ten_thousand_sessions_twice_leave_no_handle(run):
    assert_same_handles(*run(TEN_THOUSAND_SESSIONS))


@pytest.mark.uninstrumented
def test_ten_thousand_sessions_twice_leave_no_memory(run):
    assert_same_memory(*run(TEN_THOUSAND_SESSIONS))


# ---- the same for all that has a start and an end ----

CONNECTED_SESSIONS = """
server = iocpcore.Proactor(1, BACKEND)
address = server.listen(iocpcore.ECHO).address


def connect():
    '''Few at a time: the buffers of all that there are at once are kept for a while.'''
    for _ in range(int(100 * SCALE)):
        with iocpcore.Proactor(1, BACKEND) as client:
            load = iocpcore.Load(connections=50, messages=2, size=(1, 5_000), pipeline=2)
            load.start(client, *address)
            assert load.wait(WAIT)
            assert load.result()["errors"] == load.result()["mismatches"] == 0


twice(connect, lambda: server.stats().active == 0)
"""

REFUSED_CONNECTS = """
def connect():
    load = iocpcore.Load(connections=int(5_000 * SCALE), messages=1)
    with refusing_port() as port, iocpcore.Proactor(2, BACKEND) as client:
        load.start(client, "127.0.0.1", port)
        assert load.wait(WAIT)
    assert load.result()["errors"] == int(5_000 * SCALE)
    assert_nothing_left(client)


twice(connect)
"""

FAILED_LISTENS = """
proactor = iocpcore.Proactor(1, BACKEND)
port = proactor.listen(iocpcore.ECHO).port
with socket.create_server(("127.0.0.1", 0)) as gone:
    unused = gone.getsockname()[1]


def fail():
    for _ in range(int(1_000 * SCALE)):
        # In use; not ours; not an address at all.
        for host, number in (("127.0.0.1", port), ("192.0.2.1", unused), ("300.1.1.1:x", unused)):
            try:
                proactor.listen(iocpcore.ECHO, host, number)
            except OSError:
                continue
            raise AssertionError("it listens")


twice(fail)
"""

LISTENERS = """
ACCEPTS = 16    # of a listener
proactor = iocpcore.Proactor(2, BACKEND)
listened = 0


def listen():
    global listened
    for _ in range(int(2_000 * SCALE)):
        proactor.listen(iocpcore.ECHO).close()
        listened += 1


# in_flight alone would not do: listen() returns before its worker has published a row.
twice(listen, lambda: proactor.stats().cancelled == ACCEPTS * listened)
"""

LOADS = """
proactor = iocpcore.Proactor(2, BACKEND)
address = proactor.listen(iocpcore.ECHO).address


def load():
    for _ in range(int(500 * SCALE)):
        one = iocpcore.Load(connections=2, messages=2)
        one.start(proactor, *address)
        assert one.wait(WAIT)


twice(load, lambda: proactor.stats().active == 0)
"""

PROACTORS = """
def open_and_close():
    for _ in range(int(200 * SCALE)):
        with iocpcore.Proactor(2, BACKEND) as proactor:
            with socket.create_connection(proactor.listen(iocpcore.ECHO).address, timeout=WAIT) as peer:
                peer.sendall(b"x")
                assert receive_exactly(peer, 1) == b"x"
        assert_nothing_left(proactor)


twice(open_and_close)
"""

CLOSES_UNDER_LOAD = """
def close_under_load():
    for number in range(int(50 * SCALE)):
        server = iocpcore.Proactor(2, BACKEND)
        load = iocpcore.Load(connections=20, messages=1 << 40, size=(1, 20_000), pipeline=4)
        with iocpcore.Proactor(1, BACKEND) as client:
            load.start(client, *server.listen(iocpcore.ECHO).address)
            until(lambda: load.echoes > 20 * (number % 5))
            server.close(0)
            assert load.wait(WAIT)
        assert load.result()["mismatches"] == 0
        assert_nothing_left(server)
        assert_nothing_left(client)


twice(close_under_load)
"""

PROGRAMS = {
    "connected sessions": CONNECTED_SESSIONS,
    "refused connects": REFUSED_CONNECTS,
    "failed listens": FAILED_LISTENS,
    "listeners": LISTENERS,
    "loads": LOADS,
    "proactors": PROACTORS,
    "closes under load": CLOSES_UNDER_LOAD,
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_nothing_that_has_ended_keeps_a_handle(run, name):
    assert_same_handles(*run(PROGRAMS[name]))


@pytest.mark.uninstrumented
@pytest.mark.parametrize("name", PROGRAMS)
def test_nothing_that_has_ended_keeps_memory(run, name):
    assert_same_memory(*run(PROGRAMS[name]))
