"""The comparison of two results: what is a change, and what is noise."""

import pytest

import bench_sample
from report import compare, results
from report.__main__ import main

FULL = bench_sample.document()
OLD = results.parse(FULL)


def scaled(factor, only=None, groups=None):
    """The same, with the figures of one server (or of all) multiplied."""

    def server(name, it):
        if only not in (None, name):
            return it
        return {"rounds": [{key: value * factor for key, value in values.items()} for values in it["rounds"]]}

    cases = [
        {**case, "servers": {name: server(name, it) for name, it in case["servers"].items()}}
        for case in FULL["cases"] if groups is None or case["group"] in groups
    ]
    return results.parse({**FULL, "cases": cases})


def verdicts(new, server, old=OLD, group="echo"):
    return {c.verdict for c in compare.changes(old, new) if c.server == server and c.case.group == group}


# ---- what is a change ----


def change(old, new, rounds=(5, 5)):
    case = results.Case("echo", "one", "ns", {"ns": "ns"}, {"uvloop": results.Server(None, {"ns": old}, {})}, rounds[0])
    return compare.Change(case, "uvloop", "ns", None, old, new, rounds)


def test_five_rounds_apart_from_five_are_hardly_chance():
    assert compare.chance(5, 5) == pytest.approx(1 / 126)


def test_rounds_that_lie_above_all_old_ones_are_worse():
    assert change(results.Summary(1.2, 1.0, 1.4), results.Summary(2.2, 2.0, 2.4)).verdict == "worse"


def test_rounds_that_lie_among_the_old_ones_are_noise():
    assert change(results.Summary(1.2, 1.0, 1.4), results.Summary(1.35, 1.3, 1.5)).verdict == "noise"


def test_one_wild_round_is_noise_and_no_change():
    assert change(results.Summary(1.2, 1.0, 2.3), results.Summary(2.2, 2.0, 2.4)).verdict == "noise"


def test_four_rounds_on_a_side_are_too_few():
    verdict = change(results.Summary(1.2, 1.0, 1.4), results.Summary(2.2, 2.0, 2.4), (4, 4)).verdict
    assert verdict == "too few rounds"


# ---- verdicts of a result ----


def test_a_result_is_the_same_as_itself():
    assert {change.verdict for change in compare.changes(OLD, OLD)} == {"same"}


def test_another_run_of_the_same_is_never_called_a_change_of_more_than_its_spread():
    found = list(compare.changes(OLD, bench_sample.sample(seed=2), least=0.06))
    assert {change.verdict for change in found} <= {"same", "noise", "too few rounds"}


def test_a_dearer_server_is_worse_and_a_cheaper_one_better():
    assert verdicts(scaled(1.2, only="uvloop"), "uvloop") == {"worse"}
    assert verdicts(scaled(0.8, only="uvloop"), "uvloop") == {"better"}


def test_where_more_is_better_more_is_better():
    assert verdicts(scaled(1.2, only="uvloop"), "uvloop", group="bulk") == {"better"}


def test_a_slower_machine_changes_no_ratio():
    assert verdicts(scaled(1.5), "uvloop") == {"same"}


def test_a_base_is_shown_by_its_own_figure_and_not_judged():
    assert verdicts(scaled(1.5), "c-epoll") == {"reference"}


def test_of_too_few_rounds_nothing_is_said():
    assert verdicts(scaled(1.2, only="uvloop"), "uvloop", group="memory") == {"too few rounds"}


def test_another_percentile_of_latency_cases_can_be_compared():
    found = compare.changes(OLD, scaled(1.2, only="uvloop"), "p50_us")
    verdicts = {(c.case.group, c.verdict) for c in found if c.server == "uvloop"}
    assert verdicts == {("latency", "worse"), ("busy", "worse")}


# ---- the command ----


@pytest.fixture
def files(tmp_path):
    def files(old, new):
        pytest.importorskip("rich", reason="`pip install .[bench]` has what prints the table")
        results.write(results.document(old), tmp_path / "old.json")
        results.write(results.document(new), tmp_path / "new.json")
        return [str(tmp_path / "old.json"), str(tmp_path / "new.json")]

    return files


def test_the_table_names_what_is_worse(files, capsys):
    main(["compare", *files(OLD, scaled(1.2, only="uvloop"))])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.rstrip().endswith(" worse")]
    assert len(lines) == len({c.name for c in OLD.cases if c.group not in ("memory", "bulk")})
    assert all("uvloop" in line and "+20.0%" in line for line in lines)


def test_worse_is_a_failure_only_where_it_is_asked_for(files):
    worse = files(OLD, scaled(1.2, only="uvloop"))
    main(["compare", *worse])
    with pytest.raises(SystemExit) as exit:
        main(["compare", *worse, "--fail-on-worse"])
    assert exit.value.code == 1


def test_better_is_no_failure(files):
    better = scaled(0.8, only="python-epoll", groups=["echo"])
    main(["compare", *files(OLD, better), "--fail-on-worse"])


def test_what_only_one_of_the_two_has_is_named(files, capsys):
    *others, start = FULL["cases"]
    servers = {name: it for name, it in start["servers"].items() if name != "asyncio"}
    main(["compare", *files(OLD, results.parse({**FULL, "cases": [*others, {**start, "servers": servers}]}))])
    assert capsys.readouterr().out.endswith("only in the old one:\n  start: import: asyncio\n")


def test_a_group_that_only_one_of_the_two_has_is_named_once(files, capsys):
    main(["compare", *files(OLD, results.parse({**FULL, "cases": FULL["cases"][:-1]}))])
    assert capsys.readouterr().out.endswith("only in the old one:\n  start\n")


def test_a_file_that_is_no_result_is_named(tmp_path):
    with pytest.raises(SystemExit, match="report: .*nothing.json"):
        main(["compare", *[str(tmp_path / "nothing.json")] * 2])
