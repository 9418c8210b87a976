"""Rounds: every server in turn does the same, A B C A B C ..., so that a change of the machine meets all of them.

A measure is the recipe of a case: how its servers are warmed up, and what one round of one server is.
"""
import contextlib
import dataclasses
import resource
import time

from load import Load
from process import CpuTime, Failed, Running
from programs import Unavailable
from servers import NotThis

WARM_UP = 5000  # requests
OTHER_FILES = 100  # that a process may have open beside its connections

CPU = {"total_ns": "ns of server CPU per {}", "user_ns": "of it in user mode", "system_ns": "of it in the kernel"}
LATENCY = {"p50_us": "us, median latency", "p99_us": "us, 99 % within", "p999_us": "us, 99.9 % within"}
ATTACHES = {"attaches_per_packet": "times that the GIL was taken, per packet"}
RATE = {"requests_per_s": "requests per second"}


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line says about every case."""

    full: bool = False
    rounds: int = 3
    cpus: str = "same"
    requests: int | None = None  # of each server in each round; None: what the case says
    patience: int = 60  # seconds for each step of a load


@dataclasses.dataclass(frozen=True)
class Measure:
    """Subclasses add what they need to say."""

    group: str
    name: str
    service: str = "echo"

    figure = "total_ns"
    most_rounds = 1000  # more would say nothing new

    def units(self):
        raise NotImplementedError

    def why_not(self):
        """Why nobody can be measured on this machine, or None."""
        return None

    def start(self, server, options, stack):
        """What the other methods are given; the stack discards it at its end."""
        return server

    def warm_up(self, running, options):
        """Before the first round."""

    def round(self, running, options):
        """A generator that returns {figure: value}. What it yields is how many seconds the server is to idle.

        All servers idle together: only what is between two yields is done by one at a time.
        """
        raise NotImplementedError

    def end(self, running):
        """After the last round."""

    def parameters(self):
        """What the report chooses and orders cases by."""
        return {}


@dataclasses.dataclass(frozen=True)
class Traffic(Measure):
    """Requests, and what they cost. They are timed from rest to rest: connecting and closing are not in the figures."""

    mode: str = "echo"
    size: int = 14
    connections: int = 50
    pipeline: int = 1
    rate: int | None = None  # requests a second, of a paced load
    requests: int = 10_000  # of a quick run
    full_times: int = 10  # as many in a full one
    idle: float = 0.0  # seconds before the requests
    per: str = "request"  # what the CPU time is divided by: "request", or "KiB"

    def units(self):
        return {key: text.format(self.per) for key, text in CPU.items()} | RATE | LATENCY | ATTACHES

    def parameters(self):
        return {"size": self.size, "connections": self.connections, "pipeline": self.pipeline}

    def why_not(self):
        wanted, most = self.connections + OTHER_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        if most != resource.RLIM_INFINITY and wanted > most:
            return f"it takes {wanted:,} open files, and the hard limit is {most:,} (ulimit -Hn)"
        return None

    def start(self, server, options, stack):
        running = Running(server, self.service, options.cpus)
        stack.callback(running.discard)
        return running

    def end(self, running):
        running.end()

    def count(self, options):
        return options.requests or self.requests * (self.full_times if options.full else 1)

    def load(self, running, options, **other):
        mine = {"mode": self.mode, "requests": self.count(options)} | self.parameters() | other
        if self.rate:
            mine["rate"] = self.rate
        return Load(running, options.cpus, options.patience, **mine)

    def warm_up(self, running, options):
        """A connection is opened and closed first: asyncio is several times slower before that."""
        for other in ({"connections": 1, "requests": 1}, {"requests": min(WARM_UP, self.count(options))}):
            with self.load(running, options, **other) as load:
                load.run()
                load.end()

    def round(self, running, options):
        with self.load(running, options) as load:
            yield self.idle
            before = running.counted()
            cpu = CpuTime(running.pid)
            load.run()
            total, user = cpu.read()
            after = running.counted()
            requests, figures = load.end()
        units = requests * (self.size / 1024 if self.per == "KiB" else 1)
        figures |= {"total_ns": total / units, "user_ns": user / units, "system_ns": (total - user) / units}
        return figures | attach_figures(before, after)


def attach_figures(before, after):
    attaches, packets = (b - a for a, b in zip(before, after, strict=True)) if before else (0, 0)
    return {"attaches_per_packet": attaches / packets} if packets else {}


class Comparison:
    """The rounds of one measure: of all servers that can run, and why the others are out."""

    def __init__(self, measure, options, servers, tell=lambda text: None):
        self.measure = measure
        self.options = options
        self.servers = servers
        self.tell = tell  # called when a server has done a round
        self.started = {}  # {server: what the measure has started}
        self.rounds = {}  # by the server's name
        self.out = {}  # {server: Unavailable or Failed}

    @contextlib.contextmanager
    def attempt(self, server):
        """What goes wrong in here puts that server out of the comparison."""
        try:
            yield
        except (Unavailable, Failed) as reason:
            self.out[server] = reason
            self.started.pop(server, None)
            self.rounds.pop(server.name, None)

    def bases(self):
        """{name: the server whose figures its own are a multiple of, or None where there is none}."""
        wanted = {server.name: (server.base, "c-epoll") for server in self.servers}
        return {name: next((base for base in bases if base in self.rounds), None) for name, bases in wanted.items()}

    def run(self):
        with contextlib.ExitStack() as stack:
            for server in self.servers:
                with self.attempt(server):
                    self.check(server)
                    self.started[server] = self.measure.start(server, self.options, stack)
                    self.measure.warm_up(self.started[server], self.options)
            for number in range(min(self.options.rounds, self.measure.most_rounds)):
                self.one_round(f"round {number + 1}")
            for server, running in list(self.started.items()):
                with self.attempt(server):
                    self.measure.end(running)

    def check(self, server):
        if server.check:
            server.check()
        if self.measure.service not in server.services:
            raise NotThis(server.lacks)
        if reason := self.measure.why_not():
            raise NotThis(f"{self.measure.name}: {reason}")

    def one_round(self, number):
        waiting = {server: self.measure.round(running, self.options) for server, running in self.started.items()}
        with contextlib.ExitStack() as stack:
            for steps in waiting.values():
                stack.callback(steps.close)  # where a failure leaves one behind, its load ends here
            while waiting:
                if pause := self.step(number, waiting):
                    time.sleep(pause)

    def step(self, number, waiting):
        """Each server goes on until it wants to idle; for how long. Who has finished, or failed, waits no more."""
        pause = 0
        for server, steps in list(waiting.items()):
            del waiting[server]
            with self.attempt(server):
                try:
                    pause = max(pause, next(steps))
                    waiting[server] = steps
                except StopIteration as end:
                    self.rounds.setdefault(server.name, []).append(end.value)
                    self.tell(f"{self.measure.name}, {number}: {server.name}")
        return pause
