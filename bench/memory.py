"""Memory of idle sessions: what a connection that has echoed once and then idles costs its server.

    python bench/memory.py --connections 1000 10000 --handlers native python

For each case a server process of its own and clients in another. Figures: bytes a session while all idle (the growth of
the server's private memory), and the share of that growth that is still there when all have gone, and when as many
have come and gone again.
"""

import argparse
import contextlib
import json
import resource
import socket
import subprocess
import sys
import time

IDLE = 7.0  # seconds: more than a session keeps its receive buffer
WAIT = 120.0


class Echo:
    def on_receive(self, session, data):
        session.send(data)

    def on_close(self, session, error):
        sessions.discard(session)

    def on_connect(self, session):
        sessions.add(session)


sessions = set()


def private_bytes():
    """Of this process."""
    with open("/proc/self/smaps_rollup") as lines:
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


def serve(kind):
    """Say the port; then answer each line with how many sessions there are, and the private memory."""
    import iocpcore

    with iocpcore.Proactor(1) as proactor:
        listener = proactor.listen(iocpcore.ECHO if kind == "native" else Echo(), backlog=4096)
        print(listener.port, flush=True)
        for _ in sys.stdin:
            print(json.dumps([proactor.stats().active, private_bytes()]), flush=True)


def connect(port, connections):
    """As many connections, each with one echo; end at end of input."""
    with contextlib.ExitStack() as stack:
        for _ in range(connections):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=WAIT))
            sock.sendall(b"once")
            assert sock.recv(4) == b"once"
        print("connected", flush=True)
        sys.stdin.read()


@contextlib.contextmanager
def process(*arguments):
    command = [sys.executable, __file__, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        yield running
        running.stdin.close()


def ask(server):
    server.stdin.write("\n")
    server.stdin.flush()
    return json.loads(server.stdout.readline())


def until_idle(server, sessions):
    """The private memory, once there are that many sessions and they have idled."""
    deadline = time.monotonic() + WAIT
    while ask(server)[0] != sessions:
        assert time.monotonic() < deadline, "the sessions do not come or go"
        time.sleep(0.1)
    time.sleep(IDLE)
    return ask(server)[1]


def come_and_go(server, port, connections):
    """Memory with all of them idle, and when they have gone."""
    with process("--connect", port, connections) as clients:
        assert clients.stdout.readline() == "connected\n"
        full = until_idle(server, connections)
    return full, until_idle(server, 0)


def measure(kind, connections):
    with process("--serve", kind) as server:
        port = int(server.stdout.readline())
        come_and_go(server, port, 10)
        before = until_idle(server, 0)
        full, after = come_and_go(server, port, connections)
        full_again, after_again = come_and_go(server, port, connections)
    rounds = [(full, after), (full_again, after_again)]
    grown = full - before
    figures = [f"{(f - before) / connections:,.0f} bytes each, {(a - before) / grown:.0%} kept" for f, a in rounds]
    print(f"{kind:8}{connections:8,} connections: {'; again: '.join(figures)}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--connections", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--handlers", nargs="+", choices=["native", "python"], default=["native", "python"])
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--connect", type=int, nargs=2, help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if wanted.serve:
        serve(wanted.serve)
    elif wanted.connect:
        connect(*wanted.connect)
    else:
        for kind in wanted.handlers:
            for connections in wanted.connections:
                measure(kind, connections)


if __name__ == "__main__":
    main()
