"""pytest runs the suite: options, the servers of each test, and what is shown and kept in the end.

A test is one server in one case. The first test of a case measures all its servers, round by round, and each test then
says how its own has done: as a benchmark of pytest-benchmark, as a skip with the reason where it cannot run here, or as
a failure where it lost a byte. -k and --servers choose who takes part.
"""
import contextlib
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
from report import results, tables
from rounds import Options

MOST_FILES = 20_000  # open at a time, in one process
SECONDS_A_CASE = {False: 300, True: 3600}  # by --full: after which a case is taken to hang


def pytest_addoption(parser):
    group = parser.getgroup("iocpcore's benchmarks")
    group.addoption("--full", action="store_true", help="the whole matrix, with more rounds: half an hour or more")
    group.addoption("--rounds", type=int, help="of each case (default: 3; with --full 7)")
    group.addoption("--requests", type=int, help="of each server in each round, whatever the case says")
    group.addoption("--patience", type=int, default=60, metavar="SECONDS", help="for each step of a load (default: 60)")
    names = ", ".join(server.name for server in servers.SERVERS)
    group.addoption("--servers", type=lambda text: text.split(","), metavar="NAME,NAME",
                    help=f"measure these alone, of: {names}, and those of --add-server")
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
    config.progress = Progress(config.getoption("progress"), rounds)
    config.bench = suite.Suite(Options(rounds=rounds, **given), config.progress.one_round)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end through the clean-up
    allow_files(MOST_FILES)


def allow_files(wanted):
    """Servers and loads inherit it. More than the hard limit only root may have; a case that needs it says so."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(hard, wanted),) * 2)
            return
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def chosen(offered, config):
    names = config.getoption("servers")
    added = config.getoption("add_server")
    return [server for server in [*offered, *added] if names is None or server.peer in names]


def pytest_generate_tests(metafunc):
    if "server" in metafunc.fixturenames:
        offered = chosen(getattr(metafunc.module, "SERVERS", servers.SERVERS), metafunc.config)
        metafunc.parametrize("server", offered, ids=[server.name for server in offered])


def pytest_collection_modifyitems(config, items):
    known = {server.peer for server in chosen(servers.SERVERS, config)}
    if unknown := set(config.getoption("servers") or []) - known:
        there = [server.name for server in [*servers.SERVERS, *config.getoption("add_server")]]
        raise pytest.UsageError(f"no such server: {', '.join(sorted(unknown))}; there are {', '.join(there)}")
    full = config.getoption("full")
    left_out = [item for item in items if item.get_closest_marker("full") and not full]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in set(left_out)]
    for item in items:
        if item.path.is_relative_to(programs.HERE):
            # By a signal: servers and loads are ended on the way out.
            item.add_marker(pytest.mark.timeout(SECONDS_A_CASE[full], method="signal"))


def pytest_collection_finish(session):
    session.config.progress.tests = len(session.items)
    if session.items and not session.config.getoption("collectonly"):
        programs.program("load")


class Progress:
    """A line for each step: how many are done, of how many. A test is as many steps as there are rounds, though the
    first test of a case does the rounds of them all."""

    def __init__(self, path, rounds):
        self.file = path and path.open("a", buffering=1)
        self.rounds = rounds
        self.tests = self.tests_done = self.done = 0

    def one_round(self, text):
        self.done += 1
        self.tell(text)

    def one_test(self, text):
        self.tests_done += 1
        self.done = max(self.done, self.tests_done * self.rounds)
        self.tell(text)

    def tell(self, text):
        if self.file:
            self.file.write(f"{self.done} {self.tests * self.rounds} {text}\n")


def pytest_runtest_teardown(item):
    item.config.progress.one_test(item.name)


# ---- a test ----


def parameters(item):
    return item.callspec.params if hasattr(item, "callspec") else {}


def companions(item):
    """The servers that this test's case is measured with: those of the tests that differ in nothing else."""

    def case_of(other):
        rest = {name: value for name, value in parameters(other).items() if name != "server"}
        return other.path, other.originalname, rest

    return [parameters(other)["server"] for other in item.session.items if case_of(other) == case_of(item)]


class Replayed:
    """A clock that stands still but for what it is told: so that pytest-benchmark shows what others have measured."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds

    def replay(self, benchmark, group, seconds):
        """As many rounds, each of which has taken so long."""
        benchmark.group = group
        left = list(reversed(seconds))
        benchmark.pedantic(lambda: setattr(self, "seconds", self.seconds + left.pop()), rounds=len(seconds))


CLOCK = Replayed()
SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3}


@pytest.fixture
def replay(request):
    """Hand rounds, [{figure: value}], to pytest-benchmark, if the figure is a time."""
    request.node.add_marker(pytest.mark.benchmark(timer=CLOCK))

    def replay(group, figure, rounds):
        scale = SECONDS.get(figure.rpartition("_")[2])
        if scale:
            benchmark = request.getfixturevalue("benchmark")
            benchmark.extra_info["rounds"] = rounds
            CLOCK.replay(benchmark, group, [figures[figure] * scale for figures in rounds])

    return replay


@pytest.fixture
def compare(request, replay, server):
    """Measure a case, unless that is done, and say how this test's server did."""

    def compare(measure):
        comparison = request.config.bench.comparison(measure, companions(request.node))
        if server.name in comparison.missing:
            pytest.skip(f"{server.name} is missing: {comparison.missing[server.name]}")
        if server.name in comparison.failures:
            pytest.fail(str(comparison.failures[server.name]), pytrace=False)
        replay(measure.name, measure.figure, comparison.rounds[server.name])

    return compare


# ---- in the end ----


def pytest_benchmark_group_stats(config, benchmarks, group_by):
    """Our tables have the ratios; those of pytest-benchmark are for a comparison with a run that it has saved."""
    return None if config.getoption("benchmark_compare") else []


def screen_width(reporter):
    """Columns of the terminal that shows the tables, ours or that of `iocpcore bench`; None: they go to a file."""
    return reporter._tw.fullwidth if reporter.isatty or "COLUMNS" in os.environ else None


def pytest_terminal_summary(terminalreporter, exitstatus, config):
    if exitstatus == pytest.ExitCode.INTERRUPTED or not config.bench.has_measured():
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
