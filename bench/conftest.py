"""pytest runs the suite: its options, the test of each case, and what is shown and saved in the end.

A test is a case: it measures all servers in turn. Servers that cannot run here are named with the reason in the end; a
server that lost a byte fails the test. -k chooses cases, --servers the servers.
"""
import os
import resource
import signal
import sys
from pathlib import Path

import pytest

if not sys.platform.startswith("linux"):
    pytest.exit("the suite runs on Linux; Windows is measured there, under wine", 2)

import programs
import servers
import suite
from process import Failed
from report import results, tables
from rounds import Options

SECONDS_A_CASE = {False: 300, True: 3600}  # by --full: after which a case is taken to hang


def pytest_addoption(parser):
    group = parser.getgroup("iocpcore's benchmarks")
    group.addoption("--full", action="store_true", help="the whole matrix, with more rounds: half an hour or more")
    group.addoption("--rounds", type=int, help="of each case (default: 3; with --full 7)")
    group.addoption("--requests", type=int, help="of each server in each round, whatever the case says")
    group.addoption("--patience", type=int, default=60, metavar="SECONDS", help="for each step of a load (default: 60)")
    group.addoption("--servers", type=lambda text: text.split(","), metavar="NAME,NAME",
                    help=f"measure these alone, of: {', '.join(servers.SERVERS)}, and those of --add-server")
    group.addoption(
        "--add-server",
        action="append",
        default=[],
        type=servers.from_command_line,
        metavar="NAME=COMMAND",
        help="measure a server of your own too: bench/README.md says what it must do",
    )
    group.addoption("--cpus", choices=["same", "apart", "any"], default="same",
                    help="server and load on one CPU, on two, or as the system decides (default: %(default)s)")
    group.addoption("--save", type=Path, metavar="FILE", help="the result (default: a new file in build/bench/results)")
    group.addoption("--progress", type=Path, metavar="FILE", help="gets a line for each step, `DONE TOTAL what`")


def pytest_configure(config):
    config.addinivalue_line("markers", "full: a part of the matrix that only --full runs")
    given = {name: config.getoption(name) for name in ("full", "cpus", "requests", "patience")}
    rounds = config.getoption("rounds") or (7 if given["full"] else 3)
    config.progress = Progress(config.getoption("progress"))
    config.bench = suite.Suite(Options(rounds=rounds, **given), chosen(config), config.progress.tell)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end through the clean-up
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # servers and loads inherit it


def chosen(config):
    offered = servers.SERVERS | {server.name: server for server in config.getoption("add_server")}
    names = config.getoption("servers") or list(offered)
    if unknown := [name for name in names if name not in offered]:
        raise pytest.UsageError(f"no such server: {', '.join(unknown)}; there are {', '.join(offered)}")
    return [server for name, server in offered.items() if name in names]


def pytest_collection_modifyitems(config, items):
    full = config.getoption("full")
    left_out = [item for item in items if item.get_closest_marker("full") and not full]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in set(left_out)]
    for item in items:
        if item.path.is_relative_to(programs.HERE):
            # By a signal: servers and loads are ended on the way out.
            item.add_marker(pytest.mark.timeout(SECONDS_A_CASE[full], method="signal"))


def pytest_collection_finish(session):
    session.config.progress.cases = len(session.items)


class Progress:
    """A line for each round of a server, and for each case: how many cases are done, of how many."""

    def __init__(self, path):
        self.file = path and path.open("a", buffering=1)
        self.cases = self.done = 0

    def tell(self, text):
        if self.file:
            self.file.write(f"{self.done} {self.cases} {text}\n")


def pytest_runtest_teardown(item):
    item.config.progress.done += 1
    item.config.progress.tell(item.name)


@pytest.fixture
def chosen_servers(request):
    return request.config.bench.servers


@pytest.fixture
def compare(request, chosen_servers):
    """compare(measure) measures a case, all servers in turn; it returns the comparison of those that could run."""

    def compare(measure, servers=chosen_servers):
        comparison = request.config.bench.compare(measure, servers)
        if failures := [str(reason) for reason in comparison.out.values() if isinstance(reason, Failed)]:
            pytest.fail("\n".join(failures), pytrace=False)
        if not comparison.rounds:
            pytest.skip("; ".join(f"{server.name} is missing: {reason}" for server, reason in comparison.out.items()))
        return comparison

    return compare


def screen_width(reporter):
    """Columns of the terminal that shows the tables, ours or that of `iocpcore bench`; None: they go to a file."""
    return reporter._tw.fullwidth if reporter.isatty or "COLUMNS" in os.environ else None


def pytest_terminal_summary(terminalreporter, exitstatus, config):
    if exitstatus == pytest.ExitCode.INTERRUPTED or not config.bench.comparisons:
        return  # in the middle of a round some have done more than others
    terminalreporter.section("what a server spends")
    document = config.bench.document()
    path = suite.save(document, config.getoption("save"))
    (run,) = results.parse(document).runs
    for case in run.cases:
        for line in tables.terminal_lines(case, screen_width(terminalreporter)):
            terminalreporter.write_line(line)
        terminalreporter.write_line("")
    for missing in run.missing:
        where = f" in {missing.group}" if missing.group else ""
        terminalreporter.write_line(f"not measured{where}: {missing.server}: {missing.reason}")
    terminalreporter.write_line(f"saved in {os.path.relpath(path)}")
