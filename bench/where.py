"""Where the time of an echo goes, by counts that no neighbour disturbs: system calls, and instructions in user mode.

    python bench/where.py              measures, and prints both tables
    python bench/where.py --save       writes bench/report/where.json too: docs/performance.md shows it

strace counts the calls of a server that is asked N and then 2N times; the difference divided by N is one echo's, and
of churn one connection's. callgrind counts the instructions of counted.py's batches of 50 likewise, and says which
function of the core they are in, with all that it calls; those of raw C are counted from outside, as the calls are.
"""
from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import programs
from report import quoted, results, tables
from servers import SERVERS

SHOWN = ("c-epoll", "c-uring", "iocpcore-epoll", "iocpcore-uring", "python-epoll", "python-uring", "uvloop", "asyncio")
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

TURNS = """
import gc, sys, iocpcore, counted
gc.disable()
handler = iocpcore.ECHO if sys.argv[1] == "native" else counted.Echo()
with counted.served(handler, {connections}) as (proactor, peers, _):
    for _ in range(int(sys.argv[2])):
        counted.turn(proactor, peers, peers, len(counted.MESSAGE))
"""


# ---- system calls ----


def calls_of(text: str) -> Counter[str]:
    """Of strace's summary: lines of `CALLS NAME`."""
    return Counter({name: int(count) for count, name in re.findall(r"^\s*(\d+) (\w+)$", text, re.M) if name != "total"})


def each(few: Counter[str], many: Counter[str], more: int) -> dict[str, float]:
    """How often each comes for one of so many more."""
    found = {name: round((many[name] - few[name]) / more, 2) for name in many}
    return {name: count for name, count in sorted(found.items()) if count >= FEWEST}


def child_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def ask(port: str, mode: str, requests: int) -> None:
    load = [str(programs.program("load")), "--port", port, "--mode", mode, "--requests", str(requests)]
    load += ["--connections", str(CONNECTIONS), "--size", "14"]
    subprocess.run(load, check=True, capture_output=True, timeout=PATIENCE)


def served_under(tool: list[str], command: tuple[str, ...], mode: str, requests: int, child: bool) -> None:
    """Run a server under a tool that writes when the server has ended."""
    process = subprocess.Popen([*tool, *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        port = process.stdout.readline().rpartition(":")[2].strip()
        ask(port, "churn", CONNECTIONS)  # malloc gives large buffers back to the system until one was freed
        ask(port, mode, requests)
        time.sleep(0.2)  # what the last connections' ends still do is counted in both runs
        os.kill(child_of(process.pid) if child else process.pid, signal.SIGTERM)
        process.wait(PATIENCE)
    finally:
        process.kill()


def count_calls(command: tuple[str, ...], mode: str, requests: int) -> Counter[str]:
    with tempfile.NamedTemporaryFile("r") as summary:
        served_under(["strace", "-f", "-c", "-U", "calls,name", "-o", summary.name], command, mode, requests, True)
        return calls_of(summary.read())


def all_calls(mode: str, requests: int) -> dict[str, dict[str, float]]:
    found = {}
    for server in SERVERS:
        if server.name in SHOWN and server.missing() is None:
            command = server.started_with("echo")
            few, many = (count_calls(command, mode, times * requests) for times in (1, 2))
            found[server.name] = each(few, many, requests)
    return found


# ---- instructions ----


def inclusive(text: str) -> Counter[str]:
    """Of callgrind_annotate --inclusive=yes: each function with what it calls; without GCC's suffixes."""
    found: Counter[str] = Counter()
    for count, name in re.findall(r"^\s*([\d,]+) \([^)]*\)\s+\S*:([\w@']+)", text, re.M):
        found[name] = max(found[name], int(count.replace(",", "")))
    return found


def annotated(tool_output: Path) -> Counter[str]:
    command = ["callgrind_annotate", "--inclusive=yes", "--threshold=100", str(tool_output)]
    return inclusive(subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout)


def callgrind(output: Path) -> list[str]:
    return ["valgrind", "--tool=callgrind", f"--callgrind-out-file={output}"]


def count_parts(kind: str, turns: int) -> dict[str, int]:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "out"
        program = [sys.executable, "-c", TURNS.format(connections=CONNECTIONS), kind, str(turns)]
        environment = {**os.environ, "PYTHONPATH": str(programs.HERE), "PYTHONHASHSEED": "0"}
        subprocess.run([*callgrind(output), *program], check=True, capture_output=True, env=environment)
        functions = annotated(output)
    return {part: max((functions[name] for name in functions if re.search(of, name)), default=0)
            for part, of in PARTS.items()}


def parts(kind: str, turns: int = 400) -> dict[str, float]:
    few, many = count_parts(kind, turns), count_parts(kind, 2 * turns)
    found = {part: (many[part] - few[part]) / (turns * CONNECTIONS) for part in PARTS}
    return own(found)


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
    command = next(server for server in SERVERS if server.name == "c-epoll").started_with("echo")
    for times in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "out"
            served_under(callgrind(output), command, "echo", times * requests, False)
            totals.append(int(re.search(r"^(?:summary|totals): (\d+)", output.read_text(), re.M)[1]))
    return (totals[1] - totals[0]) / requests


def instructions() -> dict[str, dict[str, float]]:
    columns = {"c-epoll": {"all": raw_c()}, "iocpcore-epoll": parts("native"), "python-epoll": parts("python")}
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
