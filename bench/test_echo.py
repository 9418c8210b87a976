"""Echo: every request is sent back; each connection has as many outstanding as the pipeline is long."""
import pytest

from rounds import Traffic

SIZES = {14: "14 B", 1024: "1 KiB", 10 * 1024: "10 KiB", 100 * 1024: "100 KiB"}
REQUESTS = {14: 10_000, 1024: 10_000, 10 * 1024: 5000, 100 * 1024: 1000}
QUICK = {
    *((14, connections, 1) for connections in (1, 50, 500)),
    *((size, 50, 1) for size in REQUESTS),
    (14, 50, 16),
}


def matrix():
    for size, label in SIZES.items():
        for connections in (1, 50, 500, 5000) if size == 14 else (1, 50, 500):
            for pipeline in (1, 16):
                marks = [] if (size, connections, pipeline) in QUICK else [pytest.mark.full]
                # No number is the beginning of another, so that -k "14B and 50conn and 1deep" is one case.
                name = f"{label.replace(' ', '')}-{connections}conn-{pipeline}deep"
                yield pytest.param(size, connections, pipeline, id=name, marks=marks)


@pytest.mark.parametrize(("size", "connections", "pipeline"), list(matrix()))
def test_echo(compare, size, connections, pipeline):
    name = f"echo {SIZES[size]} x {connections}" + (f", {pipeline} pipelined" if pipeline > 1 else "")
    requests = max(REQUESTS[size], connections * pipeline)
    compare(Traffic("echo", name, size=size, connections=connections, pipeline=pipeline, requests=requests))
