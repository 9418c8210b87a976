"""The load generator itself, beside one that others wrote: what it costs a server must be of the same order."""
import shutil
import subprocess

import pytest

from process import CpuTime, Running, load_cpus, placed
from programs import BUILD
from rounds import Traffic
from servers import SERVERS

REQUESTS = 50_000
CONNECTIONS = 50
PING = 14  # bytes of redis-benchmark's ping_mbulk


@pytest.fixture
def raw_c(request):
    server = SERVERS["c-epoll"]
    if reason := server.missing():
        pytest.skip(reason)
    running = Running(server, "echo", request.config.bench.options.cpus)
    request.addfinalizer(running.discard)
    yield running
    running.end()


def redis_benchmark(port, placement):
    """It cannot know an echo server's commands: it reads back what it wrote, and takes that for the answer."""
    command = ["redis-benchmark", "-t", "ping_mbulk", "-q", "-p", port, "-c", CONNECTIONS, "-n", REQUESTS]
    with placed(load_cpus(placement)):
        subprocess.run([str(part) for part in command], cwd=BUILD, check=True, capture_output=True, timeout=120)


def test_an_independent_load_costs_the_server_about_as_much(request, raw_c):
    options = request.config.bench.options
    if shutil.which("redis-benchmark") is None:
        request.config.bench.lacks("redis-benchmark", "it is not installed: package redis-tools", "load")
        pytest.skip("redis-benchmark is missing: package redis-tools")
    traffic = Traffic("load", "ours", size=PING, connections=CONNECTIONS, requests=REQUESTS)
    traffic.warm_up(raw_c, options)
    ours = total_of(traffic.round(raw_c, options))
    cpu = CpuTime(raw_c.pid)
    redis_benchmark(raw_c.port, options.cpus)
    theirs = cpu.read()[0] / REQUESTS
    request.config.bench.add(
        "load", "the load generator, and another", {"total_ns": "ns of CPU of raw C per request"},
        {"load": [{"total_ns": ours}], "redis-benchmark": [{"total_ns": theirs}]},
    )
    assert theirs / 3 < ours < theirs * 3


def total_of(steps):
    """What the generator of one round returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value["total_ns"]
