"""Code that the commands share: arguments, their ranges, and the two ways to fail."""

import argparse
import contextlib
import socket
from collections.abc import Callable, Iterator

DONE = 0
FAILED = 1  # something was lost, or came back wrong
REFUSED = 2  # bad input: nothing was started


class Failed(Exception):
    """The command has started its work, and the work failed."""


class Refused(Exception):
    """The command cannot do what its arguments ask; nothing was started."""


@contextlib.contextmanager
def refusals(host: str | None) -> Iterator[None]:
    """Turn an error that the arguments have caused into Refused."""
    try:
        yield
    except socket.gaierror as error:
        raise Refused(error.strerror) from error
    except OSError as error:
        raise Refused(error.strerror or error) from error
    except (ValueError, TypeError, RuntimeError) as error:
        raise Refused(error) from error


def whole(least: int, most: int) -> Callable[[str], int]:
    """The argparse type of a whole number in that range."""

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be a whole number, not {text!r}") from None
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"must be from {least} to {most}, not {value}")
        return value

    return number


def seconds(text: str) -> float:
    """The argparse type of a time, from a millisecond to a year."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number of seconds, not {text!r}") from None
    if not 0.001 <= value <= 366 * 86400:
        raise argparse.ArgumentTypeError(f"must be from 0.001 seconds to a year, not {text}")
    return value


def sizes(text: str) -> tuple[int, int]:
    """The argparse type of `64` or `1-70000`: (least, most)."""
    number = whole(1, 1 << 30)
    least, _, most = text.partition("-")
    if not most:
        return number(text), number(text)
    if number(least) > number(most):
        raise argparse.ArgumentTypeError(f"must begin with the smaller size, not {text!r}")
    return number(least), number(most)


def add_port(parser: argparse.ArgumentParser, least: int, what: str) -> None:
    parser.add_argument("--port", type=whole(least, 65535), default=9999, help=f"{what} (default: %(default)s)")


def add_native(parser: argparse.ArgumentParser) -> None:
    """The arguments of a Proactor."""
    parser.add_argument(
        "--workers",
        type=whole(1, 256),
        default=1,
        metavar="N",
        help="threads, each with a completion port (default: %(default)s)",
    )
    parser.add_argument(
        "--backend",
        metavar="NAME",
        help="auto, or one that `iocpcore info` lists (default: the environment's IOCPCORE_BACKEND, else auto)",
    )


def address_text(address: tuple[str, int] | tuple[str, int, int, int]) -> str:
    """HOST:PORT of a socket's address. An IPv6 host is in brackets, which separate it from the port."""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
