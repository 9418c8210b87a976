"""Mistakes that type checkers must see. Read by tests/test_types.py, never run: each comment has mypy's error code."""

import socket

from typing_extensions import override

import iocpcore


class WithoutSession:
    def on_receive(self, data: bytes) -> None: ...


class Misspelt:
    def on_recieve(self, session: iocpcore.Session, data: bytes) -> None: ...


class TakesText:
    def on_receive(self, session: iocpcore.Session, data: str) -> None: ...


class Awaited:
    async def on_connect(self, session: iocpcore.Session) -> None: ...


class Right:
    def on_receive(self, session: iocpcore.Session, data: bytes) -> None: ...


class InheritsWithoutError(iocpcore.SessionHandler):
    def on_close(self, session: iocpcore.Session) -> None: ...  # override


class InheritsTakingText(iocpcore.SessionHandler):
    def on_receive(self, session: iocpcore.Session, data: str) -> None: ...  # override


class InheritsAwaited(iocpcore.SessionHandler):
    async def on_connect(self, session: iocpcore.Session) -> None: ...  # override


class InheritsMisspelt(iocpcore.SessionHandler):
    @override
    def on_recieve(self, session: iocpcore.Session, data: bytes) -> None: ...  # misc


def handlers(proactor: iocpcore.Proactor, sock: socket.socket) -> None:
    proactor.listen(WithoutSession())  # arg-type
    proactor.listen(Misspelt())  # arg-type
    proactor.listen(TakesText())  # arg-type
    proactor.listen(Awaited())  # arg-type
    proactor.listen(Right)  # arg-type
    proactor.listen(None)  # arg-type
    proactor.connect(Misspelt(), "localhost", 9)  # arg-type
    proactor.connect(iocpcore.ECHO, "localhost", 9)  # arg-type
    proactor.adopt(Misspelt(), sock)  # call-overload
    iocpcore.serve(Misspelt())  # arg-type


def options(proactor: iocpcore.Proactor, sock: socket.socket) -> None:
    proactor.listen(Right(), idle_time=1.0)  # call-arg
    proactor.listen(Right(), idle_timeout="1")  # arg-type
    proactor.listen(Right(), linger=None)  # arg-type
    proactor.listen(Right(), keep_alive=(1, 2))  # arg-type
    proactor.listen(Right(), receive_size=1.5)  # arg-type
    proactor.connect(Right(), "localhost", 9, idle_time=1.0)  # call-arg
    proactor.connect(Right(), "localhost", 9, send_limit="1")  # arg-type
    proactor.adopt(Right(), sock, idle_time=1.0)  # call-overload
    proactor.adopt(Right(), sock, no_delay=None)  # call-overload
    proactor.adopt(iocpcore.ECHO, sock, no_delay=True)  # call-overload
    iocpcore.serve(Right(), idle_time=1.0)  # call-arg
    iocpcore.serve(Right(), high_water="1")  # arg-type
    common: iocpcore.Options = {"idle_time": 1.0}  # typeddict-unknown-key
    proactor.listen(Right(), **common)
