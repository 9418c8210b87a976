"""The load generator, as the suite drives it: gated, so that the server is at rest before and after the timed part."""
import json

from process import ENDS_WITHIN, Failed, Process, load_cpus, status_within
from programs import program
from servers import script


class Load(Process):
    """Connects; every connection has had one checked message when it says `ready`.

    arguments: those of the program, by name.
    """

    def __init__(self, running, placement, timeout, **arguments):
        self.running = running
        self.patience = 2 * timeout + 5  # at most two of the load's steps lie between two of its lines
        arguments |= {"port": running.port, "timeout": timeout}
        options = [part for name, value in arguments.items() for part in (f"--{name}", value)]
        super().__init__([*self.program(), *options], load_cpus(placement))

    def program(self):
        return [program("load"), "--gated"]

    def __enter__(self):
        self.wait_for("ready")
        return self

    def __exit__(self, *_):
        self.discard()

    def fail(self, problem):
        self.running.check_alive()
        raise Failed(f"{self.running.server.name}: {problem}: {self.last_words()}")

    def wait_for(self, state):
        line = self.read_line(self.patience)
        if line != state:
            self.fail(f"the load was not {state}, but said {line!r}")

    def run(self):
        """The timed part; the connections stay open."""
        self.write_line()
        self.wait_for("done")
        self.running.check_alive()

    def end(self):
        """End all streams; how many requests were answered, and {figure: value}. Raises Failed unless every byte came
        back."""
        self.write_line()
        line = self.read_line(self.patience)
        status = status_within(self.child, ENDS_WITHIN)
        if status != 0:
            self.fail(f"the load failed with status {status}, {line}")
        self.running.check_alive()
        result = json.loads(line)
        return result.pop("requests"), result


class Flood(Load):
    """The same of a polite client, beside connections that flood."""

    def program(self):
        return script("flood.py")
