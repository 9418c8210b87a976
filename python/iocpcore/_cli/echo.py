"""`iocpcore echo`: a native echo server, until a signal asks for its end."""

import signal
import sys
import time

from .. import ECHO, Proactor
from .._serve import SIGNALS, StopSignals
from .common import DONE, Failed, add_native, add_port, address_text, refusals, seconds
from .output import amount, count, decimal, print_json, print_line, print_table, ratio

HELP = "serve: send back every byte that comes, without the GIL"
DESCRIPTION = """Send back every byte that comes. The first line on standard output is `listening on HOST:PORT`.
Ctrl+C (also SIGTERM, or SIGBREAK on Windows) stops accepting, lets sessions finish for a second, and prints the
statistics; a second one ends the process at once."""

HEADER = ("time", "active", "accepted", "closed", "received/s", "sent/s", "packets/s", "per dequeue", "in flight", "queued")
ROWS_A_HEADER = 20


def add_arguments(parser):
    parser.add_argument(
        "--host", default="127.0.0.1", help='address or name; "" is every address, IPv4 and IPv6 (default: %(default)s)'
    )
    add_port(parser, 0, "0 lets the system choose")
    add_native(parser)
    parser.add_argument("--stats", type=seconds, metavar="SECONDS", help="print statistics every so often")
    parser.add_argument("--json", action="store_true", help="statistics as JSON, one object a line")


def run(options):
    with StopSignals() as signals, refusals(options.host):
        proactor = Proactor(options.workers, options.backend)
    started = time.monotonic()
    # (rest below)
    return DONE
