"""A full result such as the suite saves, with invented figures: for the tests of what reads one."""

import random

from report import results

COSTS = {  # of an echo: user and system, in ns
    "c-epoll": (90, 1270),
    "c-uring": (20, 1230),
    "iocpcore-epoll": (105, 1280),
    "iocpcore-uring": (60, 1190),
    "python-epoll": (210, 1290),
    "python-uring": (170, 1200),
    "uvloop": (430, 1570),
    "asyncio": (1150, 1900),
    "twisted": (2600, 2050),
}
UNITS = {
    "total_ns": "ns of server CPU per request",
    "user_ns": "ns, user part",
    "system_ns": "ns, system part",
    "requests_per_s": "requests/s",
    "p50_us": "us",
    "p99_us": "us",
    "p999_us": "us",
}


def measured(make, rounds):
    """{server: its rounds}; make gives the figures of one round."""
    return {name: {"rounds": [make(*costs) for _ in range(rounds)]} for name, costs in COSTS.items()}


def case(group, name, figure, units, servers, **more):
    return {"group": group, "name": name, "figure": figure, "units": units, "servers": servers, **more}


def echo(size, connections, chance, rounds):
    weight = 1 + size / 8192 + (12 if connections == 1 else connections / 5000)

    def one(user, system):
        user, system = user * (1 + size / 60000), system * weight
        user, system = (part * chance.uniform(0.97, 1.03) for part in (user, system))
        total = user + system
        tails = {"p50_us": connections * total / 900, "p99_us": connections * total / 600}
        return {"total_ns": total, "user_ns": user, "system_ns": system, "requests_per_s": 4e8 / total, **tails}

    parameters = {"size": size, "connections": connections, "pipeline": 1}
    name = f"echo {size} B x {connections}"
    return case("echo", name, "total_ns", UNITS, measured(one, rounds), base="c-epoll", parameters=parameters)


def latency(group, name, chance, rounds):
    def one(user, system):
        middle = (user + system) / 30 * chance.uniform(0.95, 1.05)
        return {"p50_us": middle, "p99_us": middle * (2 + user / 600), "p999_us": middle * (4 + user / 200)}

    return case(group, name, "p99_us", UNITS, measured(one, rounds), base="c-epoll")


def simple(group, name, figure, unit, factor, chance, rounds, **more):
    def one(user, system):
        return {figure: (user + 300) * factor * chance.uniform(0.98, 1.02)}

    return case(group, name, figure, {figure: unit}, measured(one, rounds), base="c-epoll", **more)


def sample(**how):
    return results.parse(document(**how))


def document(rounds=5, seed=1):
    chance = random.Random(seed)
    cases = [echo(14, connections, chance, rounds) for connections in (1, 50, 500, 5000)]
    cases += [echo(size, n, chance, rounds) for n in (1, 50, 500) for size in (1024, 10240, 102400)]
    cases += [
        latency("latency", "paced, 20,000/s", chance, rounds),
        latency("busy", "paced, a Python loop in the process", chance, rounds),
        simple("churn", "connect + echo + close", "total_ns", "ns of server CPU per connection", 40, chance, rounds),
        simple("memory", "1,000 idle", "bytes_per_connection", "bytes per connection", 1.2, chance, 1),
        simple("memory", "10,000 idle", "bytes_per_connection", "bytes per connection", 1.1, chance, 1),
        simple("bulk", "64 MiB", "mib_per_s", "MiB/s", 2, chance, rounds, better="higher"),
        simple("start", "import", "import_ms", "ms", 0.1, chance, rounds),
    ]
    return {
        "format": results.FULL,
        "made": "2026-01-02T03:04:05Z",
        "command": "make bench",
        "commit": "abc1234",
        "seconds": 271.5,
        "machine": {"kernel": "Linux 6.18", "cpu": "a processor <of no name>", "cpus": 2, "load_before": 0.1},
        "versions": {"python": "3.11.2", "uvloop": "0.22.1"},
        "missing": [{"server": "rsloop", "reason": "no wheel for this <Python>"}],
        "cases": cases,
    }
