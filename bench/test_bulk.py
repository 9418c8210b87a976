"""Bulk: long answers to peers that read more slowly than the server could write; it must wait for them, not pile up.

The peak of its memory is a figure too: a server without back-pressure holds the whole answers.
"""
import dataclasses

from process import forget_peak, peak_bytes
from rounds import Traffic

MIB = 1 << 20


@dataclasses.dataclass(frozen=True)
class Bulk(Traffic):
    mode: str = "bulk"
    service: str = "bulk"
    per: str = "KiB"

    def units(self):
        return super().units() | {"peak_bytes": "bytes, the most memory at a time"}

    def round(self, running, options):
        forget_peak(running.pid)
        figures = yield from super().round(running, options)
        return figures | {"peak_bytes": peak_bytes(running.pid)}


def test_bulk(compare):
    compare(Bulk("bulk", "answers of 16 MiB x 4", size=16 * MIB, connections=4, requests=16))
