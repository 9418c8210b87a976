"""Running a Load to its end, or until no more echoes come."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from .. import Load

if TYPE_CHECKING:
    from .._core import _Result

LOOK = 0.1  # seconds between two looks at the load


def run_load(load: Load, timeout: float, tell: Callable[[int], object] | None = None) -> bool:
    """Wait until every connection is over, or no echo has come for `timeout` seconds. Returns whether all are over.

    tell: called ten times a second with the number of echoes.
    """
    heard: tuple[int, int] | None = None
    heard_at = time.monotonic()
    while not load.wait(LOOK):
        result = load.result()
        if tell is not None:
            tell(result["echoes"])
        if (now := (result["echoes"], result["bytes"])) != heard:
            heard, heard_at = now, time.monotonic()
        elif time.monotonic() - heard_at > timeout:
            return False
    if tell is not None:
        tell(load.echoes)
    return True


def complaint(result: "_Result", wanted: int, finished: bool, timeout: float) -> str | None:
    """What went wrong, in one line; None if every echo came back as it was sent."""
    if result["mismatches"]:
        return f"{result['mismatches']:,} of {result['connections']:,} connections returned a wrong byte"
    lost = wanted - result["echoes"]
    if lost or result["errors"]:
        why = (result["error"] or "the connection ended early") if finished else f"nothing came for {timeout:g} seconds"
        return f"{lost:,} of {wanted:,} echoes did not come back: {why}"
    return None
