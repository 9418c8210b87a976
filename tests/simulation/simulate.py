"""Run the core on the simulated kernel: one schedule for each seed, until one breaks a rule.

Exit status: 0 if all went well, 1 if a seed broke a rule (it is named, and replays exactly), 77 if the simulation
cannot be built here.
"""

import argparse
import importlib.machinery
import importlib.util
import sys
import time

import build

CANNOT = 77


def load(path):
    loader = importlib.machinery.ExtensionFileLoader("_simulation", str(path))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("_simulation", loader))
    loader.exec_module(module)
    return module


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="the first seed (0)")
    parser.add_argument("--seeds", type=int, default=1000, metavar="N", help="how many from there on (1000)")
    parser.add_argument("--mutant", choices=build.mutants(), help="a deliberate fault, compiled in")
    parser.add_argument("--story", action="store_true", help="tell what happens with the first seed, line by line")
    return parser.parse_args()


def tell(simulation, seed):
    violation, story = simulation.run(seed, story=True)
    print(story, end="")
    return violation is None


def search(simulation, first, count, mutant):
    began = time.perf_counter()
    seed, violation = simulation.run_many(first, count)
    if violation is None:
        print(f"{count} seeds, {count / (time.perf_counter() - began):.0f} a second: no rule broken")
        return True
    again = f"--mutant {mutant} " if mutant else ""
    print(f"seed {seed}: {violation}")
    print(f"what happened: python tests/simulation/simulate.py {again}--first {seed} --story")
    return False


def main():
    reason = build.missing()
    if reason:
        print(reason, file=sys.stderr)
        return CANNOT
    wanted = arguments()
    simulation = load(build.build(wanted.mutant))
    well = (
        tell(simulation, wanted.first)
        if wanted.story
        else search(simulation, wanted.first, wanted.seeds, wanted.mutant)
    )
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
