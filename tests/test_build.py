"""What a build says that cannot be made, or that lacks something. Three builds: two end at their first file."""
import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.uninstrumented,
    pytest.mark.skipif(sys.platform == "win32", reason="it is about gcc and Debian's packages"),
]
ROOT = Path(__file__).parent.parent
VERSION = "{}.{}".format(*sys.version_info)


@pytest.fixture
def build(tmp_path):
    """Build in the checkout, where Cython has done its part, with the module and the object files elsewhere."""
    pytest.importorskip("Cython")
    pytest.importorskip("setuptools")
    if not (ROOT / "setup.py").exists():
        pytest.skip("the sources of iocpcore are not here")

    def build(**environment):
        return subprocess.run(
            [sys.executable, "setup.py", "-q", "build_ext", "--build-temp", tmp_path, "--build-lib", tmp_path / "lib"],
            cwd=ROOT,
            env={**os.environ, "CFLAGS": "-O0", **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return build


def gcc():
    found = shutil.which(shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC"))[0])
    if not found:
        pytest.skip("no C compiler")
    return found


def last_line(done):
    return done.stderr.strip().splitlines()[-1]


def test_a_build_without_a_compiler_ends_with_the_packages_to_install(build):
    done = build(PATH="/nonexistent", CC="gcc")
    assert done.returncode != 0
    assert last_line(done) == (
        "iocpcore cannot be built without a C compiler, and gcc was not found: "
        "install gcc and libc6-dev (Debian, Ubuntu) or gcc (Fedora)"
    )
    assert "Traceback" not in done.stderr


def test_a_build_without_the_headers_of_python_ends_with_the_package_to_install(build, tmp_path):
    compiler = tmp_path / "gcc that is not told where they are"
    compiler.write_text(f"""#!/bin/sh
for word do
    shift
    case $word in -I*python3*) ;; *) set -- "$@" "$word" ;; esac
done
exec {shlex.quote(gcc())} "$@"
""")
    compiler.chmod(0o755)
    done = build(CC=shlex.quote(str(compiler)))
    assert done.returncode != 0
    assert last_line(done) == (
        f"iocpcore cannot be built without Python.h, the headers of this Python {VERSION}: "
        f"install python{VERSION}-dev (Debian, Ubuntu) or python3-devel (Fedora)"
    )
    assert "Traceback" not in done.stderr


def test_a_build_without_liburing_says_so_at_its_end_and_when_asked_for_it(build, tmp_path):
    gcc()
    done = build(PKG_CONFIG_LIBDIR="/nonexistent", PKG_CONFIG_PATH="")
    assert done.returncode == 0, done.stderr
    assert last_line(done).startswith("iocpcore was built without liburing")
    shutil.copytree(ROOT / "python" / "iocpcore", tmp_path / "lib" / "iocpcore", dirs_exist_ok=True)

    def run(*arguments):
        path = {"PYTHONPATH": str(tmp_path / "lib"), "PYTHONSAFEPATH": "1"}
        environment = {name: value for name, value in os.environ.items() if name != "IOCPCORE_BACKEND"}
        return subprocess.run(
            [sys.executable, *arguments], env=environment | path, capture_output=True, text=True, timeout=60
        )

    facts = json.loads(run("-m", "iocpcore", "info", "--json").stdout)
    assert facts["backends"]["epoll"]["built"]
    assert not facts["backends"]["uring"]["built"]
    assert facts["backends"]["uring"]["reason"].startswith("this build was made without liburing: install liburing-dev")
    asked = run("-c", "import iocpcore; iocpcore.Proactor(backend='uring')")
    assert "RuntimeError: backend 'uring' cannot run here: this build was made without liburing:" in asked.stderr
    command = run("-m", "iocpcore", "demo", "--backend", "uring")
    assert (command.returncode, command.stdout, command.stderr.count("\n")) == (2, "", 1)
