"""Two writes per answer, a header and a body: does the server send them as one?

Raw C sends them one after the other, as its program says: it is no floor for those that put them together.
"""
import pytest

from rounds import Traffic


@pytest.mark.parametrize("size", [pytest.param(64, id="64B"), pytest.param(4096, id="4096B", marks=pytest.mark.full)])
def test_two_writes(compare, size):
    compare(Traffic("two-writes", f"answers of 4 and {size - 4:,} bytes x 50", service="two-writes", size=size))
