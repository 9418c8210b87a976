"""The regression gate: what an echo costs in instructions, and in calls under wine, against bench/baseline.json.

    tools/gate                     measures and compares; exit status 1 if something has become dearer
    tools/gate --update            measures, and writes the baseline
    tools/gate --against COMMIT    builds that commit too, and compares with what it costs here and now

No time is measured: callgrind counts the instructions in user mode of counted.py, wine prints the calls of its echoes.
Both are driven by poll() in one thread, so that the scheduler has no part in it, and repeated runs differ by nothing at
all. Other versions of Python, the compiler or Cython make other instructions: then the baseline says nothing, the gate
says which version differs, and skips the comparison; --against needs no baseline.
"""
from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import callgrind
import calls
from callgrind import output_of
from process import Failed
from programs import Unavailable

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BUILD = ROOT / "build" / "gate"
BASELINE = HERE / "baseline.json"
INSTRUCTIONS_TOLERANCE = 0.02  # runs of one build do not differ; this is what a change may cost unasked
CALLS_TOLERANCE = 0.01


@dataclass(frozen=True)
class Costs:
    """Of each case, and the versions that they hold for."""

    versions: dict[str, str]
    costs: dict[str, float]


# ---- instructions ----


def compiler() -> str:
    return output_of([os.environ.get("CC", "cc"), "-dumpfullversion"]).strip()


def native_versions() -> dict[str, str]:
    import iocpcore

    return {
        "python": f"{platform.python_version()} by {platform.python_compiler()}",
        "compiler": compiler(),
        "Cython": version("Cython"),
        "valgrind": output_of(["valgrind", "--version"]).strip().removeprefix("valgrind-"),
        "io_uring": "built" if "uring" in iocpcore.backends() else "not built",
    }


def instructions(**environment: str) -> Costs:
    cases = callgrind.cases("poll", **environment) | callgrind.cases("send", **environment)
    return Costs(native_versions(), {name: round(case.total / case.operations, 2) for name, case in cases.items()})


# ---- calls under wine ----


def calls_under_wine() -> Costs:
    """Raises Unavailable where the Windows build is not installed."""
    calls.set_up()
    wine = shutil.which("wine") or shutil.which("wine64") or "wine"
    versions = {"wine": output_of([wine, "--version"]).split()[0]}
    costs = {f"{name} echo": calls.calls_per_echo(HERE / "counted.py", name.lower()) for name in ("native", "Python")}
    return Costs(versions, costs)


# ---- comparing ----


def differences(here: dict[str, str], there: dict[str, str]) -> list[str]:
    names = sorted(here.keys() | there.keys())
    return [f"{n} {there.get(n)} there, {here.get(n)} here" for n in names if here.get(n) != there.get(n)]


def judge(new: dict[str, float], old: dict[str, float], tolerance: float) -> tuple[list[str], bool]:
    """A line for each case, and whether none is dearer than the tolerance allows."""
    lines, good = [], True
    for name in dict.fromkeys([*old, *new]):
        if name not in new or name not in old:
            lines.append(f"  {name:32} {'is no longer counted' if name not in new else 'has no baseline'}: --update")
            good = False
            continue
        change = new[name] / old[name] - 1
        verdict = "DEARER" if change > tolerance else "cheaper: --update" if change < -tolerance else ""
        lines.append(f"  {name:32}{old[name]:12,.2f}{new[name]:12,.2f}{change:+9.2%}  {verdict}".rstrip())
        good &= change <= tolerance
    return lines, good


def compared(title: str, new: Costs, old: Costs | None, tolerance: float) -> bool:
    """Prints the comparison; False if something is dearer."""
    print(f"{title}: before, now, change; {tolerance:.0%} are allowed", flush=True)
    if old is None:
        print("  NOT COMPARED: there is no baseline; --update makes one")
        return True
    if differ := differences(new.versions, old.versions):
        print("  NOT COMPARED: the baseline holds for other versions:", "; ".join(differ))
        print("  `tools/gate --against COMMIT` compares on this machine, `--update` makes a baseline for it")
        return True
    lines, good = judge(new.costs, old.costs, tolerance)
    print("\n".join(lines))
    return good


# ---- the baseline, and another commit ----


def read_baseline() -> dict[str, Costs]:
    if not BASELINE.exists():
        return {}
    return {key: Costs(**value) for key, value in json.loads(BASELINE.read_text()).items()}


def write_baseline(measured: dict[str, Costs]) -> None:
    kept = {**read_baseline(), **measured}
    text = json.dumps({key: vars(value) for key, value in sorted(kept.items())}, indent=2)
    BASELINE.write_text(text + "\n")
    print(f"written: {BASELINE.relative_to(ROOT)}")


@contextmanager
def built(commit: str) -> Iterator[Path]:
    """A folder with the package of that commit."""
    tree, site = BUILD / "tree", BUILD / "site-packages"
    shutil.rmtree(site, ignore_errors=True)
    output_of(["git", "worktree", "add", "--force", "--detach", tree, commit], cwd=ROOT)
    try:
        output_of([tree / "tools" / "wheel", "native", sys.executable])
        wheels = (tree / "build" / "native").glob("*.whl")
        output_of([sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target", site, *wheels])
        yield site
    finally:
        output_of(["git", "worktree", "remove", "--force", tree], cwd=ROOT)


def against(commit: str) -> bool:
    with built(commit) as site:
        old = instructions(PYTHONPATH=str(site))
    return compared(f"instructions, against {commit}", instructions(), old, INSTRUCTIONS_TOLERANCE)


def gate(update: bool) -> bool:
    """False if something has become dearer."""
    native, windows = f"instructions, Python {sys.version_info[0]}.{sys.version_info[1]}", "calls under wine"
    measured = {native: instructions()}
    try:
        measured[windows] = calls_under_wine()
    except Unavailable as missing:
        print(f"{windows}: NOT COUNTED: {missing}")
    if update:
        write_baseline(measured)
        return True
    baseline = read_baseline()
    tolerances = {native: INSTRUCTIONS_TOLERANCE, windows: CALLS_TOLERANCE}
    good = [compared(key, costs, baseline.get(key), tolerances[key]) for key, costs in measured.items()]
    return all(good)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--update", action="store_true", help="write the baseline")
    either.add_argument("--against", metavar="COMMIT", help="build this commit, and compare with it")
    options = parser.parse_args(arguments)
    try:
        good = against(options.against) if options.against else gate(options.update)
    except (Failed, subprocess.TimeoutExpired, OSError) as problem:
        sys.exit(f"gate: {problem}")
    if not good:
        sys.exit("gate: dearer than before, or not as the baseline has it; if that is wanted: tools/gate --update")


if __name__ == "__main__":
    main()
