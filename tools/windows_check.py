"""Checks iocpcore on Windows, and writes what it found to one text file, to be sent back.

    python tools/windows_check.py                    # builds it first: needs a C compiler
    python tools/windows_check.py --wheel FILE.whl   # or installs this wheel first
    python tools/windows_check.py --installed        # or checks what is installed, which must include pytest

Each step has a time limit. If one fails, the report says so, and the next one runs. Exit status: 0 if no step has
failed, 1 if one has, 2 if it could not begin. It installs into a temporary folder only, and sends nothing anywhere.
"""

import argparse
import contextlib
import ctypes
import datetime
import hashlib
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OK = "ok"
CANNOT = "not possible here"
CANNOT_STATUS = 77  # the exit status of a command for "not possible here", as in tests/contract/main.c
CANNOT_START = 1359  # wine 8 fails with this error once in a few hundred starts; the process has not run then
MINUTE = 60
WAIT = 30  # seconds for an action that takes almost none, unless the machine is slow

SOURCES = {".pyx", ".pxd", ".pxi", ".h", ".c"}
QUICK_TESTS = ["tests/test_echo.py"]
# Left out: the contract, which has a step of its own with a line for each case, and the test of this script.
ALL_TESTS = ["--ignore=tests/test_iocp.py", "--ignore=tests/test_windows_check.py", "tests"]
# Much longer than anything here waits: only a second Ctrl+C ends such a drain.
PATIENT_ECHO = """
import sys
from iocpcore._cli import echo
from iocpcore.__main__ import main
echo.DRAIN = 3600.0
sys.exit(main(["echo", "--port", "0"]))
"""


# ---- the report ----


class Report:
    """Prints each line and writes it to the file at once, so that the file has the beginning even if the machine stops.
    """

    def __init__(self, path):
        self.file = open(path, "w", encoding="utf-8")
        self.results = []  # (step, outcome, seconds)

    def say(self, line=""):
        print(line, flush=True)
        self.file.write(f"{line}\n")
        self.file.flush()

    def step(self, name, action):
        """Run the action. It returns its outcome, or None for OK; an exception is a failure."""
        self.say(f"\n== {name} ==")
        started = time.monotonic()
        outcome = "failed: ended by hand"
        try:
            outcome = action() or OK
        except Exception as error:
            self.say(traceback.format_exc().rstrip())
            outcome = f"failed: {type(error).__name__}"
        finally:
            self.results.append((name, outcome, time.monotonic() - started))
            self.say(f"-> {outcome}")

    def close(self):
        self.file.close()

    def summary(self):
        self.say("\n== summary ==")
        width = max(len(name) for name, _, _ in self.results)
        for name, outcome, seconds in self.results:
            self.say(f"{name.ljust(width)}  {seconds:8.1f} s  {outcome}")

    def failed(self):
        return any(outcome.startswith("failed") for _, outcome, _ in self.results)


# ---- commands ----


def start(command, **options):
    for _ in range(3):
        try:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, **options)
        except OSError as error:
            if getattr(error, "winerror", None) != CANNOT_START:
                raise
            failure = error
    raise failure


def end(process):
    """Kill the process; on Windows also the processes that it has started."""
    if sys.platform == "win32":
        subprocess.run(["taskkill", "/T", "/F", "/PID", str(process.pid)], capture_output=True, timeout=WAIT)
    process.kill()
    process.wait(WAIT)


def pass_on(stream, report):
    with stream:
        for line in stream:
            report.say(line.rstrip("\r\n"))


