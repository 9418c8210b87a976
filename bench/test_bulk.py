"""Bulk: long answers to peers that read more slowly than the server could write; it must wait for them, not pile up."""
from rounds import Bulk

MIB = 1 << 20


def test_bulk(compare):
    compare(Bulk("bulk", "answers of 16 MiB x 4", size=16 * MIB, connections=4, requests=16))
