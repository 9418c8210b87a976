"""What a result must say of the machine, the kernel and the versions, to be compared with another."""
import contextlib
import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path

import iocpcore
import programs
from iocpcore import _core


def read(path):
    with contextlib.suppress(OSError):
        return Path(path).read_text().strip()
    return None


def said_by(*command):
    """The first line that a program prints, or None."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=programs.ROOT)
    except (OSError, subprocess.CalledProcessError):
        return None
    return next(iter(done.stdout.splitlines()), None)


def package(name):
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(name)
    return None


def known(**values):
    return {key: value for key, value in values.items() if value is not None}


def machine(placement):
    cpu = dict(re.findall(r"^(flags|model name)\s*: (.*)$", read("/proc/cpuinfo") or "", re.M))
    return known(
        kernel=f"{platform.system()} {platform.release()}",
        cpu=cpu.get("model name", platform.machine()),
        cpus=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        governor=read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        virtual="hypervisor" in cpu.get("flags", "").split(),
        load_before=os.getloadavg()[0],
        cpus_used=placement,
    )


def versions():
    return known(
        iocpcore=iocpcore.__version__,
        python=f"{platform.python_implementation()} {platform.python_version()}",
        Cython=_core.cython_version,
        liburing=said_by("pkg-config", "--modversion", "liburing"),
        **{
            "compiler of iocpcore": _core.compiler,
            "compiler of the references": said_by(*programs.native_compiler(), "--version"),
            "redis-benchmark": said_by("redis-benchmark", "--version"),
        },
        **{name: package(name) for name in ("uvloop", "rsloop", "Twisted")},
    )


def commit():
    """Of the checkout, with a + if something in it is changed; None outside of one."""
    head = said_by("git", "rev-parse", "--short", "HEAD")
    return head and head + ("+" if said_by("git", "status", "--porcelain") else "")
