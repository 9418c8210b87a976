"""`iocpcore bench`: runs the benchmark suite of a checkout, and shows its progress.

The suite is not part of the package: it compiles C, and needs other servers that a user may not have.
"""

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator
from pathlib import Path

from .common import DONE, Failed, Refused, whole
from .output import print_line, progress, screen_width

HELP = "the benchmark suite, or a part of it: server CPU per request, beside other servers"
DESCRIPTION = """Run the benchmark suite in bench/ of a checkout of iocpcore: of this directory, or of one above it. The
suite is not in the installed package, and needs the extra: pip install ".[bench]" in the checkout.
Shows its progress, then a table for each case. Exit status 1: a server lost or changed a byte, or failed."""

# The servers of bench/servers.py.
SERVERS = [
    "c-epoll",
    "c-uring",
    "iocpcore-epoll",
    "iocpcore-uring",
    "python-epoll",
    "python-uring",
    "asyncio",
    "uvloop",
    "rsloop",
    "twisted",
]
NEEDED = {"pytest": "pytest", "pytest_timeout": "pytest-timeout"}
LOOK = 0.2  # seconds between two looks at the progress
ENDS_WITHIN = 10.0
TERMINATED = 143  # the exit status that a shell reports for SIGTERM
NOTHING_RAN = 5  # pytest's exit status


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help="echo, latency, ...: the test_PART.py of the suite (default: all)"
    )
    parser.add_argument("--list", action="store_true", help="print the parts, and run nothing")
    parser.add_argument("--checkout", type=Path, metavar="DIRECTORY", help="default: this directory, or one above it")
    parser.add_argument("--full", action="store_true", help="the whole matrix: an hour or more")
    parser.add_argument("--rounds", type=whole(1, 1000), metavar="N", help="rounds of each case")
    parser.add_argument("--servers", metavar="NAME,NAME", help=f"measure only these, of: {', '.join(SERVERS)}")
    parser.add_argument("--only", metavar="WORDS", help="only cases whose names match, as with pytest's -k")
    parser.add_argument("--cpus", choices=["same", "apart", "any"], help="server and load on one CPU, or on two")
    parser.add_argument("--save", type=Path, metavar="FILE", help="the result as JSON")


def run(options: Namespace) -> int:
    suite = find_suite(options.checkout)
    tests = choose_tests(suite, options.parts)
    if options.list:
        print_line("\n".join(part_of(test) for test in tests))
        return DONE
    check_servers(options.servers)
    check_installed(suite.parent)
    status = run_suite(suite, [*tests, *suite_options(options)])
    if status == NOTHING_RAN:
        raise Refused("no case matches --only, --servers and the parts given")
    if status:
        raise Failed(f"the suite ended with status {status}")
    return DONE


def find_suite(checkout: Path | None) -> Path:
    """The directory bench of a checkout."""
    start = (checkout or Path.cwd()).resolve()
    for root in [start] if checkout else [start, *start.parents]:
        if (root / "bench" / "conftest.py").exists() and (root / "iocpcore").is_dir():
            return root / "bench"
    where = f"{start} is no checkout of iocpcore" if checkout else f"no checkout of iocpcore in {start} or above"
    raise Refused(f"{where}: the suite is in the bench/ of a checkout, not in the installed package (see --checkout)")


def check_servers(names: str | None) -> None:
    unknown = [name for name in names.split(",") if name not in SERVERS] if names is not None else []
    if unknown:
        raise Refused(f"no such server: {', '.join(unknown)}; there are {', '.join(SERVERS)}")


def check_installed(checkout: Path) -> None:
    missing = [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        where = "." if checkout == Path.cwd() else str(checkout)
        # In double quotes, which the shell of Windows understands too.
        raise Refused(f'not installed: {", ".join(missing)}: run pip install "{where}[bench]"')


def part_of(test: Path) -> str:
    return test.stem.removeprefix("test_").replace("_", "-")


def choose_tests(suite: Path, wanted: list[str]) -> list[Path]:
    tests = {part_of(test): test for test in sorted(suite.glob("test_*.py"))}
    if unknown := [part for part in wanted if part not in tests]:
        raise Refused(f"no such part: {', '.join(unknown)}; there are {', '.join(tests)}")
    return [tests[part] for part in wanted] or list(tests.values())


def suite_options(options: Namespace) -> list[str]:
    given = {"rounds": options.rounds, "servers": options.servers, "cpus": options.cpus}
    given["save"] = options.save and options.save.resolve()
    words = [f"--{name}={value}" for name, value in given.items() if value is not None]
    return [*words, *(["--full"] if options.full else []), *(["-k", options.only] if options.only else [])]


def run_suite(suite: Path, arguments: list[Path | str]) -> int:
    """Run pytest and return its exit status. Its output is printed when the progress bar is complete."""
    with tempfile.TemporaryDirectory() as folder:
        steps, output = Path(folder, "steps"), Path(folder, "output")
        steps.touch()
        command = [sys.executable, "-m", "pytest", "-q", f"--progress={steps}", *map(str, arguments)]
        with output.open("wb") as file, subprocess.Popen(
            command,
            cwd=suite.parent,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=environment(),
        ) as process, ended(process):
            show_progress(process, steps)
        print_line(output.read_text(errors="replace").rstrip())
        return process.returncode


def environment() -> dict[str, str]:
    """The suite's environment: its tables are as wide as our terminal, though its output goes to a file."""
    width = screen_width()
    return dict(os.environ) if width is None else {**os.environ, "COLUMNS": str(width)}


@contextlib.contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """If anything ends this command early, SIGTERM and Ctrl+C included, end the suite and its servers as well."""
    previous = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(TERMINATED))
    try:
        yield
    except BaseException:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # end() is bounded; a second signal would leave servers behind
        end(process)
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)


def end(process: subprocess.Popen[bytes]) -> None:
    """Terminate the suite, which ends its servers first. Then kill what is left in its process group: the whole suite,
    if it hangs, or a server that was just being started, which the suite did not know yet."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(ENDS_WITHIN)
    if sys.platform != "win32":  # where the suite does not run
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def show_progress(process: subprocess.Popen[bytes], steps: Path) -> None:
    """Show the progress until the process has ended."""
    with steps.open() as lines, contextlib.ExitStack() as stack:
        advance = None
        while process.poll() is None:
            time.sleep(LOOK)
            for done, total, what in new_steps(lines):
                # The total is known only when the suite has been collected.
                advance = advance or stack.enter_context(progress("cases", total))
                advance(done, what)


def new_steps(lines: Iterable[str]) -> Iterator[tuple[int, int, str]]:
    """(done, total, what) of each line written since the last call; lines are written whole."""
    for line in lines:
        done, total, what = line.rstrip("\n").split(" ", 2)
        yield int(done), int(total), what