def run_command(report, command, seconds, environment=None, **options):
    """Run a command, with its output in the report, line by line. Returns its outcome. A string is for the shell."""
    report.say(f"> {command if isinstance(command, str) else subprocess.list2cmdline(map(str, command))}")
    process = start(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="backslashreplace",
        env={**os.environ, "PYTHONIOENCODING": "utf-8:backslashreplace", **(environment or {})},
        **options,
    )
    # Processes that the command leaves behind may hold its output open: join() does not wait long for them.
    reader = threading.Thread(target=pass_on, args=(process.stdout, report), daemon=True)
    reader.start()
    try:
        status = process.wait(seconds)
    except subprocess.TimeoutExpired:
        end(process)
        return f"failed: it did not end in {seconds} seconds"
    finally:
        reader.join(WAIT)
    if status == CANNOT_STATUS:
        return CANNOT
    return OK if status == 0 else f"failed: exit status {status}"


# ---- the steps ----


class Check:
    def __init__(self, options, report, folder):
        self.options = options
        self.report = report
        self.folder = folder
        self.python = sys.executable
        self.has_package = True
        self.contract = options.contract

    def run(self):
        """Without a package the steps that need it are left out. The contract needs none: it is a program in C."""
        steps = {
            "versions": self.versions,
            "build": self.build,
            "info": lambda: self.run_python("-m", "iocpcore", "info", seconds=MINUTE),
            "contract: build": self.build_contract,
            "contract": self.run_contract,
            "suite": self.run_suite,
            "pitfalls": lambda: self.run_python("-m", "iocpcore", "pitfalls", seconds=10 * MINUTE),
            "soak": self.run_soak,
            "Ctrl+C": lambda: self.run_in_console("ctrl-c"),
            "Ctrl+Break": lambda: self.run_in_console("ctrl-break"),
            "a second Ctrl+C": lambda: self.run_in_console("second-ctrl-c"),
        }
        without_package = {"versions", "build", "contract: build", "contract"}
        for name, action in steps.items():
            possible = self.has_package or name in without_package
            self.report.step(name, action if possible else lambda: "left out: there is no package")

    def run_python(self, *arguments, seconds, **options):
        return run_command(self.report, [self.python, *arguments], seconds, cwd=ROOT, **options)

    def versions(self):
        files = filter(None, (self.options.wheel, self.options.contract))
        facts = {
            "asked for": " ".join(sys.argv[1:]) or "all",
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "system": platform.platform(),
            "Windows": ".".join(map(str, sys.getwindowsversion()[:3])),
            "wine": wine_version() or "no",
            "processors": os.cpu_count(),
            "Python": sys.version,
            "cl": compiler_setup() or shutil.which("cl") or "none",
            "commit": commit(),
            "sources": fingerprint(sorted(file for file in (ROOT / "iocpcore").rglob("*.*") if file.suffix in SOURCES)),
            **{file.name: fingerprint([file]) for file in files},
        }
        for name, value in facts.items():
            self.report.say(f"{name:12} {value}")

    def build(self):
        """Install the package into a virtual environment: pip builds it, or takes the wheel."""
        if self.options.installed:
            return "left out: --installed"
        environment = self.folder / "venv"
        self.has_package = False
        outcome = run_command(self.report, [sys.executable, "-m", "venv", environment], 5 * MINUTE)
        if outcome == OK:
            self.python = environment / "Scripts" / "python.exe"
            what = self.options.wheel or ROOT
            outcome = self.run_python("-m", "pip", "install", f"{what}[cli,test]", seconds=20 * MINUTE)
        self.has_package = outcome == OK
        return outcome

    def build_contract(self):
        if self.contract:
            return "left out: --contract"
        setup = compiler_setup()
        if not setup and not shutil.which("cl"):
            self.report.say("no cl on the PATH, and no Visual Studio; --contract FILE names a program that is built")
            return CANNOT
        sources = " ".join(f'"{source}"' for source in sorted((ROOT / "tests" / "contract").glob("*.c")))
        calls = ROOT / "iocpcore" / "calls"
        command = f'cl /nologo /std:c11 /W3 "/I{calls}" {sources} ws2_32.lib mswsock.lib /Fe:contract.exe'
        whole = f'"{setup}" && {command}' if setup else command
        outcome = run_command(self.report, whole, 5 * MINUTE, cwd=self.folder, shell=True)
        if outcome == OK:
            self.contract = self.folder / "contract.exe"
        return outcome

    def run_contract(self):
        """Run each case in a process of its own, because a failed case ends its process."""
        if not self.contract:
            return f"{CANNOT}: no contract.exe, so no fact of docs/windows.md was tested"
        listed = subprocess.run([self.contract, "--list"], stdout=subprocess.PIPE, text=True, check=True, timeout=WAIT)
        ends = {}  # case: its outcome
        for packets in [[]] if self.options.quick else [[], ["--packets"]]:
            for case in listed.stdout.split():
                words = [self.contract, "--seconds", str(MINUTE), *packets, case]
                ends[" ".join([*packets, case])] = run_command(self.report, words, MINUTE + WAIT)
        failed = [case for case, outcome in ends.items() if outcome.startswith("failed")]
        outcomes = list(ends.values())
        counted = f"{outcomes.count(OK)} cases held, {outcomes.count(CANNOT)} not possible here"
        return f"failed: {', '.join(failed)}; {counted}" if failed else f"{OK}: {counted}"

    def run_suite(self):
        tests, seconds = (QUICK_TESTS, 10 * MINUTE) if self.options.quick else (ALL_TESTS, 60 * MINUTE)
        return self.run_python("-m", "pytest", "-p", "no:cacheprovider", *tests, seconds=seconds)

    def run_soak(self):
        length = 3 if self.options.quick else MINUTE
        return self.run_python("tests/soak/soak.py", "--seconds", str(length), seconds=length + 5 * MINUTE)

    def run_in_console(self, case):
        """Run a case in a new console, so that no other program gets its keys."""
        hidden = subprocess.STARTUPINFO(dwFlags=subprocess.STARTF_USESHOWWINDOW, wShowWindow=subprocess.SW_HIDE)
        return self.run_python(
            Path(__file__).resolve(),
            "--in-console",
            case,
            seconds=4 * WAIT,
            creationflags=subprocess.CREATE_NEW_CONSOLE,
            startupinfo=hidden,
        )


