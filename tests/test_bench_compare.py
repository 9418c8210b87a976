"""The comparison of two results: what is a change, and what is noise."""

import dataclasses

import pytest

import bench_sample
import results
from report import compare
from report.__main__ import main

OLD = bench_sample.sample()
LOW, HIGH = [1.0, 1.1, 1.2, 1.3, 1.4], [2.0, 2.1, 2.2, 2.3, 2.4]


def scaled(run, factor, only=None):
    """The same, with the figures of one server (or of all) multiplied."""

    def server(name, it):
        if only not in (None, name):
            return it
        return dataclasses.replace(it, rounds=[{k: v * factor for k, v in values.items()} for values in it.rounds])

    cases = [
        dataclasses.replace(case, servers={name: server(name, it) for name, it in case.servers.items()})
        for case in run.cases
    ]
    return dataclasses.replace(run, cases=cases)


def verdicts(new, server, old=OLD, group="echo"):
    return {c.verdict for c in compare.changes(old, new) if c.server == server and c.case.group == group}


# ---- the rank test ----


def test_five_rounds_apart_from_five_are_hardly_chance():
    assert compare.chance(LOW, HIGH) == pytest.approx(2 / 252)
    assert compare.chance(HIGH, LOW) == pytest.approx(2 / 252)


def test_equal_rounds_are_chance():
    assert compare.chance([1.0] * 5, [1.0] * 5) == 1.0
    assert compare.chance(LOW, LOW) == 1.0


def test_the_chance_is_that_of_the_exact_test():
    assert compare.chance([1, 2, 4], [3, 5, 6]) == pytest.approx(4 / 20)  # rank sums of at most 7, or of at least 14
    assert compare.chance([1, 2], [2, 3]) == pytest.approx(4 / 6)  # two share a rank


def test_one_wild_round_weighs_no_more_than_any_other():
    assert compare.chance(LOW, [*HIGH[:4], 2.4]) == compare.chance(LOW, [*HIGH[:4], 1000.0])


# ---- verdicts ----


def test_a_result_is_the_same_as_itself():
    assert {change.verdict for change in compare.changes(OLD, OLD)} == {"same"}


def test_another_run_of_the_same_is_never_called_a_change_of_more_than_its_spread():
    found = list(compare.changes(OLD, bench_sample.sample(seed=2), least=0.06))
    assert {change.verdict for change in found} <= {"same", "noise", "too few rounds"}


def test_a_dearer_server_is_worse_and_a_cheaper_one_better():
    assert verdicts(scaled(OLD, 1.2, only="uvloop"), "uvloop") == {"worse"}
    assert verdicts(scaled(OLD, 0.8, only="uvloop"), "uvloop") == {"better"}


def test_where_more_is_better_more_is_better():
    assert verdicts(scaled(OLD, 1.2, only="uvloop"), "uvloop", group="bulk") == {"better"}


def test_a_slower_machine_changes_no_ratio():
    assert verdicts(scaled(OLD, 1.5), "uvloop") == {"same"}


def test_a_base_is_shown_by_its_own_figure_and_not_judged():
    assert verdicts(scaled(OLD, 1.5), "c-epoll") == {"reference"}


def test_of_too_few_rounds_nothing_is_said():
    assert verdicts(scaled(OLD, 1.2, only="uvloop"), "uvloop", group="memory") == {"too few rounds"}


def test_a_change_within_the_spread_is_noise():
    case = results.Case("echo", "one", "ns", {"ns": "ns"}, {"uvloop": results.Server([{"ns": v} for v in LOW])})
    change = compare.Change(case, "uvloop", "ns", None, LOW, [1.0, 1.25, 1.35, 1.4, 1.5], 0.02)
    assert change.verdict == "noise"


def test_another_figure_can_be_compared():
    found = compare.changes(OLD, scaled(OLD, 1.2, only="uvloop"), "p99_us")
    assert {(c.case.group, c.verdict) for c in found if c.server == "uvloop"} == {
        ("echo", "worse"), ("latency", "worse"), ("busy", "worse"),
    }


# ---- the command ----


@pytest.fixture
def files(tmp_path):
    def files(old, new):
        pytest.importorskip("rich", reason="`pip install .[bench]` has what prints the table")
        results.save(old, tmp_path / "old.json")
        results.save(new, tmp_path / "new.json")
        return [str(tmp_path / "old.json"), str(tmp_path / "new.json")]

    return files


def test_the_table_names_what_is_worse(files, capsys):
    main(["compare", *files(OLD, scaled(OLD, 1.2, only="uvloop"))])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.rstrip().endswith(" worse")]
    assert len(lines) == len({c.name for c in OLD.cases if c.group not in ("memory", "bulk")})
    assert all("uvloop" in line and "+20.0%" in line for line in lines)


def test_worse_is_a_failure_only_where_it_is_asked_for(files):
    worse = files(OLD, scaled(OLD, 1.2, only="uvloop"))
    main(["compare", *worse])
    with pytest.raises(SystemExit) as exit:
        main(["compare", *worse, "--fail-on-worse"])
    assert exit.value.code == 1


def test_better_is_no_failure(files):
    better = dataclasses.replace(OLD, cases=OLD.group("echo"))
    main(["compare", *files(better, scaled(better, 0.8, only="python-epoll")), "--fail-on-worse"])


def test_what_only_one_of_the_two_has_is_named(files, capsys):
    main(["compare", *files(OLD, dataclasses.replace(OLD, cases=OLD.cases[:-1]))])
    assert "only in the old one:\n  start: import: asyncio\n" in capsys.readouterr().out


def test_a_file_that_is_no_result_is_named(tmp_path):
    with pytest.raises(SystemExit, match="report: .*nothing.json"):
        main(["compare", *[str(tmp_path / "nothing.json")] * 2])
