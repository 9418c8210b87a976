"""The CPU time that echo servers spend on a request, beside raw C servers measured in the same run.

Each server runs as a process of its own. A round gives every server in turn the same number of requests, so that a
busy neighbour meets them all alike. The README beside this file says how to read the result.
"""
import argparse
import contextlib
import dataclasses
import importlib.util
import json
import os
import pathlib
import platform
import resource
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
BUILD = HERE.parent / "build" / "bench"
NOT_AVAILABLE = 3  # a C server's exit status where the kernel does not let it run
STARTS_WITHIN = 20.0  # seconds
ENDS_WITHIN = 10.0
WARM_UP = 5000  # echoes
USER_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """The run is worth nothing: a server died, a byte was wrong, or a figure could not be read."""


class Unavailable(Exception):
    """This machine cannot run the server."""


# ---- the servers ----


@dataclasses.dataclass(frozen=True)
class Server:
    name: str
    command: tuple
    floor: str  # the raw C server of the same backend
    module: str | None = None  # must be importable


def iocpcore(backend):
    return (sys.executable, "-m", "iocpcore", "echo", "--port", "0", "--backend", backend)


def callbacks(backend):
    return (sys.executable, str(HERE / "peers" / "python_echo.py"), "--port", "0", "--backend", backend)


def peer(loop):
    return (sys.executable, str(HERE / "peers" / "asyncio_echo.py"), "--port", "0", "--loop", loop)


def reference(backend):
    return (str(BUILD / f"echo_{backend}"), "--port", "0")


SERVERS = {
    server.name: server
    for server in (
        Server("c-epoll", reference("epoll"), "c-epoll"),
        Server("c-uring", reference("uring"), "c-uring"),
        Server("iocpcore-epoll", iocpcore("epoll"), "c-epoll"),
        Server("iocpcore-uring", iocpcore("uring"), "c-uring"),
        Server("python-epoll", callbacks("epoll"), "c-epoll"),
        Server("python-uring", callbacks("uring"), "c-uring"),
        Server("asyncio", peer("asyncio"), "c-epoll"),
        Server("uvloop", peer("uvloop"), "c-epoll", module="uvloop"),
    )
}


# ---- building ----


