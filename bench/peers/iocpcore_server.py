"""The servers on iocpcore: native, or with a handler written in Python."""
import os
import sys
import threading

import iocpcore
from common import BACKLOG, HEADER, HOST, Answer, listening, parse_arguments


class Echo:
    def on_receive(self, session, data):
        session.send(data)


class Patient:
    def on_receive(self, session, data):
        if not session.send(data):
            session.pause()

    def on_drain(self, session):
        session.resume()


class TwoWrites:
    def on_receive(self, session, data):
        session.send(data[:HEADER])
        session.send(data[HEADER:])


class Bulk:
    def on_connect(self, session):
        session.data = Answer(session.send)

    def on_receive(self, session, data):
        session.data.ask(data)

    def on_drain(self, session):
        session.data.resume()


class Broadcast:
    def __init__(self):
        self.sessions = set()

    def on_connect(self, session):
        self.sessions.add(session)

    def on_receive(self, session, data):
        for each in self.sessions:
            each.send(data)

    def on_close(self, session, error):
        self.sessions.discard(session)


def answer_questions(proactor):
    """A line on standard input is answered with what the proactor has counted, until the input ends."""
    while os.read(0, 1):
        stats = proactor.stats()
        print(stats.attaches, stats.packets, flush=True)


HANDLERS = {"echo": Echo, "patient": Patient, "two-writes": TwoWrites, "bulk": Bulk, "broadcast": Broadcast}


def main():
    options = parse_arguments(
        __doc__,
        backend={"default": None},
        native={"action": "store_true", "help": "the native echo handler"},
    )
    if options.native and options.service not in ("echo", "patient"):
        sys.exit("the native handler only echoes")

    def started(listener):
        if not options.busy:  # whose input it is then
            threading.Thread(target=answer_questions, args=[listener.proactor], daemon=True).start()
        listening(options, listener.port)

    handler = iocpcore.ECHO if options.native else HANDLERS[options.service]()
    iocpcore.serve(handler, HOST, options.port, backlog=BACKLOG, backend=options.backend, started=started)


if __name__ == "__main__":
    main()
