"""Calls of the system per echo on Windows' path, under wine: one connection, one message at a time."""
import os
from pathlib import Path

import pytest

import calls
from servers import Unavailable

ECHOES = 200  # the difference between two runs


def is_set_up():
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "iocpcore" / "windows"
    return Path(os.environ.get("IOCPCORE_WINDOWS_CACHE", cache)).exists()


@pytest.fixture(scope="module")
def wine(pytestconfig):
    """Ready to run; else an error that names the reason. Setting it up for the first time takes minutes."""
    if not pytestconfig.getoption("full") and not is_set_up():
        return Unavailable("wine is not set up: tests/windows/run does that, and so does --full")
    try:
        calls.set_up()
    except Unavailable as reason:
        return reason
    return None


@pytest.fixture(scope="module")
def counted(pytestconfig):
    """{name: rounds}; they become a case in the end."""
    rounds = {}
    yield rounds
    if rounds:
        pytestconfig.bench.add("wine", "calls per echo", {"calls_per_echo": "calls of the system"}, rounds, "c-iocp")


@pytest.mark.parametrize("name", calls.SERVERS)
def test_calls(request, wine, counted, name):
    try:
        if wine:
            raise wine
        if name == "c-iocp":
            calls.compile_floor()
        if calls.SERVERS[name]:
            calls.install(calls.SERVERS[name])
    except Unavailable as reason:
        request.config.bench.lacks(name, str(reason), "wine")
        pytest.skip(f"{name} is missing: {reason}")
    counted[name] = [{"calls_per_echo": calls.calls_per_echo(name, ECHOES)}]
