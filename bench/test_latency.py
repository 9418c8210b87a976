"""Latency at a fixed rate, far below what the servers can do.

An open loop: a message is sent when it is due, whatever became of those before it, and its latency counts from then. A
closed loop would wait for a server that stalls, and never see what all the others would have waited.
"""
import dataclasses

import pytest

from rounds import LATENCY, Traffic

RATES = [pytest.param(5000, id="5000rate"), pytest.param(20_000, id="20000rate", marks=pytest.mark.full)]


@dataclasses.dataclass(frozen=True)
class Latency(Traffic):
    figure = "p99_us"
    mode: str = "paced"

    def units(self):
        return LATENCY | super().units()


@pytest.mark.parametrize("rate", RATES)
def test_latency(compare, rate):
    compare(Latency("latency", f"latency at {rate:,} a second", rate=rate, requests=rate // 2, full_times=5))
