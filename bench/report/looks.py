"""What a reader sees of a server: its name, its place in the order and its colour, the same on every page and chart.

The hues are told apart by the colour-blind too (after Okabe and Ito): grey is raw C, blue and green are ours, warm
colours are the others. io_uring is the stronger shade of its backend's epoll.
"""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Look:
    label: str
    light: str  # on a light page
    dark: str  # on a dark one


SAME_BACKEND = "the C server of the same backend"

# In the order in which they are shown.
LOOKS = {
    "c-epoll": Look("raw C, epoll", "#a3a8b0", "#8b919b"),
    "c-uring": Look("raw C, io_uring", "#737983", "#b7bcc5"),
    "c-iocp": Look("raw C, IOCP", "#747a84", "#b8bdc6"),
    "iocpcore-epoll": Look("iocpcore native, epoll", "#4d9ee0", "#4a93d1"),
    "iocpcore-uring": Look("iocpcore native, io_uring", "#0b62a8", "#86c1f2"),
    "iocpcore-windows": Look("iocpcore native", "#0c63a9", "#87c2f3"),
    "iocpcore": Look("iocpcore", "#0a61a7", "#85c0f1"),
    "python-epoll": Look("iocpcore Python, epoll", "#3fb894", "#35a583"),
    "python-uring": Look("iocpcore Python, io_uring", "#007a5a", "#7dd9bd"),
    "python-windows": Look("iocpcore Python", "#017b5b", "#7edabe"),
    "uvloop": Look("uvloop", "#d55e00", "#e8782a"),
    "winloop": Look("winloop", "#d65f01", "#e9792b"),
    "rsloop": Look("rsloop", "#c56a9c", "#d98fb8"),
    "asyncio": Look("asyncio", "#e3a008", "#e9b44c"),
    "asyncio-proactor": Look("asyncio, Proactor", "#e4a109", "#eab54d"),
    "twisted": Look("Twisted", "#8d6bb1", "#b394d6"),
    "twisted-iocp": Look("Twisted, IOCP", "#8e6cb2", "#b495d7"),
}


OTHER = Look("", "#5b6470", "#9aa3af")


def split(name: str) -> tuple[str, str]:
    """A server, and how it ran where that was not as usual: `uvloop, loop outside`."""
    server, _, variant = name.partition(", ")
    return (server, variant) if server in LOOKS else (name, "")


def look(name: str) -> Look:
    return LOOKS.get(split(name)[0], OTHER)


def label(name: str) -> str:
    server, variant = split(name)
    known = LOOKS[server].label if server in LOOKS else server
    return f"{known}, {variant}" if variant else known


def in_order(names: Iterable[str]) -> list[str]:
    """Known ones as in the table above, each before its variants; others after them by name."""
    places = {name: place for place, name in enumerate(LOOKS)}
    return sorted(names, key=lambda name: (places.get(split(name)[0], len(places)), name))


def number(value: float) -> str:
    """Three digits that count; large ones whole, with commas."""
    if abs(value) >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 0.1 else f"{value:.{2 if abs(value) < 10 else 1}f}"


def times(ratio: float) -> str:
    return f"{ratio:.2f}×" if ratio < 10 else f"{ratio:.1f}×"


def size(count: int) -> str:
    """Bytes, as messages are named: 14 B, 1 KiB."""
    return f"{count // 1024} KiB" if count >= 1024 and count % 1024 == 0 else f"{count:,} B"
