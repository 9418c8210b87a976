"""Makes a failing schedule small: the same seed's world with less in it, as long as the same rule is broken.

`limits` make the world smaller: fewer clients, bytes, workers, listeners and calls, no Python, no layer, and whims of
the kernel that never come. A smaller world may need another order of events (`salt`) to fail. Nothing here is random.
"""

import math
import multiprocessing
import re

CLIENTS = 12
SALTS = 30


def rule(violation):
    """The rule that was broken, without names and numbers."""
    return re.sub(r"\d+", "#", violation.split(":")[-1])


def apart(function, *arguments):
    """The function's result, from a process of its own; None if that process crashed."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=lambda: theirs.send(function(*arguments)))
    child.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        return None
    finally:
        child.join()


def first_salt(simulation, seed, limits, wanted, longest):
    """(salt, length of the story) of the first salt with which the world of these limits breaks the wanted rule, in a
    story of at most `longest` characters. None if there is none."""
    for salt in sorted(range(SALTS), key=lambda salt: salt != limits["salt"]):
        _, violation = simulation.run_many(seed, 1, {**limits, "salt": salt})
        if violation is None:
            continue
        if "crashed" in violation:
            return (salt, longest) if rule(violation) == wanted else None   # this process cannot be trusted any more
        if rule(violation) == wanted:
            length = len(simulation.run(seed, {**limits, "salt": salt})[1])
            if length <= longest:
                return salt, length
    return None


def changes(simulation, limits):
    """The changes that could still make the world smaller."""
    for name in ("workers", "listeners"):
        if limits[name] > 1:
            yield {name: 1}
    for name in ("calls", "python", "layer"):
        if limits[name] > 0:
            yield {name: 0}
    for name, count in (("absent", CLIENTS), ("calm", len(simulation.WHIMS))):
        for bit in range(count):
            if not limits[name] >> bit & 1:
                yield {name: limits[name] | 1 << bit}
    for most in (4, 32, 256, 2048):
        if limits["bytes"] > most:
            yield {"bytes": most}


def shrink(simulation, seed, violation):
    """The narrowest limits found."""
    limits = dict(simulation.NO_LIMITS)
    length = math.inf
    shrunk = True
    while shrunk:
        shrunk = False
        for change in changes(simulation, limits):
            if any(change[name] == limits[name] for name in change):
                continue
            narrower = {**limits, **change}
            found = apart(first_salt, simulation, seed, narrower, rule(violation), length)
            if found is not None:
                limits, length = {**narrower, "salt": found[0]}, found[1]
                shrunk = True
    return limits


def spell(simulation, limits):
    """The limits, as the command line takes them."""
    return ",".join(f"{name}={limits[name]}" for name in limits if limits[name] != simulation.NO_LIMITS[name])


def read(simulation, spelled):
    changed = dict(word.split("=") for word in spelled.split(",") if word)
    if not changed.keys() <= simulation.NO_LIMITS.keys():
        raise ValueError(f"limits are {', '.join(simulation.NO_LIMITS)}")
    return {**simulation.NO_LIMITS, **{name: int(value) for name, value in changed.items()}}
