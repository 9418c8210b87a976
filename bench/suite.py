"""One run of the suite: its cases as they are measured, and the document that is kept of them."""
import datetime
import json
import re
import shlex
import sys
import time
from pathlib import Path

import machine
import programs
from process import Failed
from report import results
from rounds import Comparison
from servers import NotThis


class Suite:
    """What the command line wants, and the cases that have been measured."""

    def __init__(self, options, servers, tell):
        self.options = options
        self.servers = servers
        self.tell = tell
        self.began = time.monotonic()
        self.machine = machine.machine(options.cpus)  # at once: later the load is ours
        self.comparisons = []

    def compare(self, measure, servers):
        comparison = Comparison(measure, self.options, servers, self.tell)
        comparison.run()
        self.comparisons.append(comparison)
        return comparison

    def missing(self):
        """Each once."""
        missing = []
        for comparison in self.comparisons:
            for server, reason in comparison.out.items():
                if (entry := as_missing(comparison.measure, server, reason)) not in missing:
                    missing.append(entry)
        return missing

    def document(self):
        """The full result, which results.parse() reads."""
        return {
            "format": results.FULL,
            "made": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "command": command(),
            "commit": machine.commit(),
            "seconds": round(time.monotonic() - self.began, 1),
            "machine": self.machine,
            "versions": machine.versions(),
            "missing": self.missing(),
            "cases": [as_case(comparison) for comparison in self.comparisons if comparison.rounds],
        }


def as_missing(measure, server, reason):
    """A server that the machine lacks is missing in all groups; the others in that of the measure."""
    if isinstance(reason, Failed):
        return {"server": server.name, "reason": f"FAILED in {measure.name}: {reason}", "group": measure.group}
    group = {"group": measure.group} if isinstance(reason, NotThis) else {}
    return {"server": server.peer, "reason": str(reason), **group}


def as_case(comparison):
    measure, bases = comparison.measure, comparison.bases()
    return {
        "group": measure.group,
        "name": measure.name,
        "figure": measure.figure,
        "units": measure.units(),
        "parameters": measure.parameters(),
        "servers": {name: {"rounds": rounds, "base": bases[name]} for name, rounds in comparison.rounds.items()},
    }


def command():
    program = Path(sys.argv[0]).name
    words = [re.sub(r"(^|=)/.*/", r"\1", word) for word in sys.argv[1:]]  # no machine's own paths
    return shlex.join(["python -m pytest" if program == "__main__.py" else program, *words]).replace(
        "'python -m pytest'", "python -m pytest"
    )


def save(document, path=None):
    """Where it was written; without a path a new file in build/bench/results."""
    path = path or programs.BUILD / "results" / f"{document['made'].replace(':', '')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return path
