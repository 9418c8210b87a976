"""An echo server on iocpcore whose handler is written in Python. With --stats its last line is the statistics."""
import argparse
import sys

import iocpcore


class Echo:
    def on_receive(self, session, data):
        session.send(data)


def listening(listener):
    print(f"listening on {listener.address[0]}:{listener.port}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9999)
    parser.add_argument("--backend")
    parser.add_argument("--stats", action="store_true", help="at the end, on standard error")
    options = parser.parse_args()
    stats = iocpcore.serve(Echo(), options.host, options.port, backend=options.backend, started=listening)
    if options.stats:
        print(stats, file=sys.stderr)


if __name__ == "__main__":
    main()
