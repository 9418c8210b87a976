"""Counts the instructions of counted.py's cases in user mode, under valgrind's callgrind, which no neighbour disturbs.

Callgrind collects inside the functions of COLLECTED only, and writes a part of its output at each mark() of counted.py:
every second part is a case's.
"""
from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from process import Failed

COUNTED = Path(__file__).with_name("counted.py")
ATTEMPTS = 3  # the kernel may deliver bytes late, and so break up a batch: counted.py notices
PATIENCE = 300  # seconds

# One must not call the other: that would end the collecting.
POLL = "__pyx_pw_8iocpcore_5_core_8Proactor_*poll*"
SEND = "__pyx_pw_8iocpcore_5_core_7Session_*send*"
COLLECTED = {"poll": [POLL], "send": [POLL, SEND]}

DETERMINED = {
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "LC_ALL": "C.UTF-8",
    # Freed blocks go to the thread's cache, in a batch's number, and none to the system: how long malloc searches, and
    # whether it trims its heap, would else depend on every path and variable that the interpreter has read.
    "GLIBC_TUNABLES": ":".join(
        f"glibc.malloc.{name}={value}"
        for name, value in {"tcache_count": 127, "trim_threshold": 1 << 30, "top_pad": 1 << 24}.items()
    ),
}


def output_of(command: list[object], **options) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        **options,
    )
    if done.returncode != 0:
        raise Failed(f"{command[0]} ended with status {done.returncode}:\n{done.stdout}{done.stderr}".strip())
    return done.stdout


@dataclass(frozen=True)
class Case:
    operations: int
    part: str  # as callgrind wrote it

    @property
    def total(self) -> int:
        return total(self.part)

    def functions(self) -> Counter[str]:
        """The instructions of each function, with all that it calls."""
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(self.part)
            file.flush()
            return inclusive(output_of(["callgrind_annotate", "--inclusive=yes", "--threshold=100", file.name]))


def cases(kind: str, **environment: str) -> dict[str, Case]:
    """Of one kind of counted.py's."""
    for _ in range(ATTEMPTS - 1):
        try:
            return cases_once(kind, environment)
        except Failed:
            pass
    return cases_once(kind, environment)


def cases_once(kind: str, environment: Mapping[str, str]) -> dict[str, Case]:
    with tempfile.TemporaryDirectory() as folder:
        command = [*tool(f"{folder}/part"), "--dump-line=no", "--dump-before=getppid"]
        command += [f"--toggle-collect={name}" for name in COLLECTED[kind]]
        # In a directory without a folder called iocpcore.
        environment = {**os.environ, **DETERMINED, **environment}
        said = output_of([*command, sys.executable, COUNTED, kind], cwd=folder, env=environment)
        return cases_of(said, [part.read_text() for part in Path(folder).glob("part.*")])


def tool(output: object) -> list[str]:
    return ["valgrind", "--tool=callgrind", f"--callgrind-out-file={output}"]


def cases_of(said: str, parts: list[str]) -> dict[str, Case]:
    """From counted.py's lines, a case and its operations each, and callgrind's parts."""
    by_number = {int(re.search(r"^part: (\d+)", part, re.M)[1]): part for part in parts}
    found = {}
    for index, line in enumerate(said.splitlines()):
        name, operations = line.rsplit(" ", 1)
        found[name] = Case(int(operations), by_number.get(2 * (index + 1), ""))
        if not found[name].total:
            raise Failed(f"nothing was counted of {name!r}: has a function been renamed that callgrind.py names?")
    return found


def total(part: str) -> int:
    """Of all functions."""
    found = re.search(r"^totals: (\d+)", part, re.M)
    return int(found[1]) if found else 0


def inclusive(text: str) -> Counter[str]:
    """Of callgrind_annotate --inclusive=yes: each function with what it calls; without GCC's suffixes."""
    found: Counter[str] = Counter()
    for count, name in re.findall(r"^\s*([\d,]+) \([^)]*\)\s+\S*:([\w@']+)", text, re.M):
        found[name] = max(found[name], int(count.replace(",", "")))
    return found
