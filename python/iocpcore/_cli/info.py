"""`iocpcore info`: the versions of this build, and the backends that can run here."""

import os
import platform
import sys
from argparse import ArgumentParser, Namespace
from typing import Any

from .. import Proactor, __version__, _core, backends
from .common import DONE, Refused
from .output import print_json, print_table

HELP = "versions, and the backends that can run here"
DESCRIPTION = "Print the version, the platform, the backends and why one cannot run, the compiler and Cython's version."

# Backends of this system that a build may lack.
OPTIONAL = ["uring"] if sys.platform == "linux" else []


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: Namespace) -> int:
    check_environment()
    facts = gather()
    if options.json:
        print_json(facts)
    else:
        show(facts)
    return DONE


def check_environment() -> None:
    """Refuse an unknown backend in IOCPCORE_BACKEND. One that is known but cannot run is reported, with the reason."""
    try:
        Proactor(0).close()
    except ValueError as error:
        raise Refused(error) from error
    except (RuntimeError, OSError):
        pass


def gather() -> dict[str, Any]:
    built = backends()
    return {
        "version": __version__,
        "platform": platform.platform(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "backends": {
            name: {"built": name in built, "usable": reason is None, "reason": reason}
            for name, reason in {**{name: _core._backend_absent(name) for name in OPTIONAL}, **built}.items()
        },
        "auto": automatic(),
        "chosen": os.environ.get("IOCPCORE_BACKEND") or None,
        "compiler": _core.compiler,
        "cython": _core.cython_version,
    }


def automatic() -> str | None:
    """The backend that "auto" takes, found by making a proactor with it; None if none can run."""
    try:
        with Proactor(1, "auto") as proactor:
            return proactor.backend
    except (RuntimeError, ValueError, OSError):
        return None


def show(facts: dict[str, Any]) -> None:
    sections = [
        [["version", facts["version"]], ["platform", facts["platform"]], ["python", facts["python"]]],
        [[f"backend {name}", backend["reason"] or "usable"] for name, backend in facts["backends"].items()]
        + [["backend auto", facts["auto"] or "none can run"]]
        + [["IOCPCORE_BACKEND", facts["chosen"]]] * (facts["chosen"] is not None),
        [["compiler", facts["compiler"]], ["Cython", facts["cython"]]],
    ]
    print_table("iocpcore", sections, justify="left")
