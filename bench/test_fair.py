"""A polite client's small echo beside connections that flood: what a server makes one wait for what others send.

The flooders write all that the system takes, and read all that comes. They are a process of their own, with the lowest
priority, on the polite client's CPU; the server has the other to itself, whatever --cpus says: else the client would
above all wait for a CPU. Only servers with back-pressure take part.
"""
import dataclasses
import os

import pytest

from load import Flood
from rounds import LATENCY, RATE, Traffic


@dataclasses.dataclass(frozen=True)
class Fair(Traffic):
    service: str = "patient"
    figure = "p99_us"

    def units(self):
        return LATENCY | RATE

    def why_not(self):
        return super().why_not() if len(os.sched_getaffinity(0)) > 1 else "it takes two CPUs"

    def start(self, server, options, stack):
        return super().start(server, dataclasses.replace(options, cpus="apart"), stack)

    def round(self, running, options):
        arguments = {"connections": self.connections, "size": self.size, "requests": self.count(options)}
        with Flood(running, "apart", options.patience, **arguments) as load:
            yield self.idle
            load.run()
            return load.end()[1]


@pytest.mark.parametrize("flooders", [1, 100], ids=["1flooder", "100flooders"])
def test_beside_a_flood(compare, flooders):
    name = f"echo 14 B beside {flooders} that flood"
    compare(Fair("fair", name, connections=flooders, requests=300, full_times=3))
