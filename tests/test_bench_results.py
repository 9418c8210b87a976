"""The result files of the benchmark suite: what is refused, what is derived, and what is published."""

import json
from pathlib import Path

import pytest

from report import results

FULL = {
    "format": 1,
    "made": "2026-01-02T03:04:05Z",
    "command": "make bench",
    "cases": [
        {
            "group": "echo",
            "name": "echo 14 B x 50",
            "figure": "total_ns",
            "units": {"total_ns": "ns", "user_ns": "ns"},
            "base": "c-epoll",
            "servers": {
                "c-epoll": {"rounds": [{"total_ns": 100, "user_ns": 0}, {"total_ns": 200, "user_ns": 0}]},
                "c-uring": {"rounds": [{"total_ns": 50, "user_ns": 1}, {"total_ns": 400, "user_ns": 1}]},
                "uvloop": {"rounds": [{"total_ns": 110}, {"total_ns": 260}]},
                "python-uring": {"base": "c-uring", "rounds": [{"total_ns": 100}, {"total_ns": 400}]},
            },
        }
    ],
    "missing": [{"server": "rsloop", "reason": "no wheel for this Python"}],
}


PUBLISHED = Path(results.__file__).with_name("published.json")


@pytest.fixture
def document():
    return json.loads(json.dumps(FULL))


@pytest.fixture
def case(document):
    return results.parse(document).cases[0]


def refused(document, message):
    with pytest.raises(results.Invalid, match=message):
        results.parse(document)


# ---- what is derived ----


def test_a_ratio_is_the_median_of_the_ratios_of_each_round(case):
    assert case.ratio("uvloop") == results.Summary(1.2, 1.1, 1.3)


def test_a_servers_own_base_goes_before_that_of_the_case(case):
    assert case.ratio("python-uring") == results.Summary(1.5, 1, 2)


def test_a_server_can_be_compared_with_the_reference_of_its_case_too(case):
    assert case.ratio("python-uring", "c-epoll") == results.Summary(1.5, 1, 2)


def test_ours_can_be_compared_with_uvloop(case):
    assert case.ratio("python-uring", "uvloop") == results.Summary(1.223776, 0.90909, 1.5385)


def test_the_reference_of_a_case_is_the_server_that_is_its_own_base(case):
    assert case.reference == "c-epoll"


def test_there_is_no_ratio_to_a_base_that_was_not_measured(case):
    assert case.ratio("uvloop", base="asyncio") is None


def test_there_is_no_ratio_to_nothing(document):
    document["cases"][0]["servers"]["c-epoll"]["rounds"][0]["total_ns"] = 0
    assert results.parse(document).cases[0].ratio("uvloop") is None


def test_a_summary_has_the_median_and_the_extremes(case):
    assert case.cost("uvloop") == results.Summary(185, 110, 260)
    assert case.rounds == 2


def test_what_timer_ticks_sample_is_a_mean():
    assert results.summary("user_ns", [0, 0, 30]).middle == 10


def test_of_a_figure_that_nobody_looks_at_closely_no_extremes_are_kept():
    assert results.summary("requests_per_s", [1, 2, 4], spread=False) == results.Summary(2)


def test_a_figure_that_some_rounds_lack_has_no_summary(case):
    assert "user_ns" not in case.servers["uvloop"].figures


def test_of_a_latency_the_ratios_of_all_percentiles_are_kept():
    units = dict.fromkeys(["p50_us", "p99_us", "requests_per_s"], "?")
    assert results.compared("p99_us", units) == ["p99_us", "p50_us"]
    assert results.compared("requests_per_s", units) == ["requests_per_s"]


# ---- what is published ----


def test_what_is_published_is_what_was_measured(document, tmp_path):
    result = results.parse(document)
    results.write(results.document(result), tmp_path / "published.json")
    assert results.load(tmp_path / "published.json") == result


def test_what_is_published_has_a_line_for_each_server_and_no_rounds(document, tmp_path):
    results.write(results.document(results.parse(document)), tmp_path / "published.json")
    lines = [line.strip() for line in (tmp_path / "published.json").read_text().splitlines()]
    assert '"uvloop":["c-epoll",[[185,110,260]],{"c-epoll":[[1.2,1.1,1.3]]}],' in lines
    assert not [line for line in lines if line.startswith('"rounds":[')]


