"""iocpcore.prometheus: what a scrape of a real page says, and how proactors come to be on it."""

import contextlib
import dataclasses
import gc
import sys
import urllib.request

import pytest
from prometheus_client import CollectorRegistry, Gauge, generate_latest, start_http_server
from prometheus_client.parser import text_string_to_metric_families

import iocpcore
import iocpcore.prometheus
from support import SCALE, WAIT, run_python

FIELDS = dataclasses.fields(iocpcore.WorkerStats)


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def scrape(registry):
    """Ask the page over HTTP, as page_of()."""
    server, thread = start_http_server(0, "127.0.0.1", registry)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def scrape():
        with opener.open(f"http://127.0.0.1:{server.server_port}/metrics", timeout=WAIT) as answer:
            return page_of(answer.read())

    yield scrape
    server.shutdown()
    server.server_close()
    thread.join(WAIT)


def page_of(text):
    """{metric: its family}, and {(sample, labels): value}."""
    families = list(text_string_to_metric_families(text.decode()))
    assert len({family.name for family in families}) == len(families)
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }
    return {family.name: family for family in families}, samples


def samples_in(registry):
    return page_of(generate_latest(registry))[1]


def sample_of(field):
    name = f"iocpcore_{field.name}" + "_seconds" * (field.metadata["unit"] == "seconds")
    return name + "_total" * (field.metadata["kind"] == "counter")


def samples_of(stats, name):
    """What a page must say of a proactor."""
    return {
        (sample_of(field), (("proactor", name), ("worker", str(number)))): getattr(row, field.name)
        for number, row in enumerate(stats.workers)
        for field in FIELDS
    }


def of_workers(samples):
    return {key: value for key, value in samples.items() if "worker" in dict(key[1])}


def proactors_of(samples):
    return {dict(labels)["proactor"] for _, labels in samples}


class Echo:
    def on_receive(self, session, data):
        session.send(data)


# ---- the page ----


def test_a_page_scraped_while_an_echo_load_runs_says_what_the_statistics_say(backend, registry, scrape):
    with iocpcore.Proactor(2, backend) as proactor, iocpcore.Proactor(1, backend) as client:
        iocpcore.prometheus.register(proactor, registry, "echo")
        listener = proactor.listen(Echo())
        load = iocpcore.Load(20, max(50, int(1000 * SCALE)))
        load.start(client, *listener.address[:2])
        pages = []
        while not load.wait(0):
            before = samples_of(proactor.stats(), "echo")
            pages.append((before, of_workers(scrape()[1]), samples_of(proactor.stats(), "echo")))
        assert load.result()["errors"] == 0
        proactor.close(WAIT)
        rising = {sample_of(field) for field in FIELDS if field.metadata["kind"] == "counter"}
        for before, page, after in pages:
            assert page.keys() == before.keys()
            assert [key for key in page if key[0] in rising and not before[key] <= page[key] <= after[key]] == []
        assert of_workers(scrape()[1]) == samples_of(proactor.stats(), "echo")
        assert sum(row.bytes_received for row in proactor.stats().workers) == load.result()["bytes"] > 0


def test_the_numbers_of_one_page_are_of_one_snapshot(backend, registry):
    with iocpcore.Proactor(1, backend) as proactor:
        iocpcore.prometheus.register(proactor, registry)
        load = iocpcore.Load(20, max(50, int(1000 * SCALE)))
        load.start(proactor, *proactor.listen(iocpcore.ECHO).address[:2])
        while not load.wait(0):
            page = {name: value for (name, _), value in of_workers(samples_in(registry)).items()}
            ended = ("iocpcore_packets_total", "iocpcore_inline_successes_total", "iocpcore_failed_starts_total")
            assert page["iocpcore_submitted_total"] == sum(map(page.get, ended)) + page["iocpcore_in_flight"]


def test_every_metric_has_its_type_and_its_unit(proactor, registry):
    iocpcore.prometheus.register(proactor, registry)
    families, _ = page_of(generate_latest(registry))
    for field in FIELDS:
        family = families[sample_of(field).removesuffix("_total")]
        assert family.type == field.metadata["kind"]
        assert family.documentation == f"{field.metadata['meaning']} Unit: {field.metadata['unit']}."


def test_the_backend_and_the_version_are_labels(proactor, registry):
    iocpcore.prometheus.register(proactor, registry)
    labels = (("backend", proactor.backend), ("proactor", "main"), ("version", iocpcore.__version__))
    assert samples_in(registry)["iocpcore_proactor_info", labels] == 1


# ---- who is on it ----


