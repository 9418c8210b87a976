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
from report import results
from rounds import Comparison
from servers import NotThis


class Suite:
    """The cases that have been measured, and who was missing in them."""

    def __init__(self, options, servers, tell):
        self.options = options
        self.servers = servers  # those that the command line has chosen
        self.tell = tell
        self.began = time.monotonic()
        self.machine = machine.machine(options.cpus)  # at once: later the load is ours
        self.comparisons = []
        self.other_cases = []
        self.missing = []

    def compare(self, measure, servers):
        comparison = Comparison(measure, self.options, self.tell)
        comparison.run(servers)
        self.comparisons.append(comparison)
        for server in servers:
            if reason := comparison.missing.get(server.name):
                self.lacks(server.peer, str(reason), measure.group if isinstance(reason, NotThis) else None)
        return comparison

    def lacks(self, server, reason, group=None):
        """It is not measured, in that group or in all; which is said once."""
        missing = {"server": server, "reason": reason} | ({"group": group} if group else {})
        if missing not in self.missing:
            self.missing.append(missing)

    def add(self, group, name, units, rounds, base=None):
        """A case that somebody else has measured. units: {figure: its unit}, the main one first. rounds: by server."""
        servers = {server: {"rounds": its, "base": base} for server, its in rounds.items()}
        head = {"group": group, "name": name, "figure": next(iter(units)), "units": units}
        self.other_cases.append({**head, "servers": servers})

    def has_measured(self):
        return bool(self.comparisons or self.other_cases)

    def cases(self):
        measured = [as_case(comparison) for comparison in self.comparisons if comparison.rounds]
        return [*measured, *self.other_cases]

    def failures(self):
        return [
            {"server": name, "reason": f"FAILED in {each.measure.name}: {failure}", "group": each.measure.group}
            for each in self.comparisons
            for name, failure in each.failures.items()
        ]

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
            "missing": [*self.missing, *self.failures()],
            "cases": self.cases(),
        }


def as_case(comparison):
    measure, bases = comparison.measure, comparison.bases()
    return {
        "group": measure.group,
        "name": measure.name,
        "figure": measure.figure,
        "units": measure.units(),
        "better": measure.better,
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
