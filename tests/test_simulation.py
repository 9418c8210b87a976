"""The whole core on the simulated kernel: random schedules that replay, and deliberate faults that it catches."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="the simulation is a Linux build"),
    pytest.mark.timeout(420),  # the first builds it, which takes minutes where it is instrumented
    pytest.mark.usefixtures("built"),
]

HERE = Path(__file__).resolve().parent
SCRIPT = HERE / "simulation" / "simulate.py"
MUTANTS = HERE / "simulation" / "mutants.diff"
WHIMS = HERE / "simulation" / "simulated.h"
STORIES = 150
CANNOT = 77  # its exit status where it cannot be built


def simulate(*arguments, within=110):
    done = subprocess.run(
        [sys.executable, SCRIPT, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=within,
    )
    if done.returncode == CANNOT:
        pytest.skip(done.stderr.strip())
    return done


def tell(first, count):
    """The stories of so many seeds."""
    done = simulate("--first", first, "--seeds", count, "--story")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    return re.split(r"^---- seed \d+ ----\n", done.stdout, flags=re.MULTILINE)[1:]


def mutants():
    if not MUTANTS.exists():
        return []
    return re.findall(r"^== ([A-Z_]+): ", MUTANTS.read_text(encoding="utf-8"), re.MULTILINE)


def number_of(whim):
    """In the list of what a kernel may do, `calm`'s bits."""
    listed = re.search(r"^enum sim_whim {(.*?)^}", WHIMS.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL).group(1)
    return re.findall(r"^    (\w+),?", listed, re.MULTILINE).index(whim)


@pytest.fixture(scope="module")
def built():
    simulate("--seeds", 1, within=300)


@pytest.fixture(scope="module")
def stories():
    return tell(0, STORIES)


def batches(told):
    """What each dequeue returned: a list of (operation, connection)."""
    batch = []
    for line in told.splitlines():
        packet = re.search(r"port \d+: packet: (\w+)(?: of connection (\d+))?", line)
        if packet:
            batch.append(packet.groups())
        elif batch:
            yield batch
            batch = []


def test_ten_thousand_schedules_break_no_rule():
    done = simulate("--seeds", 10000)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("10000 seeds")


def test_a_seed_tells_the_same_story_twice(stories):
    assert tell(7, 1) == [stories[7]]


def test_seeds_tell_different_stories(stories):
    assert len(set(stories)) == len(stories)


@pytest.mark.parametrize(
    "event",
    [
        "pends",
        "ends at once",
        "fails to start",
        "is cancelled",
        "bytes in flight are sent",
        "packet: accept, 0 bytes, Software caused connection abort",
        "packet: send .* [1-9][0-9]* bytes, Operation canceled",
        "the core connects",
        "the peer closes",
        "the peer ends its side",
        "the peer resets",
        "the core ends its side",
        "the core closes with a reset",
        "which has gone",
        "port 1: packet: receive",
        "this kernel knows few descriptors",
        "accept, 0 bytes, Too many open files",
        "packet of the receive of connection .* that ended at once",
        "the dequeue fails",
        "there is no memory",
        "the workers cannot be made",
        "leaves memory to the kernel",
        "listener 1 is asked to close",
        "a peer is refused",
        "there are handlers in Python",
        "on_receive",
        "on_drain",
        "on_end",
        "on_close, with an error",
        r"pause\(\)",
        r"resume\(\)",
        r"abort\(\)",
        r"send\(\) from outside",
        r"connect\(\)",
        "a function that was posted is called",
        "a callback stops all",
    ],
)
def test_the_kernel_and_its_people_do_all_they_can(stories, event):
    assert any(re.search(event, told) for told in stories)


def test_a_receive_and_a_send_of_one_connection_end_in_one_batch(stories):
    pairs = sum(
        ("receive", number) in batch and ("send", number) in batch
        for told in stories
        for batch in batches(told)
        for number in {number for _, number in batch}
    )
    assert pairs > 100


def test_time_passes_without_waiting(stories):
    """Idle sessions give their buffers back after 5 seconds: the clock is the simulation's own."""
    assert any(float(told.splitlines()[-1].split()[0]) > 6 for told in stories)


def test_some_kernels_answer_as_windows_does_and_more_do_not(stories):
    told = sum("this kernel knows the ways of Windows" in story for story in stories)
    assert 0 < told < len(stories) / 2


@pytest.mark.parametrize("mutant", ["IDLE_RECEIVE_CANCELLED", "ACCEPT_CONTEXT_MISSING"])
def test_only_a_kernel_that_answers_as_windows_does_catches_it(mutant):
    """A seed that fails is run again without each whim of its kernel: this one is needed."""
    caught = simulate("--seeds", 2000, "--mutant", mutant)
    calm = int(re.search(r"calm=(\d+)", caught.stdout).group(1))
    assert not calm >> number_of("SIM_AS_WINDOWS") & 1


def test_a_seed_that_fails_is_made_small_and_replays():
    mutant = ("--mutant", "COUNT_IGNORED")
    found = simulate(*mutant)
    seed, violation = re.match(r"seed (\d+): (.*)", found.stdout).groups()
    limits = re.search(r"--limits (\S+)$", found.stdout).group(1)
    whole = simulate(*mutant, "--first", seed, "--story")
    small = simulate(*mutant, "--first", seed, "--story", "--limits", limits)
    assert found.returncode == whole.returncode == small.returncode == 1
    assert whole.stdout.splitlines()[-1].endswith(f"VIOLATION: {violation}")
    assert small.stdout.splitlines()[-1] in found.stdout
    assert len(small.stdout) < len(whole.stdout) / 2


@pytest.mark.parametrize("mutant", mutants())
def test_a_mutant_is_caught_within_two_thousand_seeds(mutant):
    caught = simulate("--seeds", 2000, "--mutant", mutant, "--no-shrink")
    named = caught.returncode == 1 and re.match(r"seed \d+: ", caught.stdout)
    assert named, caught.stdout + caught.stderr


@pytest.fixture
def patches(monkeypatch):
    monkeypatch.syspath_prepend(HERE / "simulation")
    return importlib.import_module("patches")


def test_a_patch_whose_lines_do_not_stand_in_the_core_exactly_once_is_refused(patches):
    assert patches.apply("a\nb\n", "b\n", "c\n") == "a\nc\n"
    for code in ("a\n", "a\nb\nb\n"):
        with pytest.raises(patches.PatchError, match="not once"):
            patches.apply(code, "b\n", "c\n")


def test_a_patch_that_changes_nothing_is_refused(patches):
    with pytest.raises(patches.PatchError, match="changes nothing"):
        patches.apply("a\nb\n", "b\n", "b\n")


def test_a_mutant_that_no_patch_asks_for_is_refused(patches, monkeypatch, tmp_path):
    forgotten = tmp_path / "mutants.diff"
    forgotten.write_text("== FORGOTTEN: what nothing does\n", encoding="utf-8")
    monkeypatch.setattr(patches, "MUTANTS", forgotten)
    with pytest.raises(patches.PatchError, match="no hunk asks for FORGOTTEN"):
        patches.faults()
