"""The regression gate: what it makes of counts. Counting itself needs valgrind and wine: `make gate`."""

import json

import pytest

import callgrind
import gate

OLD = {"native echo": 100.0, "Python echo": 200.0}
VERSIONS = {"python": "3.11.2", "compiler": "12.2.0"}


def part(number, total):
    return f"# callgrind format\npart: {number}\n\nevents: Ir\nsummary: {total}\n\nfn=(1)\n0 1\n\ntotals: {total}\n"


def test_every_second_part_is_what_a_case_took():
    parts = [part(4, 6000), part(1, 77), part(3, 88), part(2, 1000)]
    cases = callgrind.cases_of("native echo 10\nPython echo 20\n", parts)
    assert {name: case.total / case.operations for name, case in cases.items()} == {
        "native echo": 100, "Python echo": 300,
    }


@pytest.mark.parametrize("parts", [[part(1, 77), part(2, 0)], []])
def test_a_case_of_which_nothing_was_counted_is_an_error(parts):
    with pytest.raises(gate.Failed, match="nothing was counted of 'native echo'"):
        callgrind.cases_of("native echo 10\n", parts)


def test_what_costs_as_much_as_before_passes():
    assert gate.judge(OLD, OLD, 0.02)[1]


def test_what_is_dearer_than_allowed_fails_and_is_named():
    lines, good = gate.judge({**OLD, "Python echo": 204.1}, OLD, 0.02)
    assert not good
    assert [line.split()[0] for line in lines if "DEARER" in line] == ["Python"]


def test_what_is_dearer_within_the_tolerance_passes():
    assert gate.judge({**OLD, "Python echo": 203.9}, OLD, 0.02)[1]


def test_what_is_cheaper_passes_and_asks_for_a_new_baseline():
    lines, good = gate.judge({**OLD, "Python echo": 150.0}, OLD, 0.02)
    assert good
    assert lines[1].endswith("cheaper: --update")


@pytest.mark.parametrize("new", [{"native echo": 100.0}, {**OLD, "another": 1.0}])
def test_a_case_without_its_other_half_fails(new):
    assert not gate.judge(new, OLD, 0.02)[1]


def test_a_baseline_of_other_versions_is_not_compared_and_that_is_said(capsys):
    new, old = gate.Costs({**VERSIONS, "compiler": "13.1.0"}, {"native echo": 999.0}), gate.Costs(VERSIONS, OLD)
    assert gate.compared("instructions", new, old, 0.02)
    said = capsys.readouterr().out
    assert "NOT COMPARED: the baseline holds for other versions: compiler 12.2.0 there, 13.1.0 here" in said


def test_a_new_baseline_replaces_its_own_part_only(tmp_path, monkeypatch):
    monkeypatch.setattr(gate, "BASELINE", tmp_path / "baseline.json")
    monkeypatch.setattr(gate, "ROOT", tmp_path)
    gate.write_baseline({"instructions": gate.Costs(VERSIONS, OLD), "calls": gate.Costs({}, {"native echo": 7.0})})
    gate.write_baseline({"instructions": gate.Costs(VERSIONS, {"native echo": 90.0})})
    assert gate.read_baseline() == {
        "instructions": gate.Costs(VERSIONS, {"native echo": 90.0}),
        "calls": gate.Costs({}, {"native echo": 7.0}),
    }


def test_the_committed_baseline_has_instructions_and_calls():
    baseline = json.loads(gate.BASELINE.read_text())
    assert {"calls under wine", "instructions, Python 3.11"} <= baseline.keys()
    assert all(cost > 0 for part in baseline.values() for cost in part["costs"].values())