def wine_version():
    """None on Windows itself."""
    ask = getattr(ctypes.WinDLL("ntdll"), "wine_get_version", None)
    if ask is None:
        return None
    ask.restype = ctypes.c_char_p
    return ask().decode()


def compiler_setup():
    """The command file of Visual Studio that puts cl on the PATH; None if cl is there already, or was not found."""
    programs = os.environ.get("PROGRAMFILES(X86)")
    finder = Path(programs or "") / "Microsoft Visual Studio" / "Installer" / "vswhere.exe"
    if shutil.which("cl") or not programs or not finder.exists():
        return None
    needed = "Microsoft.VisualStudio.Component.VC.Tools.x86.x64"
    found = subprocess.run(
        [finder, "-latest", "-products", "*", "-requires", needed, "-property", "installationPath"],
        stdout=subprocess.PIPE,
        text=True,
        timeout=MINUTE,
    )
    setup = Path(found.stdout.strip()) / "VC" / "Auxiliary" / "Build" / "vcvars64.bat"
    return setup if found.stdout.strip() and setup.exists() else None


def fingerprint(files):
    """A hash of the files' content, the same with both kinds of line ends."""
    together = b"".join(file.read_bytes().replace(b"\r\n", b"\n") for file in files)
    return "sha256 " + hashlib.sha256(together).hexdigest()


def commit():
    git = shutil.which("git")
    if not git:
        return "unknown: no git"
    command = [git, "-C", ROOT, "describe", "--always", "--dirty"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=WAIT)
    return told.stdout.strip() or "unknown: no checkout"


# ---- Ctrl+C: this program once more, in a console of its own ----


class CannotPress(Exception):
    """The system does not let us send that key to our console."""


