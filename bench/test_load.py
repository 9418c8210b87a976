"""The load generator itself, beside one that others wrote: what it costs a server must be of the same order."""
import dataclasses
import shutil
import statistics
import subprocess

from process import CpuTime, load_cpus, placed
from programs import BUILD, Unavailable
from rounds import Traffic
from servers import SERVERS

OURS, THEIRS = "load", "redis-benchmark"
PING = 14  # bytes of redis-benchmark's ping_mbulk


@dataclasses.dataclass(frozen=True)
class Generators(Traffic):
    """Raw C, which is asked by our load or by redis-benchmark."""

    def units(self):
        return {"total_ns": "ns of CPU of raw C per request"}

    def count(self, options):
        return self.requests  # whatever the command line says: fewer show only what connecting costs

    def round(self, running, options):
        if running.server.name == OURS:
            figures = yield from super().round(running, options)
            return {"total_ns": figures["total_ns"]}
        yield 0
        cpu = CpuTime(running.pid)
        self.redis_benchmark(running.port, options)
        return {"total_ns": cpu.read()[0] / self.count(options)}

    def redis_benchmark(self, port, options):
        """It cannot know an echo server's commands: it reads back what it wrote, and takes that for the answer."""
        command = [THEIRS, "-t", "ping_mbulk", "-q", "-p", port, "-c", self.connections, "-n", self.count(options)]
        with placed(load_cpus(options.cpus)):
            subprocess.run(map(str, command), cwd=BUILD, check=True, capture_output=True, timeout=120)


def has_redis_benchmark():
    if shutil.which(THEIRS) is None:
        raise Unavailable("it is not installed: package redis-tools")
    raw_c.check()


raw_c = SERVERS["c-epoll"]
ASKED = [dataclasses.replace(raw_c, name=OURS), dataclasses.replace(raw_c, name=THEIRS, check=has_redis_benchmark)]


def test_an_independent_load_costs_the_server_about_as_much(compare):
    generators = Generators("load", "the load generator, and another", size=PING, requests=50_000)
    rounds = compare(generators, ASKED).rounds
    if len(rounds) == len(ASKED):
        ours, theirs = (statistics.median(each["total_ns"] for each in rounds[name]) for name in (OURS, THEIRS))
        assert theirs / 3 < ours < theirs * 3
