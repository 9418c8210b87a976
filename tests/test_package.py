"""What the source distribution and the wheels hold: all that is needed, and nothing that was left over from a build.

The make targets build them: `make packages` the source distribution and the Linux wheel, `make test-windows` the other.
"""
import re
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import iocpcore

pytestmark = [
    pytest.mark.uninstrumented,
    pytest.mark.skipif(sys.platform == "win32", reason="the packages are looked at where they are built"),
]
ROOT = Path(__file__).parent.parent
WHEELS = {
    # kind: (where it was built, what the module's name ends with, how such a file begins)
    "linux": (("native", "strict"), "-linux-gnu.so", b"\x7fELF"),
    "windows": (("windows",), "-win_amd64.pyd", b"MZ"),
}


def files_below(folder):
    files = (file for file in (ROOT / folder).rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return {file.relative_to(ROOT).as_posix() for file in files}


def changed(file):
    return file.stat().st_mtime


def newest(what, *places):
    found = [file for place in places for file in (ROOT / "build" / place).glob(what)]
    where = f"{what} in build/{' or build/'.join(places)}"
    if not found:
        pytest.skip(f"no {where}: it was not built here")
    sources = files_below("iocpcore") | files_below("python/iocpcore")
    if changed(max(found, key=changed)) < max(changed(ROOT / source) for source in sources):
        pytest.skip(f"{where} is older than the sources")
    return max(found, key=changed)


@pytest.fixture(scope="module")
def sdist():
    with tarfile.open(newest("iocpcore-*.tar.gz", "sdist")) as archive:
        names = [member.name for member in archive.getmembers() if member.isfile()]
    return {name.partition("/")[2] for name in names}


@pytest.fixture(scope="module", params=WHEELS)
def wheel(request):
    places, suffix, magic = WHEELS[request.param]
    with zipfile.ZipFile(newest("iocpcore-*.whl", *places)) as archive:
        yield archive, suffix, magic


def metadata(archive, file):
    (name,) = (name for name in archive.namelist() if name.endswith(f".dist-info/{file}"))
    return Parser().parsestr(archive.read(name).decode())


def test_the_sdist_holds_every_source_and_the_licence(sdist):
    wanted = files_below("iocpcore") | files_below("python/iocpcore")
    calls = {f"iocpcore/calls/{name}" for name in ("iocp.pxd", "iocp.h", "linux/epoll.c")}
    assert {"iocpcore/_core.pyx", *calls} <= wanted
    assert wanted | {"LICENSE", "README.md", "pyproject.toml", "setup.py"} <= sdist


def test_the_sdist_holds_nothing_that_was_built(sdist):
    endings = (".so", ".pyd", ".o", ".pyc", ".whl", "/_core.c")
    assert not [name for name in sdist if name.endswith(endings) or name.startswith(("build/", ".venv/"))]


def test_a_wheel_holds_the_python_files_two_modules_and_nothing_else(wheel):
    archive, suffix, _ = wheel
    content = {name for name in archive.namelist() if ".dist-info/" not in name}
    modules = {name for name in content if name.endswith((".so", ".pyd"))}
    assert {name.split(".")[0] for name in modules} == {"iocpcore/_core", "iocpcore/_pitfalls"}
    assert all(name.endswith(suffix) for name in modules)
    expected = {name.removeprefix("python/") for name in files_below("python/iocpcore")}
    assert "iocpcore/py.typed" in expected
    assert {name for name in content if not name.endswith(suffix)} == expected


def test_the_modules_of_a_wheel_are_of_its_platform(wheel):
    archive, suffix, magic = wheel
    for module in (name for name in archive.namelist() if name.endswith(suffix)):
        assert archive.read(module).startswith(magic)


def test_a_wheel_is_tagged_for_one_python_and_one_platform(wheel):
    archive, suffix, _ = wheel
    tag = metadata(archive, "WHEEL")["Tag"]
    interpreter, abi, platform = tag.split("-")
    assert interpreter == abi
    assert interpreter.startswith("cp3")
    assert platform in ("linux_x86_64", "linux_aarch64", "win_amd64")
    assert platform.startswith("win") == suffix.endswith(".pyd")


def test_a_wheel_needs_nothing_at_run_time(wheel):
    told = metadata(wheel[0], "METADATA")
    assert not [need for need in told.get_all("Requires-Dist", []) if "extra ==" not in need]
    assert told["Requires-Python"] == ">=3.11"


def test_a_wheel_has_the_licence_and_the_command(wheel):
    archive = wheel[0]
    names = archive.namelist()
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    (commands,) = (name for name in names if name.endswith(".dist-info/entry_points.txt"))
    assert b"iocpcore = iocpcore.__main__:main" in archive.read(commands)


def test_the_version_is_the_same_everywhere(wheel):
    assert metadata(wheel[0], "METADATA")["Version"] == iocpcore.__version__


def test_the_liburing_of_the_wheels_is_that_of_debian_13():
    """It is linked into them. There this suite runs on the same version: tools/fresh trixie, before a release."""
    system = Path("/etc/os-release")
    if not system.exists() or "VERSION_CODENAME=trixie" not in system.read_text():
        pytest.skip("only Debian 13 has the liburing that is tested there: tools/fresh trixie")
    (release,) = re.findall(r"^release=liburing-(\S+)$", (ROOT / "tools" / "build-liburing").read_text(), re.MULTILINE)
    asked = subprocess.run(["pkg-config", "--modversion", "liburing"], capture_output=True, text=True, timeout=60)
    assert asked.stdout.strip() == release
