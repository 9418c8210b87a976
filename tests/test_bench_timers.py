"""How late time limits strike: the measurement, not its result."""

import iocpcore
import timers


def test_each_backend_has_a_median_and_a_latest_of_each_limit_and_none_is_early():
    columns = timers.measured((0.01,), 3)
    assert list(columns) == [backend for backend, missing in iocpcore.backends().items() if missing is None]
    for late in columns.values():
        assert list(late) == ["0.01 s, median", "0.01 s, latest"]
        assert 0 < late["0.01 s, median"] <= late["0.01 s, latest"]
