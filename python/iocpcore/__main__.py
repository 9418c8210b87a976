"""The command line: `python -m iocpcore`, or the script `iocpcore`."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Never

from . import __version__
from ._cli import bench, client, demo, echo, info, pitfalls
from ._cli.common import FAILED, REFUSED, Failed, Refused

COMMANDS = {"echo": echo, "client": client, "demo": demo, "pitfalls": pitfalls, "bench": bench, "info": info}
INTERRUPTED = 130  # what a shell makes of SIGINT


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> Never:
        self.exit(REFUSED, f"{self.prog}: error: {message}\n")


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
    """Run a command; the exit status."""
    options = make_parser().parse_args(arguments)
    # What came over a socket, or a system's message in another language, must not end in an encoding error.
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
    except BrokenPipeError:
        # Nobody reads any more. The interpreter flushes once more at its end, and must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


if __name__ == "__main__":
    sys.exit(main())
