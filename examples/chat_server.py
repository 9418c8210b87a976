"""A chat server: each line that one client writes goes to all the others.

    python examples/chat_server.py --port 9999
    nc 127.0.0.1 9999           # in two other terminals
"""

import argparse
import contextlib

import iocpcore

LINE_MOST = 4096  # bytes of a line; a peer that sends more without an end of line is no chat client


class Chat:
    """One object serves every connection. With one worker its callbacks never run at the same time: no lock."""

    def __init__(self) -> None:
        self.members: set[iocpcore.Session] = set()

    def on_connect(self, session: iocpcore.Session) -> None:
        session.data = b""  # the start of a line that is not complete yet
        self.tell_others(session, b"has come")
        self.members.add(session)
        session.send(b"* %d here, you are %d\n" % (len(self.members), session.id))

    def on_receive(self, session: iocpcore.Session, data: bytes) -> None:
        # TCP is a stream: a receive may bring half a line, or several.
        *lines, session.data = (session.data + data).split(b"\n")
        for line in lines:
            self.tell_others(session, line.rstrip(b"\r"))
        if len(session.data) > LINE_MOST:
            session.close()

    def on_close(self, session: iocpcore.Session, error: OSError | None) -> None:
        self.members.discard(session)
        self.tell_others(session, b"has gone")

    def tell_others(self, speaker: iocpcore.Session, text: bytes) -> None:
        line = b"%d: %s\n" % (speaker.id, text)
        for member in self.members - {speaker}:
            # A member may have ended a moment ago, with its on_close still to come. That must not end the speaker.
            with contextlib.suppress(iocpcore.SessionClosed):
                if not member.send(line):
                    member.abort()  # it has stopped reading: do not queue without bound


def announce(listener: iocpcore.Listener) -> None:
    host, port = listener.address[:2]
    print(f"listening on {host}:{port}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A chat server.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9999)
    options = parser.parse_args()
    iocpcore.serve(Chat(), options.host, options.port, started=announce)
