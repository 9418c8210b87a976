"""Statistics for Prometheus: `pip install "iocpcore[prometheus]"`.

    import iocpcore.prometheus
    from prometheus_client import start_http_server

    iocpcore.prometheus.register(proactor, name="gateway")
    start_http_server(9100)

Each field of iocpcore.WorkerStats is a metric named after it, with the prefix `iocpcore_`, and with the suffix `_total`
if it is a counter; callback_time is `iocpcore_callback_time_seconds_total`. Labels: `proactor`, the name given here,
and `worker`, the worker's number; add workers up with sum(). `iocpcore_proactor_info` has the labels `backend` and
`version`.

A scrape takes one snapshot of each proactor, so that the numbers of one page fit together: see Proactor.stats().
"""

import dataclasses
import threading
from collections.abc import Iterable, Iterator
from weakref import WeakKeyDictionary, WeakValueDictionary

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
    from prometheus_client.registry import REGISTRY, Collector, CollectorRegistry
except ImportError as error:
    raise ImportError(
        'iocpcore.prometheus needs prometheus_client: pip install "iocpcore[prometheus]"', name="prometheus_client"
    ) from error

from . import __version__
from ._core import Proactor
from ._stats import Stats, WorkerStats

__all__ = ["register", "unregister"]

_LABELS = ("proactor", "worker")
_lock = threading.Lock()  # guards _collectors, and the content of each


class _Proactors(Collector):
    """All proactors of one registry, because a page may have each metric only once. It keeps none of them alive."""

    def __init__(self) -> None:
        self.named: WeakValueDictionary[str, Proactor] = WeakValueDictionary()

    def add(self, name: str, proactor: Proactor) -> None:
        other = self.named.get(name)
        if other is not None and other is not proactor and not other.closing:
            raise ValueError(f"another proactor is registered as {name!r}")
        if any(one is proactor and known != name for known, one in self.named.items()):
            raise ValueError("the proactor is already registered under another name")
        self.named[name] = proactor

    def remove(self, proactor: Proactor) -> None:
        for name, one in list(self.named.items()):
            if one is proactor:
                del self.named[name]

    def describe(self) -> Iterable[Metric]:
        return _families({})

    def collect(self) -> Iterable[Metric]:
        with _lock:
            named = dict(self.named)
        return _families({name: stats for name, one in named.items() if (stats := _stats_of(one)) is not None})


_collectors: WeakKeyDictionary[CollectorRegistry, _Proactors] = WeakKeyDictionary()


def _stats_of(proactor: Proactor) -> Stats | None:
    """None in a forked child, where the proactor belongs to the parent: its error must not fail the whole page."""
    try:
        return proactor.stats()
    except RuntimeError:
        return None


def _families(snapshots: dict[str, Stats]) -> Iterator[Metric]:
    for field in dataclasses.fields(WorkerStats):
        family = _family(field)
        for name, stats in snapshots.items():
            for number, row in enumerate(stats.workers):
                family.add_metric([name, str(number)], getattr(row, field.name))
        yield family
    info = InfoMetricFamily("iocpcore_proactor", "The backend and the version that run.", labels=["proactor"])
    for name, stats in snapshots.items():
        info.add_metric([name], {"backend": stats.backend, "version": __version__})
    yield info


def _family(field: "dataclasses.Field[object]") -> CounterMetricFamily | GaugeMetricFamily:
    unit, kind = field.metadata["unit"], field.metadata["kind"]
    made = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
    text = f"{field.metadata['meaning']} Unit: {unit}."
    return made(f"iocpcore_{field.name}", text, labels=_LABELS, unit="seconds" if unit == "seconds" else "")


def register(proactor: Proactor, registry: CollectorRegistry = REGISTRY, name: str = "main") -> None:
    """Show the proactor's statistics on the registry's page until unregister(), or as long as something refers to it.

    name: the label `proactor` of its metrics. A closed proactor stays on the page, with its last numbers, until another
    one takes its name. Raises ValueError if an open proactor has the name, or if this one has another name there.
    """
    if not isinstance(proactor, Proactor):
        raise TypeError(f"proactor must be a Proactor, not {type(proactor).__name__}")
    if not isinstance(registry, CollectorRegistry):
        raise TypeError(f"registry must be a CollectorRegistry, not {type(registry).__name__}")
    if not isinstance(name, str):
        raise TypeError(f"name must be a str, not {type(name).__name__}")
    with _lock:
        collector = _collectors.get(registry)
        if collector is None:
            collector = _Proactors()
            registry.register(collector)
            _collectors[registry] = collector
        collector.add(name, proactor)


def unregister(proactor: Proactor, registry: CollectorRegistry = REGISTRY) -> None:
    """Take the proactor off the registry's page; does nothing if it is not there."""
    with _lock:
        collector = _collectors.get(registry)
        if collector is not None:
            collector.remove(proactor)
