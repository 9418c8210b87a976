"""Memory: what an idle connection costs its server after one echo, and what is left when all have gone."""
import dataclasses

import pytest

from process import private_bytes
from rounds import Traffic

IDLE = 7.0  # seconds: more than an iocpcore session keeps its receive buffer
CONNECTIONS = [pytest.param(1000, id="1000idle"), pytest.param(10_000, id="10000idle", marks=pytest.mark.full)]


@dataclasses.dataclass(frozen=True)
class Memory(Traffic):
    figure = "bytes_per_connection"
    most_rounds = 1  # the next would find what the first has left

    def units(self):
        return {
            "bytes_per_connection": "bytes of private memory per idle connection",
            "kept_per_connection": "bytes, of these still there when all have gone",
        }

    def warm_up(self, running, options):
        for connections in (1, 10):
            with self.load(running, options, connections=connections, requests=connections) as load:
                load.run()
                load.end()

    def round(self, running, options):
        yield IDLE
        before = private_bytes(running.pid)
        with self.load(running, options, requests=1) as load:
            yield IDLE
            full = private_bytes(running.pid)
            load.run()
            load.end()
        yield IDLE
        after = private_bytes(running.pid)
        figures = {"bytes_per_connection": full - before, "kept_per_connection": after - before}
        return {name: bytes_of_all / self.connections for name, bytes_of_all in figures.items()}


@pytest.mark.parametrize("connections", CONNECTIONS)
def test_memory(compare, connections):
    compare(Memory("memory", f"{connections:,} idle connections", connections=connections))
