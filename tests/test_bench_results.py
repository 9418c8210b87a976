"""The result files of the benchmark suite: what is refused, and what is derived."""

import json

import pytest

import results

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


@pytest.fixture
def document():
    return json.loads(json.dumps(FULL))


@pytest.fixture
def case(document):
    return results.parse(document).cases[0]


def refused(document, message):
    with pytest.raises(results.Invalid, match=message):
        results.parse(document)


def test_a_ratio_is_the_median_of_the_ratios_of_each_round(case):
    assert case.ratios("uvloop") == [1.1, 1.3]
    assert case.ratio("uvloop").median == pytest.approx(1.2)


def test_a_servers_own_base_goes_before_that_of_the_case(case):
    assert case.ratios("python-uring") == [2.0, 1.0]


def test_the_reference_of_a_case_is_its_base(case):
    assert case.reference == "c-epoll"


def test_without_a_base_the_reference_is_the_server_that_is_its_own(document):
    del document["cases"][0]["base"]
    servers = document["cases"][0]["servers"]
    servers["c-uring"]["base"] = servers["c-epoll"]["base"] = "c-epoll"
    assert results.parse(document).cases[0].reference == "c-epoll"


def test_there_is_no_ratio_to_a_base_that_was_not_measured(case):
    assert case.ratio("uvloop", base="asyncio") is None


def test_there_is_no_ratio_to_nothing(case):
    assert case.ratio("c-uring", base="c-epoll", figure="user_ns") is None


def test_a_summary_has_the_median_the_extremes_and_the_number_of_rounds(case):
    summary = case.servers["uvloop"].summary("total_ns")
    assert summary == results.Summary(median=185, low=110, high=260, rounds=2)
    assert summary.spread == pytest.approx(150 / 185)


def test_a_figure_that_some_rounds_lack_has_no_summary(case):
    assert case.servers["uvloop"].summary("user_ns") is None


def test_what_is_saved_can_be_loaded(document, tmp_path):
    run = results.parse(document)
    results.save(run, tmp_path / "result.json")
    assert results.load(tmp_path / "result.json") == run


def test_a_peer_that_could_not_be_measured_keeps_its_reason(document):
    assert results.parse(document).missing == [results.Missing("rsloop", "no wheel for this Python")]


def test_a_peer_that_is_missing_in_one_group_keeps_that_too(document):
    document["missing"][0]["group"] = "broadcast"
    run = results.parse(document)
    assert run.missing[0].group == "broadcast"
    assert results.document(run)["missing"] == document["missing"]


def test_the_file_is_named_where_it_is_no_result(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("{")
    with pytest.raises(results.Invalid, match=r"result\.json: "):
        results.load(path)


def test_an_unknown_format_is_refused(document):
    document["format"] = 2
    refused(document, "format 2: only 1 is known")


@pytest.mark.parametrize("key", ["format", "made", "command", "cases"])
def test_what_is_missing_is_named(document, key):
    del document[key]
    refused(document, f"'{key}' is missing")


def test_a_number_that_is_none_is_refused_with_its_place(document):
    document["cases"][0]["servers"]["uvloop"]["rounds"][1]["total_ns"] = "260"
    refused(document, r"cases\[0\] \(echo 14 B x 50\)\.servers\.uvloop\.rounds\[1\]\.total_ns: a number is wanted")


def test_a_figure_that_is_not_finite_is_refused(document):
    document["cases"][0]["servers"]["uvloop"]["rounds"][1]["total_ns"] = float("nan")
    refused(document, "nan is not finite")


def test_a_round_without_the_cases_figure_is_refused(document):
    del document["cases"][0]["servers"]["uvloop"]["rounds"][1]["total_ns"]
    refused(document, "a round lacks the case's figure, 'total_ns'")


def test_a_figure_without_a_unit_is_refused(document):
    document["cases"][0]["units"] = {}
    refused(document, "the units do not say what 'total_ns' is")


def test_servers_that_were_not_measured_in_turn_are_refused(document):
    document["cases"][0]["servers"]["uvloop"]["rounds"].pop()
    refused(document, "unequal numbers of rounds")


def test_two_cases_of_one_name_are_refused(document):
    document["cases"] *= 2
    refused(document, "two cases of group echo are called 'echo 14 B x 50'")
