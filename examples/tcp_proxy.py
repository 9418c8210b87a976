"""A TCP proxy: it opens a connection to the target for each one that it accepts.

    python examples/tcp_proxy.py --port 9999 --target example.org:80

A side that reads slowly makes the other wait, so memory stays bounded. The end of one direction is passed on while the
other direction goes on. A reset is passed on too.
"""

import argparse
import contextlib
import socket

import iocpcore


class Relay:
    """One side of a pair. `session.data` is the other."""

    def on_receive(self, session: iocpcore.Session, data: bytes) -> None:
        # The other side may have ended a moment ago: its on_close is still to come, and ends this side too.
        with contextlib.suppress(iocpcore.SessionClosed):
            if not session.data.send(data):
                session.pause()

    def on_drain(self, session: iocpcore.Session) -> None:
        session.data.resume()

    def on_end(self, session: iocpcore.Session) -> None:
        session.data.end()

    def on_close(self, session: iocpcore.Session, error: OSError | None) -> None:
        other, session.data = session.data, None  # break the reference cycle, so that both are freed at once
        if other is None:
            return  # on_connect has failed
        if error is None:
            other.close()
        else:
            other.abort()


class Front(Relay):
    """The side of the clients that connect to us."""

    def __init__(self, proactor: iocpcore.Proactor, host: str, port: int) -> None:
        self.proactor = proactor
        self.target = host, port
        self.back = Relay()

    def on_connect(self, session: iocpcore.Session) -> None:
        # connect() in a callback stays on the callback's worker: both sides of a pair share it, and need no lock.
        # Bytes sent before it is connected are queued, and the same water marks apply.
        session.data = self.proactor.connect(self.back, *self.target, timeout=10.0)
        session.data.data = session


def numeric_address(text: str) -> tuple[str, int]:
    """Resolved once, before we serve: in a callback, resolving would block all sessions of the worker."""
    host, _, port = text.rpartition(":")
    address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0][4]
    return str(address[0]), int(address[1])


def serve(host: str, port: int, target: tuple[str, int], workers: int) -> None:
    with iocpcore.Proactor(workers) as proactor:
        listener = proactor.listen(Front(proactor, *target), host, port)
        host, port = listener.address[:2]
        iocpcore.run(proactor, started=lambda: print(f"listening on {host}:{port}", flush=True))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A TCP proxy.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9999)
    parser.add_argument("--target", type=numeric_address, required=True, metavar="HOST:PORT")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    serve(options.host, options.port, options.target, options.workers)
