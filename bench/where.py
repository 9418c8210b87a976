"""Where the time of an echo goes, by counts that no neighbour disturbs: system calls, and instructions in user mode.

    python bench/where.py              measures, and prints the tables
    python bench/where.py --save       writes bench/report/where.json too: docs/performance.md shows it

strace counts the calls of a server that is asked N and then 2N times; the difference divided by N is one echo's, and
of churn one connection's. callgrind counts the instructions of counted.py's batches of 50, and says in which function
of the core they are, with all that it calls; those of raw C are counted from outside, as the calls are.
"""
from __future__ import annotations

import argparse
import dataclasses
import re
import tempfile
import time
from collections import Counter

import callgrind
from load import Load
from process import Running
from report import quoted, results, tables
from servers import SERVERS, Server

SHOWN = ("c-epoll", "c-uring", "iocpcore-epoll", "iocpcore-uring", "python-epoll", "python-uring", "asyncio", "uvloop")
CONNECTIONS = 50
PATIENCE = 120  # seconds
FEWEST = 0.005  # of a call, an echo: what is rarer is none of its own

# What part of an echo a function is, with all that it calls. What the others leave of the first is the worker's own.
PARTS = {
    "all": r"worker_worker_turn$",
    "port: waiting, receiving": r"^epoll_wait_edges$",
    "port: starting operations": r"^start$",
    "handler: delivery": r"_core_attach$",
    "handler: the user's function": r"PyObject_FastCallDict$",
    "Session.send": r"Session_\d*send$",
}


# ---- system calls ----


def calls_of(text: str) -> Counter[str]:
    """Of strace's summary: lines of `CALLS NAME`."""
    return Counter({name: int(count) for count, name in re.findall(r"^\s*(\d+) (\w+)$", text, re.M) if name != "total"})


def each(few: Counter[str], many: Counter[str], more: int) -> dict[str, float]:
    """How often each comes for one of so many more."""
    found = {name: round((many[name] - few[name]) / more, 2) for name in many}
    return {name: count for name, count in sorted(found.items()) if count >= FEWEST}


def served_under(tool: list[str], server: Server, mode: str, requests: int) -> None:
    """Run a server under a tool, which writes what it has counted when both have ended."""
    running = Running(dataclasses.replace(server, command=(*tool, *server.command)), "echo", "any")
    try:
        ask(running, "churn", CONNECTIONS)  # malloc gives large buffers back to the system until one was freed
        ask(running, mode, requests)
        time.sleep(0.2)  # what the last connections' ends still do is counted in both runs
        running.end()
    finally:
        running.discard()


def ask(running: Running, mode: str, requests: int) -> None:
    with Load(running, "any", PATIENCE, mode=mode, requests=requests, connections=CONNECTIONS, size=14) as load:
        load.run()
        load.end()


def count_calls(server: Server, mode: str, requests: int) -> Counter[str]:
    with tempfile.NamedTemporaryFile("r") as summary:
        # -I2: a signal to strace ends the server too.
        strace = ["strace", "-I2", "-f", "-c", "-U", "calls,name", "-o", summary.name]
        served_under(strace, server, mode, requests)
        return calls_of(summary.read())


def all_calls(mode: str, requests: int) -> dict[str, dict[str, float]]:
    found = {}
    for server in map(SERVERS.get, SHOWN):
        if server.missing() is None:
            few, many = (count_calls(server, mode, times * requests) for times in (1, 2))
            found[server.name] = each(few, many, requests)
    return found


# ---- instructions ----


def parts(case: callgrind.Case) -> dict[str, float]:
    functions = case.functions()
    counts = {part: [functions[name] for name in functions if re.search(of, name)] for part, of in PARTS.items()}
    return own({part: max(found, default=0) / case.operations for part, found in counts.items()})


def own(found: dict[str, float]) -> dict[str, float]:
    """Each part without those inside it. Of a native echo there is no delivery: 0, and what others call of its like."""
    inside = {
        "all": ("port: waiting, receiving", "port: starting operations", "handler: delivery"),
        "handler: delivery": ("handler: the user's function",),
        "handler: the user's function": ("Session.send",),
    }
    rest = {part: found[part] - sum(found[name] for name in inside.get(part, ())) for part in found}
    worker = rest.pop("all")
    if not found["handler: delivery"]:
        rest = {part: count for part, count in rest.items() if part.startswith("port")}
    return {"all": found["all"], "worker: transitions, queues, counts": worker, **rest}


def raw_c(requests: int = 20_000) -> float:
    totals = []
    for times in (1, 2):
        with tempfile.NamedTemporaryFile("r") as output:
            served_under(callgrind.tool(output.name), SERVERS["c-epoll"], "echo", times * requests)
            totals.append(callgrind.total(output.read()))
    return (totals[1] - totals[0]) / requests


def instructions() -> dict[str, dict[str, float]]:
    cases = callgrind.cases("poll")
    columns = {
        "c-epoll": {"all": raw_c()},
        "iocpcore-epoll": parts(cases["native echo, 50 a batch"]),
        "python-epoll": parts(cases["Python echo, 50 a batch"]),
    }
    return {name: {part: round(count) for part, count in column.items()} for name, column in columns.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Where the time of an echo goes: calls and instructions.")
    parser.add_argument("--save", action="store_true", help="write where.json, which docs/performance.md shows")
    options = parser.parse_args()
    found = {
        "instructions": instructions(),
        "calls": all_calls("echo", 20_000),
        "churn": all_calls("churn", 1000),
    }
    for name, columns in found.items():
        print(f"{name}\n{tables.by_column(columns, {})}\n")
    if options.save:
        results.write(found, quoted.WHERE)


if __name__ == "__main__":
    main()