def test_a_published_server_without_the_cases_figure_is_refused(document):
    published = results.document(results.parse(document))
    published["runs"][0]["cases"][0]["servers"]["uvloop"][1] = []
    refused(published, "uvloop: it lacks the case's figure, 'total_ns'")


def test_the_published_result_is_small():
    assert PUBLISHED.stat().st_size < 100_000


def run_of(groups, commit, missing=()):
    """A result of some groups, a case each."""
    cases = [{**FULL["cases"][0], "group": group} for group in groups]
    run = {**FULL, "cases": cases, "commit": commit, "missing": list(missing)}
    return results.parse(run)


def test_a_run_of_some_groups_takes_the_place_of_those_and_of_no_others():
    renewed = run_of(["echo", "churn"], "old").renewed(run_of(["echo"], "new"))
    assert [(run.commit, run.groups) for run in renewed.runs] == [("old", ["churn"]), ("new", ["echo"])]
    assert [renewed.run_of(group).commit for group in ("echo", "churn")] == ["new", "old"]


def test_a_run_of_which_no_group_is_left_is_no_longer_published():
    renewed = run_of(["echo"], "old").renewed(run_of(["echo", "churn"], "new"))
    assert [run.commit for run in renewed.runs] == ["new"]


def test_who_was_missing_in_a_group_that_is_measured_anew_is_not_missing_any_more():
    missing = [{"server": "c-epoll", "reason": "?", "group": group} for group in ("echo", "churn")]
    renewed = run_of(["echo", "churn"], "old", missing).renewed(run_of(["echo"], "new"))
    assert [each.group for run in renewed.runs for each in run.missing] == ["churn"]


def test_several_runs_are_published_in_one_file(tmp_path):
    renewed = run_of(["echo", "churn"], "old").renewed(run_of(["echo"], "new"))
    results.write(results.document(renewed), tmp_path / "published.json")
    assert results.load(tmp_path / "published.json") == renewed


def test_cases_of_one_group_with_different_units_are_not_published(document, tmp_path):
    other = {**document["cases"][0], "name": "another", "units": {"total_ns": "us"}}
    document["cases"].append(other)
    with pytest.raises(results.Invalid, match="the cases of group echo have different units"):
        results.write(results.document(results.parse(document)), tmp_path / "published.json")


# ---- what is read ----


def test_a_peer_that_could_not_be_measured_keeps_its_reason(document):
    assert results.parse(document).runs[0].missing == [results.Missing("rsloop", "no wheel for this Python")]


def test_a_peer_that_is_missing_in_one_group_keeps_that_too(document):
    document["missing"][0]["group"] = "broadcast"
    assert results.parse(document).runs[0].missing[0].group == "broadcast"


def test_the_file_is_named_where_it_is_no_result(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("{")
    with pytest.raises(results.Invalid, match=r"result\.json: "):
        results.load(path)


def test_an_unknown_format_is_refused(document):
    document["format"] = 3
    refused(document, "format 3: only 1 and 2 are known")


@pytest.mark.parametrize("key", ["format", "made", "command", "cases"])
def test_what_is_missing_is_named(document, key):
    del document[key]
    refused(document, f"'{key}' is missing")


def test_a_number_that_is_none_is_refused_with_its_place(document):
    document["cases"][0]["servers"]["uvloop"]["rounds"][1]["total_ns"] = "260"
    refused(document, r"cases\[0\] \(echo 14 B x 50\): uvloop: round 2: a finite number is wanted, not '260'")


def test_a_figure_that_is_not_finite_is_refused(document):
    document["cases"][0]["servers"]["uvloop"]["rounds"][1]["total_ns"] = float("nan")
    refused(document, "a finite number is wanted, not nan")


def test_a_round_without_the_cases_figure_is_refused(document):
    del document["cases"][0]["servers"]["uvloop"]["rounds"][1]["total_ns"]
    refused(document, "round 2: it lacks the case's figure, 'total_ns'")


def test_a_figure_without_a_unit_is_refused(document):
    document["cases"][0]["units"] = {"user_ns": "ns"}
    refused(document, "the units do not say what 'total_ns' is")


def test_servers_that_were_not_measured_in_turn_are_refused(document):
    document["cases"][0]["servers"]["uvloop"]["rounds"].pop()
    refused(document, "unequal numbers of rounds")


def test_two_cases_of_one_name_are_refused(document):
    document["cases"] *= 2
    refused(document, "2 cases of group echo are called 'echo 14 B x 50'")
