"""Run the core on the simulated kernel: one schedule for each seed, until one breaks a rule.

A seed that fails is named, made small, and printed as a story. It replays exactly.

Exit status: 0 if all went well, 1 if a seed broke a rule (with --mutants: if a mutant was not caught), 77 if the
simulation cannot be built here.
"""

import argparse
import concurrent.futures
import functools
import importlib.machinery
import importlib.util
import itertools
import multiprocessing
import os
import re
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool

import build
import shrink

CANNOT = 77
CHUNK = 500         # seeds that one process runs at a time
STORY_LINES = 60    # lines printed of a failing schedule, at most


def load_by(loader, name):
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    sys.modules[name] = module
    loader.exec_module(module)
    return module


@functools.cache
def load(mutant=None):
    """The simulation, with that fault switched on. The core's import from its package is loaded from its source."""
    load_by(importlib.machinery.SourceFileLoader("iocpcore._stats", str(build.STATISTICS)), "iocpcore._stats")
    simulation = load_by(importlib.machinery.ExtensionFileLoader("_simulation", str(build.build())), "_simulation")
    simulation.use_mutant(build.mutants()[mutant] if mutant else 0)
    return simulation


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="the first seed (0)")
    parser.add_argument("--seeds", type=int, metavar="N", help="how many from there on (1000; with --story 1)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes; 0: one for each CPU (1)")
    parser.add_argument("--mutant", choices=build.mutants(), help="a deliberate fault in the core")
    parser.add_argument("--mutants", action="store_true", help="run each of them: the seed that catches it, and how")
    parser.add_argument("--story", action="store_true", help="print what happens, line by line")
    parser.add_argument("--limits", default="", metavar="NAME=N,...", help="upper limits for what the seed chooses")
    parser.add_argument("--no-shrink", action="store_true", help="only name a seed that fails")
    return parser.parse_args()


# ---- searching ----

def run_chunk(mutant, first, count):
    """Runs in a process of its own. A crash of that process is a violation too, by one of its seeds."""
    return load(mutant).run_many(first, count)


def result_of(chunk, first):
    try:
        return chunk.result()
    except BrokenProcessPool:
        return first, f"the process ended: this seed or one of the {CHUNK} or so around it has crashed it"


def search(mutant, first, count, jobs):
    """(None, None), or the first seed that fails and its violation."""
    context = multiprocessing.get_context("fork")
    end = first + count
    with concurrent.futures.ProcessPoolExecutor(jobs, mp_context=context) as pool:
        chunks = [(pool.submit(run_chunk, mutant, at, min(CHUNK, end - at)), at) for at in range(first, end, CHUNK)]
        for chunk, at in chunks:
            seed, violation = result_of(chunk, at)
            if violation is not None:
                pool.shutdown(cancel_futures=True)
                return seed, violation
    return None, None


def folded(told):
    """The story's lines; equal lines in a row become one, with their number."""
    for _, same in itertools.groupby(told.splitlines(), lambda line: line.split("  ", 2)[-1]):
        lines = list(same)
        yield lines[0] + (f" ({len(lines)} times)" if len(lines) > 1 else "")


def show(simulation, seed, limits):
    """Print the end of the seed's story."""
    _, told = shrink.apart(simulation.run, seed, limits) or (None, "it ends its process\n")
    lines = list(folded(told))
    print(*lines[-STORY_LINES:], sep="\n")
    if len(lines) > STORY_LINES:
        print(f"(the last {STORY_LINES} of {len(lines)} lines)")


def report(seed, violation, mutant, shrinks):
    """Print how a seed has failed, and the command that repeats it."""
    print(f"seed {seed}: {violation}", flush=True)
    simulation = load(mutant)
    limits = simulation.NO_LIMITS
    if shrinks:
        limits = shrink.shrink(simulation, seed, violation)
        show(simulation, seed, limits)
    words = ["again: python tests/simulation/simulate.py", f"--first {seed} --story"]
    words += [f"--mutant {mutant}"] * bool(mutant)
    words += [f"--limits {shrink.spell(simulation, limits)}"] * (limits != simulation.NO_LIMITS)
    print(*words)


def run_seeds(mutant, first, count, jobs):
    """(None, None) if no seed fails, which is printed; or the first seed that fails and its violation."""
    began = time.perf_counter()
    seed, violation = search(mutant, first, count, jobs)
    if violation is None:
        print(f"{count} seeds, {count / (time.perf_counter() - began):.0f} a second: no rule broken")
    return seed, violation


def tell(mutant, first, count, limits):
    """Print the stories, until a seed breaks a rule. True if none does."""
    simulation = load(mutant)
    for seed in range(first, first + count):
        print(f"---- seed {seed} ----")
        violation, told = simulation.run(seed, shrink.read(simulation, limits))
        print(told, end="")
        if violation is not None:
            return False
    return True


# ---- mutants ----

def catch(name, first, count):
    """(name, the seed that catches it or None, by what): in a program of its own, which a fault may crash."""
    options = ("--mutant", name, "--first", str(first), "--seeds", str(count), "--no-shrink")
    done = subprocess.run([sys.executable, __file__, *options], capture_output=True, encoding="utf-8", check=False)
    found = re.match(r"seed (\d+): (.*)", done.stdout)
    return name, *(found.groups() if found else (None, None))


def catch_all(first, count, jobs):
    """Run each mutant. True if each was caught."""
    build.build()
    every_one = True
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for name, seed, violation in pool.map(lambda name: catch(name, first, count), build.mutants()):
            every_one = every_one and violation is not None
            print(f"{name:26} {'NOT CAUGHT' if violation is None else f'seed {seed:<6}{violation}'}", flush=True)
    return every_one


def main():
    reason = build.missing()
    if reason:
        print(reason, file=sys.stderr)
        return CANNOT
    wanted = arguments()
    jobs = wanted.jobs or os.cpu_count()
    if wanted.mutants:
        return 0 if catch_all(wanted.first, wanted.seeds or 1000, jobs) else 1
    build.build()
    if wanted.story:
        return 0 if tell(wanted.mutant, wanted.first, wanted.seeds or 1, wanted.limits) else 1
    seed, violation = run_seeds(wanted.mutant, wanted.first, wanted.seeds or 1000, jobs)
    if violation is None:
        return 0
    report(seed, violation, wanted.mutant, not wanted.no_shrink)
    return 1


if __name__ == "__main__":
    sys.exit(main())
