"""An echo server: the smallest handler in Python.

    python examples/echo_server.py --port 9999
"""

import argparse

import iocpcore


class Echo:
    def on_receive(self, session: iocpcore.Session, data: bytes) -> None:
        session.send(data)


def announce(listener: iocpcore.Listener) -> None:
    host, port = listener.address[:2]
    print(f"listening on {host}:{port}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="An echo server.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9999)
    options = parser.parse_args()
    iocpcore.serve(Echo(), options.host, options.port, started=announce)
