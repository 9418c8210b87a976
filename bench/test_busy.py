"""Latency beside a Python busy loop: in a thread of the server's process, and in another process on the same CPU.

Both take the CPU in turns with the server; only the one inside can hold the GIL. What the second costs is what the CPU
costs; what the first costs more is what the GIL costs.
"""
import dataclasses

from process import Running
from rounds import LATENCY, RATE, Traffic
from servers import SERVERS

INSIDE = "--busy"  # with this argument a server has the loop: a line on its standard input starts it, the next ends it


@dataclasses.dataclass(frozen=True)
class Busy(Traffic):
    """The loop may be part of the server's process, so the CPU time says nothing."""

    figure = "p99_us"

    def units(self):
        return LATENCY | RATE

    def start(self, server, options, stack):
        running = super().start(server, options, stack)
        if INSIDE in server.command:
            running.loop = running
        else:  # the loop of a server that nobody asks for anything
            running.loop = Running(with_loop_inside(SERVERS["asyncio"]), self.service, options.cpus)
            stack.callback(running.loop.discard)
        return running

    def round(self, running, options):
        with self.load(running, options) as load:
            yield self.idle
            running.loop.write_line()
            load.run()
            running.loop.write_line()
            return load.end()[1]


def with_loop_inside(server, **more):
    return dataclasses.replace(server, command=(*server.command, INSIDE), counts=False, **more)


def beside_a_busy_loop(server):
    """The server as two: raw C has no Python inside, and is measured with the other process alone."""
    name = f"{server.name}, loop outside"
    outside = dataclasses.replace(server, name=name, base="c-epoll, loop outside")
    return [outside, with_loop_inside(server, base=name)] if server.module else [outside]


def test_a_busy_loop(compare, chosen_servers):
    busy = Busy("busy", "busy loop, 1,000 echoes a second", mode="paced", rate=1000, requests=500, full_times=5)
    compare(busy, [row for server in chosen_servers for row in beside_a_busy_loop(server)])
