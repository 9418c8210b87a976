"""The extension modules, with the sources of the platform that they are built for. The metadata is in pyproject.toml.

IOCPCORE_WERROR=1 in the environment makes warnings errors.
"""
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CCompilerError


def liburing():
    """Compiler and linker arguments of liburing, or None: without it the module has the epoll backend only."""
    def ask(what):
        command = ["pkg-config", what, "liburing >= 2.3"]
        return subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL).split()

    try:
        compiling, linking, directory = ask("--cflags"), ask("--libs"), ask("--variable=libdir")[0]
    except (OSError, subprocess.CalledProcessError):
        return None
    # Prefer the static archive: the module then runs on machines without liburing too.
    archive = os.path.join(directory, "liburing.a")
    return compiling, [archive] if os.path.exists(archive) else linking


def windows(module):
    module.libraries += ["ws2_32", "mswsock"]


def linux(module):
    module.sources += [f"iocpcore/calls/linux/{name}.c" for name in ("port", "socket", "epoll")]
    module.extra_compile_args += ["-std=gnu11", "-fvisibility=hidden"]
    if "gcc" in (os.environ.get("CC") or sysconfig.get_config_var("CC")):
        # The core and the calls are compiled as separate files. Inlining across them makes an echo 4 % cheaper.
        module.extra_compile_args += ["-flto=auto"]
        module.extra_link_args += ["-flto=auto"]
    uring = liburing()
    if uring:
        module.sources += ["iocpcore/calls/linux/uring.c"]
        module.define_macros += [("IOCPCORE_URING", "1")]
        module.extra_compile_args += uring[0]
        module.extra_link_args += uring[1]


def what_is_missing():
    """After a failed build: the sentence that says what to install, or None if nothing is missing."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC"))
    version = "{}.{}".format(*sys.version_info)
    includes = [f"-I{sysconfig.get_path(name)}" for name in ("include", "platinclude")]

    def finds(header):
        command = [*compiler, *shlex.split(os.environ.get("CFLAGS", "")), *includes, "-E", "-"]
        return subprocess.run(command, input=f"#include <{header}>", text=True, capture_output=True).returncode == 0

    if not shutil.which(compiler[0]):
        return (f"iocpcore cannot be built without a C compiler, and {compiler[0]} was not found: "
                "install gcc and libc6-dev (Debian, Ubuntu) or gcc (Fedora)")
    if not finds("stdlib.h"):
        return ("iocpcore cannot be built without the C library's headers: "
                "install libc6-dev (Debian, Ubuntu) or glibc-devel (Fedora)")
    if not finds("Python.h"):
        return (f"iocpcore cannot be built without Python.h, the headers of this Python {version}: "
                f"install python{version}-dev (Debian, Ubuntu) or python3-devel (Fedora)")
    return None


class BuildOnLinux(build_ext):
    """Prints last, after the compiler's own output, what a failed build needs, or that liburing was missing."""

    def run(self):
        try:
            super().run()
        except CCompilerError:
            sentence = what_is_missing()
            if sentence is None:
                raise
            raise SystemExit(sentence) from None
        if ("IOCPCORE_URING", "1") not in self.extensions[0].define_macros:
            print("iocpcore was built without liburing, with the epoll backend alone. For io_uring: install "
                  "liburing-dev and pkg-config (Fedora: liburing-devel), version 2.3 or newer, and build again",
                  file=sys.stderr)


FOLDERS = sorted({os.path.dirname(file) for file in glob("iocpcore/**/*.pxd", recursive=True)})
SOURCES = sorted(file for kind in ("[hc]", "px[di]") for file in glob(f"iocpcore/**/*.{kind}", recursive=True))
modules = [Extension(f"iocpcore.{name}", [f"iocpcore/{name}.pyx"], include_dirs=FOLDERS, depends=["setup.py", *SOURCES])
           for name in ("_core", "_pitfalls")]
# Builds for Windows also run on Linux: the module's suffix says where it will run, sys.platform does not.
suffix = os.environ.get("SETUPTOOLS_EXT_SUFFIX") or sysconfig.get_config_var("EXT_SUFFIX")
if suffix.endswith(".pyd"):
    prepare, commands = windows, {}
elif "linux" in suffix:
    prepare, commands = linux, {"build_ext": BuildOnLinux}
else:
    raise SystemExit(f"iocpcore runs on Windows and Linux only, not where modules end in {suffix}")
for module in modules:
    prepare(module)
    if "linux" in suffix or "gcc" in os.environ.get("CC", ""):
        module.extra_compile_args += ["-Wall", "-Wextra"]
        if os.environ.get("IOCPCORE_WERROR"):
            module.extra_compile_args += ["-Werror"]

setup(ext_modules=cythonize(modules, include_path=FOLDERS, build_dir="build/cython"), cmdclass=commands)
