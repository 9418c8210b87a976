"""Builds the simulation: the core, the simulated kernel and its people, as an extension module that is in no package.

Environment: CC names the compiler. IOCPCORE_SIMULATION_CFLAGS adds to its flags, for a sanitizer for example; each
value has a build directory of its own.
"""

import hashlib
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import threading
from pathlib import Path

import patches

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CORE = ROOT / "iocpcore"
STATISTICS = ROOT / "python" / "iocpcore" / "_stats.py"
FLAGS = shlex.split(os.environ.get("IOCPCORE_SIMULATION_CFLAGS", ""))
WARNINGS = ["-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-missing-field-initializers", "-Werror"]
LINUX = CORE / "calls" / "linux"
CALLS = [LINUX / "port.c", LINUX / "socket.c"]  # allocations in these may fail
KERNEL = [LINUX / "epoll.c", HERE / "simulated.c", HERE / "peers.c", HERE / "blocks.c"]
SIMULATED = ["-include", HERE / "simulated.h"]
SCARCE = ["-include", HERE / "scarce.h"]
FICKLE = ["-include", HERE / "fickle.h"]


def mutants():
    """{name: number}, in the order of mutants.diff."""
    return {name: number for number, name in enumerate(patches.faults(), 1)}


def compiler():
    for command in (os.environ.get("CC"), sysconfig.get_config_var("CC"), "cc"):
        if command and shutil.which(shlex.split(command)[0]):
            return shlex.split(command)
    return None


def missing():
    """Why it cannot be built here, or None."""
    if not sys.platform.startswith("linux"):
        return "the simulation is a Linux build"
    if not CORE.joinpath("_core.pyx").exists():
        return "the sources of iocpcore are not here"
    if importlib.util.find_spec("Cython") is None:
        return "the simulation needs Cython"
    if compiler() is None:
        return "the simulation needs a C compiler"
    if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        return "the simulation needs Python's headers"
    return None


def directory():
    variant = hashlib.sha256(shlex.join(FLAGS).encode()).hexdigest()[:8] if FLAGS else "plain"
    return ROOT / "build" / "simulation" / f"{sysconfig.get_config_var('SOABI')}-{variant}"


def is_newer(target, sources):
    return target.exists() and all(target.stat().st_mtime > source.stat().st_mtime for source in sources)


def run(*command):
    # A sanitizer's library may be preloaded for Python; the compilers must run without it.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    subprocess.run([str(word) for word in command], cwd=ROOT, env=environment, check=True)


def make(target, sources, *command):
    """Run the command, with the name of its output appended, unless the target is newer than all sources."""
    if is_newer(target, sources):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f"{os.getpid()}-{threading.get_native_id()}-{target.name}")
    run(*command, fresh)
    fresh.replace(target)


def compile_c(target, sources, code, *flags):
    include = [f"-I{path}" for path in (*folders(CORE), LINUX, HERE, sysconfig.get_paths()["include"])]
    options = ["-std=gnu11", "-O1", "-g", "-fPIC", *WARNINGS, *FLAGS, "-DIOCPCORE_SIMULATED=1", *include, *flags]
    make(target, sources, *compiler(), *options, "-c", code, "-o")


def folders(core):
    """The folders whose files include each other by their bare names."""
    return sorted({file.parent for file in core.rglob("*.p*")})


def patch(place):
    """Write the core's patched Cython sources below `place`. Files that do not change are not written."""
    files = []
    sources = patches.patched(CORE)
    for old in place.rglob("*.p*"):
        if old.relative_to(place).as_posix() not in sources:
            old.unlink()
    for name, code in sources.items():
        files.append(place / name)
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        if not files[-1].exists() or files[-1].read_text(encoding="utf-8") != code:
            files[-1].write_text(code, encoding="utf-8")
    return files


def build():
    """Build the module; returns its path."""
    place = directory()
    core = patch(place / "core")
    headers = sorted(CORE.glob("**/*.h")) + sorted(HERE.glob("*.h")) + [HERE / "build.py"]
    code = place / "_simulation.c"
    pyx = HERE / "_simulation.pyx"
    cython = [sys.executable, "-m", "cython", "-3", "-Werror", *(f"-I{folder}" for folder in folders(place / "core"))]
    make(code, [*core, *headers, pyx, *HERE.glob("*.pxi")], *cython, pyx, "-o")
    objects = []
    for source in CALLS + KERNEL:
        objects.append(place / f"{source.stem}.o")
        scarce = SCARCE if source in CALLS else []
        simulated = SIMULATED if source.parent == LINUX else []
        compile_c(objects[-1], [*headers, source], source, *scarce, *simulated)
    objects.append(place / "simulation.o")
    compile_c(objects[-1], [code], code, *SCARCE, *FICKLE)
    module = place / f"_simulation{sysconfig.get_config_var('EXT_SUFFIX')}"
    make(module, objects, *compiler(), "-shared", *FLAGS, *objects, "-o")
    return module