def compile_c(name, *arguments):
    compiler = os.environ.get("CC", "cc")
    source, target = HERE / "reference" / f"{name}.c", BUILD / name
    command = [compiler, "-O2", "-std=gnu11", "-Wall", "-Wextra", "-o", target, source, *arguments]
    try:
        subprocess.run(command, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Failed(f"{source.name} was not built: {error}") from None


def liburing():
    try:
        flags = subprocess.run(
            ["pkg-config", "--cflags", "--libs", "liburing"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        raise Unavailable("pkg-config finds no liburing") from None
    return flags.stdout.split()


def check_uring():
    """Builds the io_uring reference and starts it once; raises Unavailable if it cannot be had here."""
    compile_c("echo_uring", *liburing())
    with contextlib.ExitStack() as stack:
        start(SERVERS["c-uring"], os.sched_getaffinity(0), stack)


def check(server):
    """Raises Unavailable if this machine cannot run the server."""
    if server.floor == "c-uring":
        check_uring()
    if server.module and importlib.util.find_spec(server.module) is None:
        raise Unavailable(f"{server.module} cannot be imported")


# ---- processes ----


@dataclasses.dataclass
class Running:
    server: Server
    process: subprocess.Popen
    stderr: object
    port: int = 0

    @property
    def pid(self):
        return self.process.pid

    def check_alive(self):
        if self.process.poll() is not None:
            raise Failed(f"{self.server.name} died with status {self.process.returncode}{self.last_words()}")

    def last_words(self):
        self.stderr.seek(0)
        lines = self.stderr.read().strip().splitlines()[-5:]
        return ": " + " | ".join(lines) if lines else ""


def read_line(pipe, seconds):
    """One line from an unbuffered pipe, without its end; shorter at the end of the file, or when the time is over."""
    line, deadline = b"", time.monotonic() + seconds
    while not line.endswith(b"\n"):
        if not select.select([pipe], [], [], max(0, deadline - time.monotonic()))[0]:
            break
        byte = pipe.read(1)
        if not byte:
            break
        line += byte
    return line.decode(errors="replace").rstrip("\n")


def server_cpus(placement):
    mine = os.sched_getaffinity(0)
    return mine if placement == "any" else {max(mine)}


def load_cpus(placement):
    mine = os.sched_getaffinity(0)
    if placement == "apart" and len(mine) == 1:
        raise Failed("there is one CPU only: use --cpus same")
    return {"any": mine, "same": {max(mine)}, "apart": {min(mine)}}[placement]


@contextlib.contextmanager
def placed(cpus):
    """Processes launched meanwhile inherit these CPUs, before they can start a thread."""
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)


def launch(command, cpus, stderr, **pipes):
    # In the build directory, since the root of the checkout holds a folder named as the package.
    with placed(cpus):
        return subprocess.Popen(command, bufsize=0, stdout=subprocess.PIPE, stderr=stderr, cwd=BUILD, **pipes)


def status_within(process, seconds):
    """The exit status, or None while the process goes on."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def end(running):
    """Ends the server; one that has to be killed, or ends with an error, fails the run."""
    running.check_alive()
    running.process.terminate()
    status = status_within(running.process, ENDS_WITHIN)
    if status is None:
        raise Failed(f"{running.server.name} did not end at SIGTERM")
    if status not in (0, -signal.SIGTERM):
        raise Failed(f"{running.server.name} ended with status {status}{running.last_words()}")


def discard(running):
    """Whatever has happened, the process is gone and its files are closed afterwards."""
    if running.process.poll() is None:
        running.process.kill()
        running.process.wait()
    running.process.stdout.close()
    running.stderr.close()


def start(server, cpus, stack):
    """The server, listening; the stack discards it at its end."""
    stderr = tempfile.TemporaryFile("w+")
    running = Running(server, launch(server.command, cpus, stderr, stdin=subprocess.DEVNULL), stderr)
    stack.callback(discard, running)
    line = read_line(running.process.stdout, STARTS_WITHIN)
    if line.startswith("listening on ") and line.rpartition(":")[2].isdigit():
        running.port = int(line.rpartition(":")[2])
        return running
    if server.name == "c-uring" and status_within(running.process, ENDS_WITHIN) == NOT_AVAILABLE:
        raise Unavailable(running.last_words().removeprefix(": "))
    raise Failed(f"{server.name} did not start, its first line was {line!r}{running.last_words()}")


# ---- the server's CPU time ----


def cpu_by_thread(pid):
    """ns on a CPU of each thread, as the scheduler counts them."""
    tasks = pathlib.Path(f"/proc/{pid}/task")
    try:
        return {task.name: int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()}
    except (OSError, IndexError) as error:
        raise Failed(f"the server's CPU time cannot be read: {error}") from None


def settled_cpu_by_thread(pid, seconds=5.0):
    """The same once the server is idle: the figure of a thread that is running is up to a timer tick old."""
    deadline, before = time.monotonic() + seconds, None
    while time.monotonic() < deadline:
        now = cpu_by_thread(pid)
        if now == before:
            return now
        before = now
        time.sleep(0.01)
    raise Failed("the server does not come to rest")


def user_ns(pid):
    """ns in user mode of all threads; see the README on how coarse it is."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) * USER_TICK_NS


def spent(before, after):
    if ended := before.keys() - after.keys():
        raise Failed(f"threads of the server ended while it was measured: {sorted(ended)}")
    return sum(ns - before.get(thread, 0) for thread, ns in after.items())


# ---- load ----


@dataclasses.dataclass
class Round:
    total_ns: float  # of server CPU time, per request
    user_ns: float
    echoes_per_second: float
    latency_us: dict


class Load:
    """The load generator, gated: it stops before and after its timed part."""

    def __init__(self, running, options, connections, requests):
        self.running = running
        self.patience = 2 * options.timeout + 5  # at most two of the load's steps lie between two of its lines
        command = [BUILD / "load", "--gated", "--port", running.port, "--connections", connections]
        command += ["--requests", requests, "--size", options.size, "--pipeline", options.pipeline]
        command += ["--timeout", options.timeout]
        self.stderr = tempfile.TemporaryFile("w+")
        command = [str(part) for part in command]
        self.process = launch(command, load_cpus(options.cpus), self.stderr, stdin=subprocess.PIPE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for file in (self.process.stdin, self.process.stdout, self.stderr):
            file.close()

    def fail(self, problem):
        self.running.check_alive()
        self.stderr.seek(0)
        raise Failed(f"{self.running.server.name}: {problem}: {self.stderr.read().strip()}")

    def wait_for(self, state):
        line = read_line(self.process.stdout, self.patience)
        if line != state:
            self.fail(f"the load was not {state}, but said {line!r}")

    def go(self):
        try:
            self.process.stdin.write(b"\n")
        except BrokenPipeError:
            self.fail("the load is gone")

    def result(self):
        line = read_line(self.process.stdout, self.patience)
        status = status_within(self.process, ENDS_WITHIN)
        if status != 0:
            self.fail(f"the load failed with status {status}, {line}")
        return json.loads(line)


def measure(running, options, connections, requests):
    """One load on one server, which is idle before and after it; connecting and closing are outside the figures."""
    with Load(running, options, connections, requests) as load:
        load.wait_for("ready")
        before, user_before = settled_cpu_by_thread(running.pid), user_ns(running.pid)
        load.go()
        load.wait_for("done")
        running.check_alive()
        after, user_after = settled_cpu_by_thread(running.pid), user_ns(running.pid)
        load.go()
        result = load.result()
    running.check_alive()
    if result["echoes"] != requests or result["mismatches"] or result["errors"]:
        raise Failed(f"{running.server.name}: {result}")
    return Round(
        total_ns=spent(before, after) / requests,
        user_ns=(user_after - user_before) / requests,
        echoes_per_second=result["echoes_per_second"],
        latency_us=result["latency_us"],
    )


def warm_up(running, options, connections):
    measure(running, options, 1, 1)  # one connection opened and closed: asyncio is several times slower before
    measure(running, options, connections, max(WARM_UP, connections))


def run_rounds(servers, options, connections):
    """{name: its rounds}, measured A B C A B C ..."""
    rounds = {server.name: [] for server in servers}
    with contextlib.ExitStack() as stack:
        runnings = [start(server, server_cpus(options.cpus), stack) for server in servers]
        for running in runnings:
            warm_up(running, options, connections)
        for number in range(options.rounds):
            print(f"{connections} connections, round {number + 1} of {options.rounds}", file=sys.stderr)
            for running in runnings:
                rounds[running.server.name].append(measure(running, options, connections, options.requests))
        for running in runnings:
            end(running)
    return rounds


# ---- figures ----


def ratio(rounds, name, floor):
    """The median of the ratios round by round: what slows a whole round cancels out. None without the floor."""
    if floor not in rounds:
        return None
    pairs = zip(rounds[name], rounds[floor], strict=True)
    return statistics.median(mine.total_ns / its.total_ns for mine, its in pairs)


def summary(rounds, name):
    mine = rounds[name]
    totals = [r.total_ns for r in mine]
    return {
        "total_ns": statistics.median(totals),
        "total_ns_min": min(totals),
        "total_ns_max": max(totals),
        "user_ns": statistics.mean(r.user_ns for r in mine),  # a mean: ticks are exact only in the long run
        "ratio_same_backend": ratio(rounds, name, SERVERS[name].floor),
        "ratio_c_epoll": ratio(rounds, name, "c-epoll"),
        "ratio_uvloop": ratio(rounds, name, "uvloop"),
        "ratio_asyncio": ratio(rounds, name, "asyncio"),
        "echoes_per_second": statistics.median(r.echoes_per_second for r in mine),
        "latency_us": {
            key: statistics.median(r.latency_us[key] for r in mine) for key in ("p50", "p99", "p999")
        },
        "rounds": [dataclasses.asdict(r) for r in mine],
    }


COLUMNS = (
    "total", "min", "max", "user", "x same C", "x C epoll", "x uvloop", "x asyncio", "echoes/s", "p50 us", "p99 us",
)


def cells(s):
    def times(value):
        return "-" if value is None else f"{value:.3f}"

    return (
        *(f"{s[key]:.0f}" for key in ("total_ns", "total_ns_min", "total_ns_max", "user_ns")),
        times(s["ratio_same_backend"]),
        times(s["ratio_c_epoll"]),
        times(s["ratio_uvloop"]),
        times(s["ratio_asyncio"]),
        f"{s['echoes_per_second']:,.0f}",
        *(f"{s['latency_us'][key]:.0f}" for key in ("p50", "p99")),
    )


def print_table(connections, summaries, options):
    print(f"\n{connections} connections; server CPU in ns/request, median, min and max of {options.rounds} rounds")
    print(f"{'':16}" + "".join(f"{column:>11}" for column in COLUMNS))
    for name, s in summaries.items():
        print(f"{name:16}" + "".join(f"{cell:>11}" for cell in cells(s)))


def machine():
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "load_before": os.getloadavg()[0],
    }


# ---- the command line ----


def whole(low, high):
    def parse(text):
        value = int(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{value} is not in {low} to {high}")
        return value

    parse.__name__ = "number"
    return parse


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--connections", type=whole(1, 50_000), nargs="+", default=[50, 500])
    parser.add_argument("--rounds", type=whole(1, 1000), default=5)
    parser.add_argument("--requests", type=whole(1, 10**9), default=200_000, help="of each server in each round")
    parser.add_argument("--size", type=whole(1, 16 << 20), default=14, help="bytes of a message")
    parser.add_argument("--pipeline", type=whole(1, 65536), default=1, help="messages outstanding per connection")
    parser.add_argument("--timeout", type=whole(1, 3600), default=60, help="seconds for each step of a load")
    parser.add_argument("--cpus", choices=["same", "apart", "any"], default="same",
                        help="where server and load run: on one CPU (the default), on two, or as the system decides")
    parser.add_argument("--servers", nargs="+", choices=SERVERS, default=list(SERVERS), metavar="NAME",
                        help="of " + ", ".join(SERVERS))
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="also write the figures, round by round")
    return parser.parse_args()


def raise_descriptor_limit(connections):
    """The servers and the load inherit it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < connections + 100:
        raise Failed(f"{connections} connections need more than the {hard} descriptors that a process may have")


def available(names):
    """The servers that can run here, and {name: reason} of the others."""
    servers, skipped = [], {}
    for name in dict.fromkeys(names):
        try:
            check(SERVERS[name])
            servers.append(SERVERS[name])
        except Unavailable as reason:
            skipped[name] = str(reason)
            print(f"{name} is skipped: {reason}")
    if not servers:
        raise Failed("no server is left to measure")
    return servers, skipped


def run(options):
    BUILD.mkdir(parents=True, exist_ok=True)
    compile_c("load")
    compile_c("echo_epoll")
    raise_descriptor_limit(max(options.connections))
    servers, skipped = available(options.servers)
    report = {"machine": machine(), "skipped": skipped, "connections": {}}
    report |= {key: getattr(options, key) for key in ("rounds", "requests", "size", "pipeline", "cpus")}
    for connections in dict.fromkeys(options.connections):
        rounds = run_rounds(servers, options, connections)
        summaries = {name: summary(rounds, name) for name in rounds}
        report["connections"][connections] = summaries
        print_table(connections, summaries, options)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


def main():
    options = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # end through the clean-up
    try:
        run(options)
    except Failed as failure:
        sys.exit(f"native_echo: {failure}")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
