"""The contract of iocp.h: each case of tests/contract on each backend, with and without packets for inline successes.

The cases are C, without Python: on Linux this file builds their program, on Windows it runs one built before.
"""

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support import spawn

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SECONDS = 60  # after which a case ends itself
SKIPPED = 77
RUNNER = shlex.split(os.environ.get("IOCPCORE_CONTRACT_RUNNER", ""))  # what runs the program: valgrind, say


def case_names():
    """Read from the tables in the sources: collecting tests needs no compiler."""
    other = "linux.c" if sys.platform == "win32" else "windows.c"
    for source in sorted((HERE / "contract").glob("*.c")):
        if source.name == other:
            continue
        for line in source.read_text(encoding="utf-8").splitlines():
            if line.startswith("    CASE("):
                yield line.removeprefix("    CASE(").removesuffix("),")


def without_preload():
    """Our environment without a sanitizer's library, which is meant for Python alone."""
    return {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}


def build():
    if not shutil.which(os.environ.get("CC", "cc").split()[0]):
        pytest.skip("no C compiler")
    if not (ROOT / "iocpcore" / "calls" / "iocp.h").exists():
        pytest.skip("the sources of iocpcore are not here")
    flags = os.environ.get("IOCPCORE_CONTRACT_CFLAGS", "")
    # Each way to run it has a directory of its own: the suite may run with a sanitizer and under valgrind at once.
    variant = hashlib.sha256(repr((flags, RUNNER)).encode()).hexdigest()[:8] if flags or RUNNER else "plain"
    directory = ROOT / "build" / f"contract-{variant}"
    subprocess.run(
        ["sh", HERE / "contract" / "build.sh", "native", directory],
        env={**without_preload(), "CFLAGS": flags},
        check=True,
        timeout=300,
    )
    return directory / "contract"


@pytest.fixture(scope="session")
def contract():
    """The program: IOCPCORE_CONTRACT_EXE names one that exists."""
    if named := os.environ.get("IOCPCORE_CONTRACT_EXE"):
        return Path(named)
    if sys.platform != "win32":
        return build()
    for directory in (ROOT / "build" / "windows", HERE / "contract"):
        if (directory / "contract.exe").exists():
            return directory / "contract.exe"
    pytest.skip("no contract.exe: tests/contract/build.sh makes it, IOCPCORE_CONTRACT_EXE says where it is")


@pytest.mark.parametrize("packets", [False, True], ids=["skipping", "packets"])
@pytest.mark.parametrize("case", list(case_names()))
def test_iocp(contract, backend, packets, case):
    done = spawn(
        subprocess.run,
        [*RUNNER, contract, "--backend", backend, "--seconds", str(SECONDS), *["--packets"] * packets, case],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=without_preload(),
        timeout=SECONDS + 30,
    )
    output = done.stdout.decode(errors="replace")
    if done.returncode == SKIPPED:
        pytest.skip(output.strip())
    assert done.returncode == 0, f"exit status {done.returncode}: {output}"


def test_every_case_of_the_program_is_known_here(contract):
    done = subprocess.run([contract, "--list"], stdout=subprocess.PIPE, env=without_preload(), check=True, timeout=60)
    assert sorted(done.stdout.decode().split()) == sorted(case_names())
