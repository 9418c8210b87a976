"""What is cancelled on Windows: wine's debugger tells each call of CancelIoEx."""

import os
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CALL = ":Call ntdll.NtCancelIoFileEx("  # in which CancelIoEx ends; wine tells nothing of kernel32's forwarded one
# Idle sessions of each kind: one that never said anything, one that did once, and one that holds a buffer.
IDLE = """
import socket, time, iocpcore
with iocpcore.Proactor() as proactor:
    listener = proactor.listen(iocpcore.ECHO)
    peers = [socket.create_connection(listener.address, timeout=30) for _ in range(3)]
    for echoes, peer in enumerate(peers):
        for _ in range(echoes):
            peer.sendall(b"!")
            assert peer.recv(1) == b"!"
    ends = time.monotonic() + 7     # after 5 s a session is idle
    with iocpcore.Proactor(0) as clock:
        while time.monotonic() < ends:
            clock.poll(0.1)
    assert proactor.stats().buffers_used == 1
    for peer in peers:
        peer.sendall(b"?")
        assert peer.recv(1) == b"?"
    print("all go on", flush=True)
"""


def run(*arguments, debug):
    """What a program and wine have printed, in one order."""
    done = subprocess.run(
        [HERE / "python", *arguments],
        cwd=ROOT,
        env={**os.environ, "WINEDEBUG": debug},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_no_receive_of_an_idle_session_is_cancelled_and_what_is_at_the_close_is_told():
    run(ROOT / "bench" / "wine" / "relay.py", "ntdll.NtCancelIoFileEx", debug="-all")
    idle, closing = run("-c", IDLE, debug="-all,+relay").split("all go on")
    assert idle.count(CALL) == 0
    assert closing.count(CALL) > 0
