"""The goals of the project, and what is said of a result that reaches them, or does not, or lacks the figures."""

import pytest

from report import goals, quoted, results


def run_with(group, name, servers, figure="total_ns"):
    """A result of one case. servers: {name: [{figure: value} of each round]}."""
    units = {key: key for rounds in servers.values() for key in rounds[0]}
    servers = {server: {"rounds": rounds, "base": "c-epoll"} for server, rounds in servers.items()}
    case = {"group": group, "name": name, "figure": figure, "units": units, "servers": servers}
    head = {"format": results.FULL, "made": "2026-01-02T03:04:05Z", "command": "make bench"}
    return results.parse({**head, "cases": [case], "missing": [{"server": "uvloop", "reason": "no wheel"}]})


def goal(title, base=None):
    return next(goal for goal in goals.GOALS if goal.title == title and base in (None, goal.base))


def outcome(run, goal, backend="epoll"):
    return goals.outcome(run, goal, backend)


def echoes(**costs):
    """Of 50 connections: {server: ns of each round}."""
    rounds = {name.replace("_", "-"): [{"total_ns": ns} for ns in values] for name, values in costs.items()}
    return run_with("echo", "echo 14 B x 50", rounds)


@pytest.mark.parametrize(("cost", "verdict"), [(1020, "reached"), (1021, "missed")])
def test_a_ratio_is_held_against_its_limit(cost, verdict):
    found = outcome(echoes(c_epoll=[1000.0], iocpcore_epoll=[cost]), goal("native echo, 50 connections", "c-{}"))
    assert (found.verdict, found.text) == (verdict, f"{cost / 1000:.3f}×, {verdict}")


def test_ratios_are_taken_round_by_round():
    """A round in which the machine was slow for both."""
    run = echoes(c_epoll=[1000.0, 3000.0, 1000.0], iocpcore_epoll=[1010.0, 3030.0, 1500.0])
    assert outcome(run, goal("native echo, 50 connections", "c-{}")).found.middle == pytest.approx(1.01)


def test_a_server_that_was_not_measured_is_named_with_the_reason():
    found = outcome(echoes(c_epoll=[1000.0], python_epoll=[900.0]), goal("Python echo, 50 connections", "uvloop"))
    assert (found.verdict, found.why_not) == ("not measured", "uvloop: no wheel")


def test_a_case_that_is_not_in_the_result_is_named():
    found = outcome(echoes(c_epoll=[1000.0]), goal("native echo, 5,000 connections", "c-{}"))
    assert (found.verdict, found.why_not) == ("not measured", "it has no case 'echo 14 B x 5000'")


def test_a_user_part_is_the_mean_of_all_rounds():
    rounds = {"python-epoll": [100.0, 300.0], "uvloop": [600.0, 400.0]}
    servers = {name: [{"total_ns": 1e3, "user_ns": ns} for ns in values] for name, values in rounds.items()}
    found = outcome(run_with("echo", "echo 14 B x 50", servers), goal("Python echo, user part, 50 connections"))
    assert (found.verdict, found.found.middle) == ("reached", 0.4)


def test_a_user_part_that_fell_between_the_ticks_is_not_measured():
    rounds = {"python-epoll": [0.0, 1000.0], "uvloop": [1000.0, 1000.0]}
    servers = {name: [{"total_ns": 1e3, "user_ns": ns} for ns in values] for name, values in rounds.items()}
    found = outcome(run_with("echo", "echo 14 B x 50", servers), goal("Python echo, user part, 50 connections"))
    assert (found.verdict, found.why_not) == ("not measured", "its figures are not in the result, or too coarse")


def test_memory_that_is_kept_is_a_share_of_what_was_taken():
    figures = {"bytes_per_connection": 500.0, "kept_per_connection": 100.0}
    run = run_with("memory", "1,000 idle connections", {"iocpcore-epoll": [figures]}, "bytes_per_connection")
    assert outcome(run, goal("native session, each of 1,000 idle connections")).text == "500, reached"
    assert outcome(run, goal("native session, kept when 1,000 have gone")).text == "20.0 %, missed"


def test_calls_under_wine_are_a_difference():
    rounds = {name: [{"calls_per_echo": calls}] for name, calls in (("c-iocp", 6.0), ("iocpcore-windows", 6.25))}
    run = run_with("wine", "calls per echo", rounds, "calls_per_echo")
    (found,) = goals.outcomes(run, goal("native, calls per echo"))
    assert (found.column, found.text) == ("Windows, under wine", "+0.25, missed")


def test_every_goal_is_about_a_case_of_the_suite():
    """Else it would be not measured for ever."""
    quick = {(case.group, case.name) for case in results.load(quoted.PUBLISHED).cases}
    full = {("echo", "echo 14 B x 5000"), ("memory", "10,000 idle connections")}
    younger = {("fair", case) for case in goals.FLOODS}  # than the published result
    assert {(goal.group, goal.case) for goal in goals.GOALS} <= quick | full | younger


def test_every_goal_is_about_figures_that_are_published():
    """Wherever the servers of a goal were measured, what it compares is in the published result."""
    outcomes = [each for goal in goals.GOALS for each in goals.outcomes(results.load(quoted.PUBLISHED), goal)]
    assert "its figures are not in the result, or too coarse" not in [each.why_not for each in outcomes]


def test_every_goal_is_a_row_of_the_table_and_every_backend_a_line_of_the_list():
    run = echoes(c_epoll=[1000.0], iocpcore_epoll=[1010.0])
    rows = goals.table(run).splitlines()
    assert len(rows) == 2 + len(goals.GOALS)
    listed = list(goals.lines(run))
    assert len(listed) == 1 + sum(len(goal.columns) for goal in goals.GOALS)
    assert listed[-1].startswith("1 reached, 0 missed, ")
