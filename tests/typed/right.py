"""What type checkers must take. Read by tests/test_types.py, never run."""

import socket

import iocpcore


class Plain:
    def on_receive(self, session: iocpcore.Session, data: bytes) -> None:
        session.send(data)


class Inherits(iocpcore.SessionHandler):
    """Other names of arguments, wider types, and an argument more that has a default."""

    def on_connect(self, connection: iocpcore.Session, greeting: bytes = b"hello") -> None:
        connection.send(greeting)

    def on_close(self, session: iocpcore.Session, why: BaseException | None) -> None:
        print(why)


class AllSix(iocpcore.SessionHandler):
    def on_connect(self, session: iocpcore.Session) -> None: ...
    def on_receive(self, session: iocpcore.Session, data: bytes) -> None: ...
    def on_drain(self, session: iocpcore.Session) -> None: ...
    def on_end(self, session: iocpcore.Session) -> None: ...
    def on_shutdown(self, session: iocpcore.Session) -> None: ...
    def on_close(self, session: iocpcore.Session, error: OSError | None) -> None: ...


class Static:
    @staticmethod
    def on_drain(session: iocpcore.Session) -> None: ...


def greet(session: iocpcore.Session) -> None: ...


class Attribute:
    def __init__(self) -> None:
        self.on_connect = greet


def every_option(proactor: iocpcore.Proactor) -> None:
    proactor.listen(
        Plain(),
        idle_timeout=30.0,
        send_timeout=None,
        linger=0,
        keep_alive=(60, 10, 3),
        no_delay=False,
        receive_size=4096,
        high_water=2000,
        low_water=1000,
        send_limit=None,
    )


common: iocpcore.Options = {"idle_timeout": 30.0, "linger": 1.0}


def options_kept_together(proactor: iocpcore.Proactor, sock: socket.socket) -> list[iocpcore.Session]:
    proactor.listen(iocpcore.ECHO, **common)
    proactor.adopt(iocpcore.DISCARD, sock)
    iocpcore.serve(Static(), "localhost", 9, workers=2, max_sessions=5, when_full="refuse", **common)
    iocpcore.serve(Attribute(), sock=sock, backlog=5, shared=True)
    ours = proactor.connect(Inherits(), "localhost", 9, timeout=1.0, **common)
    return [ours, proactor.adopt(AllSix(), sock, **common)]
