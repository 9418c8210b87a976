"""Handlers in Python, as type checkers see them."""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from typing import TypeAlias

    from ._core import Handler, Session

    # A handler needs one callback only, so each is a protocol of its own. Nobody looks at what a callback returns, but
    # with None type checkers see an async function, which nobody would await. Without `return` mypy takes a method for
    # abstract, and a class that inherits must have them all.
    class OnConnect(Protocol):
        def on_connect(self, session: Session, /) -> None:
            """The session is connected."""
            return

    class OnReceive(Protocol):
        def on_receive(self, session: Session, data: bytes, /) -> None:
            """Bytes have come."""
            return

    class OnDrain(Protocol):
        def on_drain(self, session: Session, /) -> None:
            """No more than `low_water` bytes are queued any more."""
            return

    class OnEnd(Protocol):
        def on_end(self, session: Session, /) -> None:
            """The peer has finished sending. Without this callback the session then closes, once it has sent all."""
            return

    class OnShutdown(Protocol):
        def on_shutdown(self, session: Session, /) -> None:
            """The proactor begins to close. The session goes on until the handler ends it or the drain is over."""
            return

    class OnClose(Protocol):
        def on_close(self, session: Session, error: OSError | None, /) -> None:
            """The session has ended; comes exactly once. error: None if nothing was lost."""
            return

    class EveryCallback(OnConnect, OnReceive, OnDrain, OnEnd, OnShutdown, OnClose, Protocol):
        """All six."""

    PythonHandler: TypeAlias = OnConnect | OnReceive | OnDrain | OnEnd | OnShutdown | OnClose
    AnyHandler: TypeAlias = Handler | PythonHandler
else:
    AnyHandler = object  # listen() and the others look at what it has

    class EveryCallback(Protocol):
        """None: a handler that inherited on_end or on_shutdown would be taken for one that wants to be called."""


class SessionHandler(EveryCallback, Protocol):
    """What the class of a handler in Python may inherit from, so that type checkers see the shape of its callbacks.

    mypy and pyright then report a callback of the wrong shape where it is defined, and with `@override` a misspelt one
    too. It is for them alone: a handler has the callbacks that it defines, and super() has none.
    """
