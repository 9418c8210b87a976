"""The command line: `python -m iocpcore`, or the script `iocpcore`."""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Never

from . import __version__
from ._cli import bench, client, demo, echo, info, pitfalls
from ._cli.common import FAILED, REFUSED, Failed, Refused
from ._cli.output import Unwritable, print_line

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

COMMANDS = {"echo": echo, "client": client, "demo": demo, "pitfalls": pitfalls, "bench": bench, "info": info}
INTERRUPTED = 130  # the exit status that a shell reports for SIGINT


class Parser(argparse.ArgumentParser):
    """Reports an error in one line."""

    def error(self, message: str) -> Never:
        self.exit(REFUSED, f"{self.prog}: error: {message}\n")

    def _print_message(self, message: str, file: "SupportsWrite[str] | None" = None) -> None:
        """As argparse's method, but an error is reported if the help or the version cannot be written."""
        if file is sys.stdout and file is not None:
            print_line(message.removesuffix("\n"))
        else:
            super()._print_message(message, file)


def make_parser() -> Parser:
    parser = Parser(prog="iocpcore", description="A native I/O completion port core for Python.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"iocpcore {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, module in COMMANDS.items():
        command = commands.add_parser(name, help=module.HELP, description=module.DESCRIPTION, allow_abbrev=False)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def fail(command: str, error: object, status: int) -> int:
    print(f"iocpcore {command}: error: {error}", file=sys.stderr)
    return status


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and return the exit status."""
    try:
        return run(arguments)
    except Unwritable as error:
        print(f"iocpcore: error: {error}", file=sys.stderr)
        return FAILED
    except BrokenPipeError:     # the reader of the pipe has gone, as with `| head`
        return FAILED


def run(arguments: Sequence[str] | None) -> int:
    options = make_parser().parse_args(arguments)
    # Printing bytes from a socket, or a message of the system in another language, must not raise an encoding error.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        status: int = options.run(options)
        return status
    except Refused as error:
        return fail(options.command, error, REFUSED)
    except Failed as error:
        return fail(options.command, error, FAILED)
    except KeyboardInterrupt:
        return fail(options.command, "interrupted", INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