class Console:
    """`iocpcore echo` in our console. It gets keys as if they were typed; we get them too, and ignore them."""

    CTRL_C, CTRL_BREAK = 0, 1

    def __init__(self, *arguments):
        self.kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
        self.kernel32.SetConsoleCtrlHandler(None, False)  # a process may inherit that Ctrl+C is ignored
        for number in (signal.SIGINT, signal.SIGBREAK):
            signal.signal(number, lambda number, frame: None)
        self.server = start(
            [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8"
        )
        self.first = self.server.stdout.readline().strip()
        print(self.first, flush=True)

    def press(self, key):
        if key == self.CTRL_BREAK and wine_version():  # wine 8 cannot send it, wine 10 ends us with it
            raise CannotPress("wine's Ctrl+Break is not that of Windows")
        if not self.kernel32.GenerateConsoleCtrlEvent(key, 0):
            raise CannotPress(f"GenerateConsoleCtrlEvent: error {ctypes.get_last_error()}")

    def connect(self):
        """A client whose connection is served: an echo has come back."""
        peer = socket.create_connection(("127.0.0.1", int(self.first.rpartition(":")[2])), timeout=WAIT)
        peer.sendall(b"x")
        assert peer.recv(1) == b"x"
        return peer

    def end(self):
        """Its exit status, and the rest of its output."""
        words, _ = self.server.communicate(timeout=WAIT)
        print(words.rstrip(), f"exit status {self.server.returncode:#x}", sep="\n", flush=True)
        assert "Traceback" not in words
        return self.server.returncode, words

    def close(self):
        if self.server.poll() is None:
            self.server.kill()


def one_key_ends_it(key):
    with contextlib.closing(Console("-m", "iocpcore", "echo", "--port", "0")) as console:
        console.connect().close()
        console.press(key)
        status, words = console.end()
        assert status == 0 and "sessions accepted" in words


def a_second_ctrl_c_ends_the_drain():
    with contextlib.closing(Console("-c", PATIENT_ECHO)) as console, console.connect() as peer:
        console.press(console.CTRL_C)
        assert peer.recv(1) == b""  # it drains, and would wait for our end
        console.press(console.CTRL_C)
        status, words = console.end()
        assert "sessions accepted" not in words
        assert status != 0 or wine_version()  # wine 8 says 0


IN_CONSOLE = {
    "ctrl-c": lambda: one_key_ends_it(Console.CTRL_C),
    "ctrl-break": lambda: one_key_ends_it(Console.CTRL_BREAK),
    "second-ctrl-c": a_second_ctrl_c_ends_the_drain,
}


def in_console(case):
    try:
        IN_CONSOLE[case]()
    except CannotPress as error:
        print(f"{CANNOT}: {error}", flush=True)
        return CANNOT_STATUS
    return 0


# ---- the command line ----


def existing_file(text):
    path = Path(text).resolve()
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"no such file: {text}")
    return path


def arguments(words):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--wheel", type=existing_file, metavar="FILE", help="install this wheel; build nothing")
    source.add_argument("--installed", action="store_true", help="check what this Python has installed")
    parser.add_argument(
        "--contract", type=existing_file, metavar="FILE", help="contract.exe; else it is compiled, where cl is"
    )
    parser.add_argument("--quick", action="store_true", help="one file of tests, a soak of 3 seconds: a minute or two")
    parser.add_argument("--output", default="windows_check.txt", metavar="FILE", help="default: %(default)s")
    parser.add_argument("--in-console", choices=IN_CONSOLE, help=argparse.SUPPRESS)
    return parser.parse_args(words)


def main(words=None):
    options = arguments(words)
    if sys.platform != "win32":
        print("windows_check.py is for Windows; on Linux it is `make test`", file=sys.stderr)
        return 2
    sys.stdout.reconfigure(errors="backslashreplace")
    if options.in_console:
        return in_console(options.in_console)
    with (
        contextlib.closing(Report(options.output)) as report,
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
    ):
        try:
            Check(options, report, Path(folder)).run()
        finally:
            report.summary()
    print(f"\nRead {options.output} before you send it back: it names folders of this machine.")
    return 1 if report.failed() else 0


if __name__ == "__main__":
    sys.exit(main())
