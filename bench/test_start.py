"""Start-up: until the server says that it listens; the CPU time of it; and the import of what it is made with."""
import dataclasses
import sys

from process import STARTS_WITHIN, Failed, Process, Running, server_cpus, settled_cpu_by_thread
from rounds import Measure

IMPORT = "import time; began = time.perf_counter(); import {}; print((time.perf_counter() - began) * 1000)"


@dataclasses.dataclass(frozen=True)
class Start(Measure):
    figure = "start_ms"

    def units(self):
        return {"start_ms": "ms until it listens", "cpu_ms": "ms of CPU until then", "import_ms": "ms, the import"}

    def warm_up(self, server, options):
        """Its files are read, and are in memory from now on."""
        list(self.round(server, options))

    def round(self, server, options):
        yield 0  # not while others start
        running = Running(server, self.service, options.cpus)
        try:
            cpu = sum(settled_cpu_by_thread(running.pid).values())
            running.end()
        finally:
            running.discard()
        figures = {"start_ms": running.seconds_to_start * 1000, "cpu_ms": cpu / 1e6}
        return figures | ({"import_ms": time_to_import(server, options)} if server.module else {})


def time_to_import(server, options):
    process = Process([sys.executable, "-c", IMPORT.format(server.module)], server_cpus(options.cpus))
    try:
        return float(process.read_line(STARTS_WITHIN))
    except ValueError:
        raise Failed(f"{server.module} was not imported: {process.last_words()}") from None
    finally:
        process.discard()


def test_start(compare):
    compare(Start("start", "start and import"))
