"""Server processes: started, watched, and ended; the CPU time and the memory that they take.

The figures are read from outside, in /proc: a server does nothing for being measured.
"""
import contextlib
import os
import pathlib
import select
import signal
import subprocess
import tempfile
import time

from programs import BUILD, Unavailable

NOT_AVAILABLE = 3  # a C server's exit status where it cannot serve here
STARTS_WITHIN = 20.0  # seconds
ENDS_WITHIN = 10.0
RESTS_WITHIN = 10.0


class Failed(Exception):
    """The measurement is worth nothing: a server died, a byte was wrong, or a figure could not be read."""


# ---- where processes run ----


def server_cpus(placement):
    mine = os.sched_getaffinity(0)
    return mine if placement == "any" else {max(mine)}


def load_cpus(placement):
    mine = os.sched_getaffinity(0)
    if placement == "apart" and len(mine) == 1:
        raise Failed("there is one CPU only: use --cpus same")
    return {"any": mine, "same": {max(mine)}, "apart": {min(mine)}}[placement]


@contextlib.contextmanager
def placed(cpus):
    """Processes launched meanwhile inherit these CPUs, before they can start a thread."""
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)


# ---- a process that speaks in lines ----


def status_within(process, seconds):
    """The exit status, or None while the process goes on."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


class Process:
    """A child with pipes; what it says on standard error is kept for who asks why it failed."""

    def __init__(self, command, cpus):
        self.stderr = tempfile.TemporaryFile("w+")
        pipe = subprocess.PIPE
        # In the build directory, since the root of the checkout holds a folder named as the package.
        with placed(cpus):
            self.child = subprocess.Popen(
                [str(part) for part in command], bufsize=0, stdin=pipe, stdout=pipe, stderr=self.stderr, cwd=BUILD
            )

    def read_line(self, seconds):
        """One line without its end; shorter at the end of the output, or when the time is over."""
        line, deadline = b"", time.monotonic() + seconds
        while not line.endswith(b"\n"):
            if not select.select([self.child.stdout], [], [], max(0, deadline - time.monotonic()))[0]:
                break
            byte = self.child.stdout.read(1)
            if not byte:
                break
            line += byte
        return line.decode(errors="replace").rstrip("\n")

    def write_line(self):
        with contextlib.suppress(BrokenPipeError):  # it is gone: its next line will not come, and that is noticed
            self.child.stdin.write(b"\n")

    def last_words(self):
        self.stderr.seek(0)
        return " | ".join(self.stderr.read().strip().splitlines()[-5:])

    def discard(self):
        """Whatever has happened, the process is gone and its files are closed afterwards."""
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()
        for file in (self.child.stdin, self.child.stdout, self.stderr):
            file.close()


# ---- servers ----


class Running(Process):
    """A server that listens."""

    def __init__(self, server, service, placement):
        self.server = server
        self.began = time.perf_counter()
        super().__init__(server.started_with(service), server_cpus(placement))
        try:
            self.port = self.wait_for_port()
            self.seconds_to_start = time.perf_counter() - self.began
        except BaseException:
            self.discard()
            raise

    @property
    def pid(self):
        return self.child.pid

    def wait_for_port(self):
        line = self.read_line(STARTS_WITHIN)
        if line.startswith("listening on ") and line.rpartition(":")[2].isdigit():
            return int(line.rpartition(":")[2])
        if not line and status_within(self.child, ENDS_WITHIN) == NOT_AVAILABLE:
            raise Unavailable(self.last_words())
        raise Failed(f"{self.server.name} did not start, its first line was {line!r}: {self.last_words()}")

    def counted(self):
        """(attaches, packets) until now, or None where nobody counts them."""
        if not self.server.counts:
            return None
        self.write_line()
        line = self.read_line(ENDS_WITHIN)
        try:
            attaches, packets = map(int, line.split())
        except ValueError:
            raise Failed(f"{self.server.name} said {line!r} when it was asked for its counters") from None
        return attaches, packets

    def check_alive(self):
        if self.child.poll() is not None:
            raise Failed(f"{self.server.name} died with status {self.child.returncode}: {self.last_words()}")

    def end(self):
        """As its user would end it; one that has to be killed, or ends with an error, is a failure."""
        self.check_alive()
        self.child.terminate()
        status = status_within(self.child, ENDS_WITHIN)
        if status is None:
            raise Failed(f"{self.server.name} did not end at SIGTERM")
        if status not in (0, -signal.SIGTERM):
            raise Failed(f"{self.server.name} ended with status {status}: {self.last_words()}")


# ---- CPU time ----


def cpu_by_thread(pid):
    """ns on a CPU of each thread, as the scheduler counts them."""
    tasks = pathlib.Path(f"/proc/{pid}/task")
    try:
        return {task.name: int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()}
    except (OSError, IndexError) as error:
        raise Failed(f"the server's CPU time cannot be read: {error}") from None


def settled_cpu_by_thread(pid):
    """The same once the server is idle: the figure of a thread that is running is up to a timer tick old."""
    deadline, before = time.monotonic() + RESTS_WITHIN, None
    while time.monotonic() < deadline:
        now = cpu_by_thread(pid)
        if now == before:
            return now
        before = now
        time.sleep(0.01)
    raise Failed("the server does not come to rest")


def user_ns(pid):
    """ns in user mode of all threads; see the README on how coarse it is."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def spent(before, after):
    if ended := before.keys() - after.keys():
        raise Failed(f"threads of the server ended while it was measured: {sorted(ended)}")
    return sum(ns - before.get(thread, 0) for thread, ns in after.items())


class CpuTime:
    """What the server's threads have spent between two moments of rest; both in ns."""

    def __init__(self, pid):
        self.pid = pid
        self.before, self.user_before = settled_cpu_by_thread(pid), user_ns(pid)

    def read(self):
        total = spent(self.before, settled_cpu_by_thread(self.pid))
        return total, min(total, user_ns(self.pid) - self.user_before)


# ---- memory ----


def private_bytes(pid):
    with open(f"/proc/{pid}/smaps_rollup") as lines:
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


def forget_peak(pid):
    pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_bytes(pid):
    """The most memory that was resident since forget_peak()."""
    with open(f"/proc/{pid}/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