def test_several_proactors_are_told_apart_by_their_names(backend, registry):
    with contextlib.ExitStack() as stack:
        first, second = (stack.enter_context(iocpcore.Proactor(1, backend)) for _ in range(2))
        first.listen(iocpcore.ECHO)
        iocpcore.prometheus.register(first, registry, "first")
        iocpcore.prometheus.register(second, registry, 'the "second"\\')
    told = samples_of(first.stats(), "first") | samples_of(second.stats(), 'the "second"\\')
    assert of_workers(samples_in(registry)) == told


def test_a_name_is_one_open_proactors_at_a_time(backend, registry):
    with iocpcore.Proactor(1, backend) as first, iocpcore.Proactor(2, backend) as second:
        iocpcore.prometheus.register(first, registry)
        iocpcore.prometheus.register(first, registry)
        with pytest.raises(ValueError, match="another proactor is registered as 'main'"):
            iocpcore.prometheus.register(second, registry)
        with pytest.raises(ValueError, match="under another name"):
            iocpcore.prometheus.register(first, registry, "other")
        first.close()
        iocpcore.prometheus.register(second, registry)
        assert of_workers(samples_in(registry)).keys() == samples_of(second.stats(), "main").keys()


def test_an_unregistered_proactor_is_gone_from_its_page_alone(proactor, registry):
    another = CollectorRegistry()
    iocpcore.prometheus.register(proactor, registry)
    iocpcore.prometheus.register(proactor, another)
    iocpcore.prometheus.unregister(proactor, registry)
    iocpcore.prometheus.unregister(proactor, registry)
    assert samples_in(registry) == {}
    assert another.get_sample_value("iocpcore_proactor_info", {
        "proactor": "main", "backend": proactor.backend, "version": iocpcore.__version__}) == 1


def test_a_registry_keeps_no_proactor_alive(backend, registry):
    proactor = iocpcore.Proactor(1, backend)
    iocpcore.prometheus.register(proactor, registry)
    proactor.close()
    assert proactors_of(samples_in(registry)) == {"main"}
    del proactor
    gc.collect()
    assert samples_in(registry) == {}


def test_a_registry_that_has_such_metrics_already_stays_as_it_is(proactor, registry):
    Gauge("iocpcore_packets", "Somebody else's.", registry=registry)
    for _ in range(2):
        with pytest.raises(ValueError, match="iocpcore_packets"):
            iocpcore.prometheus.register(proactor, registry)
    assert set(page_of(generate_latest(registry))[0]) == {"iocpcore_packets"}


@pytest.mark.parametrize("arguments", [("proactor",), (None,)])
def test_what_is_no_proactor_is_refused(registry, arguments):
    with pytest.raises(TypeError, match="must be a Proactor"):
        iocpcore.prometheus.register(*arguments, registry)


def test_a_name_of_another_type_is_refused(proactor, registry):
    with pytest.raises(TypeError, match="name must be a str"):
        iocpcore.prometheus.register(proactor, registry, 1)


def test_a_name_in_the_place_of_the_registry_is_refused(proactor):
    with pytest.raises(TypeError, match="registry must be a CollectorRegistry, not str"):
        iocpcore.prometheus.register(proactor, "gateway")


def test_without_a_registry_it_is_the_one_of_the_process(backend):
    shown = run_python(
        "import iocpcore, iocpcore.prometheus, prometheus_client\n"
        f"with iocpcore.Proactor(1, {backend!r}) as proactor:\n"
        "    iocpcore.prometheus.register(proactor)\n"
        "    print(prometheus_client.generate_latest().decode())\n"
    )
    assert 'iocpcore_active{proactor="main",worker="0"} 0.0' in shown.splitlines()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
def test_a_forked_childs_page_has_the_rest(backend):
    shown = run_python(
        "import os, warnings\n"
        "import iocpcore, iocpcore.prometheus, prometheus_client\n"
        "warnings.simplefilter('ignore')  # of a fork with threads: that is what is tried\n"
        f"with iocpcore.Proactor(1, {backend!r}) as proactor:\n"
        "    iocpcore.prometheus.register(proactor)\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        page = prometheus_client.generate_latest().decode()\n"
        "        os._exit(0 if 'python_info' in page and 'worker=' not in page else 1)\n"
        "    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    assert shown.split() == ["0"]


def test_without_prometheus_client_the_error_says_what_to_install():
    shown = run_python(
        "import sys\n"
        "sys.modules['prometheus_client'] = None\n"
        "import iocpcore\n"
        "try:\n"
        "    import iocpcore.prometheus\n"
        "except ImportError as error:\n"
        "    print(error, error.name)\n"
    )
    text = 'iocpcore.prometheus needs prometheus_client: pip install "iocpcore[prometheus]"'
    assert shown == f"{text} prometheus_client\n"
