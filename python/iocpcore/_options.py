"""The options of a session: the name, type, unit and meaning of each.

The docstring, the documentation and the signatures in the stub come from here. The defaults and bounds are the core's.
"""

import inspect
import socket
import textwrap
from typing import Annotated, Literal, TypedDict

from ._core import OPTION_BOUNDS, option_defaults


class Options(TypedDict, total=False):
    """The options of a session, which Proactor.listen(), connect(), adopt() and serve() take as keywords.

    Type checkers know this as a TypedDict, so a program can keep options together: with `common: Options =
    {"idle_timeout": 30.0}` it calls `listen(handler, **common)`.
    """

    # name: Annotated[type, unit, meaning]
    idle_timeout: Annotated[
        float | None,
        "seconds",
        "close the session, with a TimeoutError, when it has neither received nor sent anything for this long, also "
        "while it is paused. None: never.",
    ]
    send_timeout: Annotated[
        float | None,
        "seconds",
        "close the session when its peer has taken none of the queued bytes for this long; while the session "
        "finishes, None means 30. Progress is sampled once per timeout: a stalled peer is closed after one to two "
        "timeouts. On Windows progress shows once per 256 KiB.",
    ]
    linger: Annotated[float, "seconds", "how long a session that has ended its sending waits for the peer's end."]
    keep_alive: Annotated[
        tuple[int, int, int] | None,
        "seconds, seconds, a number",
        "(idle, interval, probes) of TCP's own keep-alive: the first probe comes after `idle` without data, the others "
        "at this interval; after this many probes without an answer the connection is lost. Windows ignores the number "
        "of probes. None: no probes.",
    ]
    no_delay: Annotated[bool, "bool", "small segments go out at once (TCP_NODELAY)."]
    receive_size: Annotated[
        int,
        "bytes",
        "the most that one receive, and so one on_receive, brings. A session has room for 16 KiB, and for more only "
        "while its peer fills that.",
    ]
    high_water: Annotated[
        int, "bytes", "with more bytes queued than this, send() returns False and a native echo stops receiving."
    ]
    low_water: Annotated[
        int,
        "bytes",
        "after send() has returned False, on_drain comes when no more than this is queued. At most high_water; by "
        "default at most a quarter of it.",
    ]
    send_limit: Annotated[
        int | None, "bytes", "with this many bytes queued, send() raises SendLimitExceeded. None: no limit."
    ]


class ServeOptions(Options, total=False):
    """The options that serve() passes on to Proactor.listen(), which documents them."""

    sock: socket.socket | None
    shared: bool
    backlog: int | None
    max_sessions: int | None
    when_full: Literal["wait", "refuse"]


def _item(name: str, default: object, unit: str, meaning: str) -> str:
    """One item of the docstring's list."""
    bounds = " from {} to {}".format(*OPTION_BOUNDS[name]) if name in OPTION_BOUNDS else ""
    parts = [key.removeprefix(f"{name}'s ") for key in OPTION_BOUNDS if key.startswith(f"{name}'s ")]
    for part in parts:
        meaning += " {}: from {} to {}.".format(part, *OPTION_BOUNDS[f"{name}'s {part}"])
    text = f"- {name} ({unit}{bounds}; default {default}): {meaning}"
    return textwrap.fill(text, 110, subsequent_indent="  ", break_long_words=False)


_ITEMS = [_item(name, value, *Options.__annotations__[name].__metadata__) for name, value in option_defaults().items()]
Options.__doc__ = "\n".join([inspect.cleandoc(Options.__doc__ or ""), "", *_ITEMS])
