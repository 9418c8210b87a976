"""`iocpcore client`: a load for any echo server that checks every byte; or one line, sent and its echo printed."""

import contextlib
import socket
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from .. import Load, Proactor
from .common import DONE, Failed, add_native, add_port, refusals, seconds, sizes, whole
from .load import complaint, run_load
from .output import Row, amount, count, microseconds, print_json, print_line, print_table

if TYPE_CHECKING:
    from .._core import _Result

HELP = "send messages to an echo server and check every byte that returns"
DESCRIPTION = """Send messages to an echo server and check every byte that returns.
Exit status 1: a byte was wrong, or an echo was lost."""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address or name (default: %(default)s)")
    add_port(parser, 1, "the server's")
    parser.add_argument(
        "--connections",
        type=whole(1, 1_000_000),
        default=50,
        metavar="N",
        help="connections, all at once (default: %(default)s)",
    )
    parser.add_argument(
        "--messages",
        type=whole(1, 1 << 40),
        default=1000,
        metavar="N",
        help="messages of each connection (default: %(default)s)",
    )
    parser.add_argument(
        "--size",
        type=sizes,
        default=(64, 64),
        metavar="N",
        help="bytes of a message; 1-70000: random sizes (default: 64)",
    )
    parser.add_argument(
        "--pipeline",
        type=whole(1, 1 << 16),
        default=1,
        metavar="N",
        help="messages a connection sends before the first has come back (default: %(default)s)",
    )
    add_native(parser)
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=60,
        metavar="SECONDS",
        help="give up when no echo has come for this long, and count the missing echoes as lost (default: %(default)s)",
    )
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print the result as JSON, always with the same keys")
    output.add_argument("--text", metavar="LINE", help="send this one line instead, and print what comes back")


def run(options: Namespace) -> int:
    return send_line(options) if options.text is not None else send_load(options)


# ---- the load ----


def send_load(options: Namespace) -> int:
    load = Load(options.connections, options.messages, options.size, options.pipeline)
    with contextlib.ExitStack() as stack:
        with refusals(options.host):
            proactor = stack.enter_context(Proactor(options.workers, options.backend))
            load.start(proactor, options.host, options.port)
        finished = run_load(load, options.timeout)
    result = load.result()
    wrong = complaint(result, options.connections * options.messages, finished, options.timeout)
    if options.json:
        print_json({**result, "error": wrong})
    else:
        print_table(f"{options.host} port {options.port}", [result_rows(result), latency_rows(result)])
    if wrong:
        raise Failed(wrong)
    return DONE


def result_rows(result: "_Result") -> list[Row]:
    return [
        ["connections", count(result["connections"])],
        ["echoes", count(result["echoes"])],
        ["received", amount(result["bytes"])],
        ["seconds", f"{result['seconds']:,.3f}"],
        ["echoes a second", count(round(result["echoes_per_second"]))],
        ["mismatches", count(result["mismatches"])],
        ["errors", count(result["errors"])],
    ]


def latency_rows(result: "_Result") -> list[Row]:
    latency = result["latency_us"]
    times = {"p50": latency["p50"], "p99": latency["p99"], "p99.9": latency["p999"]}
    return [[f"latency {name}", microseconds(time) if result["echoes"] else "-"] for name, time in times.items()]


# ---- one line ----


def send_line(options: Namespace) -> int:
    """Send the line through a plain socket, as a beginner would: none of the core's code takes part."""
    line = options.text.encode("utf-8", "surrogateescape") + b"\n"
    try:
        with refusals(options.host):
            socket.getaddrinfo(options.host, options.port, type=socket.SOCK_STREAM)
        with socket.create_connection((options.host, options.port), timeout=options.timeout) as sock:
            sock.sendall(line)
            answer = read_answer(sock, len(line))
    except TimeoutError:
        raise Failed(f"nothing came for {options.timeout:g} seconds") from None
    except OSError as error:
        raise Failed(error.strerror or error) from error
    print_line(answer.decode("utf-8", "replace").removesuffix("\n"))
    if answer != line:
        raise Failed(f"sent {len(line)} bytes, and {len(answer)} other bytes came back")
    return DONE


def read_answer(sock: socket.socket, length: int) -> bytes:
    """That many bytes, or fewer if the peer ends before."""
    answer = b""
    while len(answer) < length and (piece := sock.recv(length - len(answer))):
        answer += piece
    return answer
