"""A short run of the fuzzer (fuzz.py runs longer), and that it sees what it is there for."""

import sys

import fuzz
import pytest

from support import SCALE

CALLS = max(300, int(2000 * SCALE))


def failing(monkeypatch, act, tmp_path):
    """What one small seed says in which every call is that."""
    script = tmp_path / "fuzz_broken.py"
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(fuzz.Path(fuzz.__file__).parent)!r})\nimport fuzz\n"
        f"def act(caller):\n{act}\nfuzz.ACTIONS[:] = [act]\nfuzz.WEIGHTS[:] = [1]\nsys.exit(fuzz.main())\n"
    )
    monkeypatch.setattr(fuzz, "__file__", str(script))
    return fuzz.run_child(1, fuzz.usable()[0], 10)["broken"]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and sockets are half of it")
def test_random_calls_break_no_rule(backend):
    told = []
    total = fuzz.run_many(first=1, seeds=2, backend=backend, calls=CALLS, jobs=2, tell=told.append)
    assert total["failures"] == [], "\n".join(told)
    assert total["calls"] >= 2 * CALLS
    assert total["sessions"] > 0 and total["callbacks"] > 0


def test_a_crash_is_its_seeds(monkeypatch, tmp_path):
    (broken,) = failing(monkeypatch, "    import os\n    os.abort()", tmp_path)
    assert broken.startswith("ended with ")


def test_an_exception_that_nobody_documents_is_seen(monkeypatch, tmp_path):
    broken = failing(monkeypatch, "    caller.call('it', lambda: 1 / 0)", tmp_path)
    assert broken[0] == "it((), {}): ZeroDivisionError: division by zero"


def test_a_hang_is_seen(monkeypatch, tmp_path):
    monkeypatch.setattr(fuzz, "PATIENCE", 3.0)
    (broken,) = failing(monkeypatch, "    import time\n    time.sleep(600)", tmp_path)
    assert broken.startswith("ended with a hang")


def test_what_is_left_is_seen():
    class Leaky:
        workers = 1

        def close(self, drain):
            pass

        def stats(self):
            row = {"active": 1, "in_flight": 0, "bytes_queued": 0, "buffers_used": 0, "undrained": 0}
            row |= {"submitted": 0, "packets": 0, "inline_successes": 0, "failed_starts": 0}
            return fuzz.argparse.Namespace(**row, workers=[])

    world = fuzz.World(1, None, 10)
    fuzz.check_end(world, Leaky())
    assert world.broken[0].startswith("after close(): ")
