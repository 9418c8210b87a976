"""Handlers in Python, as type checkers see them."""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from typing import TypeAlias

    from ._core import Handler, Session

    # A handler needs only one callback, so each callback is a protocol of its own. What a callback returns is ignored,
    # but the type None makes type checkers refuse an async function, which would never be awaited. Without its `return`
    # mypy takes a method for abstract, and a class that inherits must define all of them.
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
            """The send queue, which was above `high_water`, is down to `low_water` bytes or less."""
            return

    class OnEnd(Protocol):
        def on_end(self, session: Session, /) -> None:
            """The peer has finished sending. Without this callback the session sends what is queued, then closes."""
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
    AnyHandler = object  # at run time listen(), connect() and adopt() check its callbacks

    class EveryCallback(Protocol):
        """Empty at run time: a handler that inherited on_end or on_shutdown would change what its sessions do."""


class SessionHandler(EveryCallback, Protocol):
    """A base class for handlers in Python, so that type checkers know the callbacks. Inheriting from it is optional.

    mypy and pyright then report a callback with a wrong signature where it is defined, and with `@override` a misspelt
    one too. At run time it does nothing: a handler has the callbacks that it defines, and super() has none.
    """
