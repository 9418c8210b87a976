"""The report of a result, and what README and docs quote from it."""

import dataclasses
import sys

import pytest

import bench_sample
from report import looks, page, quoted, results, tables
from report.__main__ import main

RUN = bench_sample.sample()


def with_cases(cases, **more):
    """The sample's run, with other cases."""
    return results.Result([dataclasses.replace(RUN.runs[0], cases=cases, **more)])


def renewed_memory(result):
    """With the group memory measured again, at another commit."""
    return result.renewed(with_cases(RUN.group("memory"), commit="def5678"))


@pytest.fixture(scope="module")
def html():
    pytest.importorskip("matplotlib", reason="`pip install .[bench]` has what draws the report")
    pytest.importorskip("jinja2", reason="`pip install .[bench]` has what writes the report")
    return page.html(RUN)


# ---- the page ----


def test_the_page_needs_nothing_from_elsewhere(html):
    links = html.replace('href="#', "").replace('xlink:href="#', "")
    assert "href=" not in links and "src=" not in links and "@import" not in links and "url(http" not in links


def test_without_what_writes_it_the_report_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(SystemExit, match=r"jinja2 is not here; pip install '.\[bench\]' brings"):
        main(["html", str(tmp_path / "report.html")])


def test_every_case_and_every_server_is_on_the_page(html):
    assert all(case.name in html for case in RUN.cases)
    assert all(looks.label(name) in html for name in bench_sample.COSTS)


def test_the_page_says_who_was_not_measured_and_why(html):
    assert "<td>rsloop</td><td>no wheel for this &lt;Python&gt;</td>" in html


def test_the_page_says_when_where_and_how_it_was_made(html):
    for fact in ("2026-01-02", "make bench", "abc1234", "a processor &lt;of no name&gt;", "Linux 6.18", "0.22.1"):
        assert fact in html


def test_the_page_says_of_each_group_which_run_has_measured_it():
    pytest.importorskip("matplotlib", reason="`pip install .[bench]` has what draws the report")
    two = renewed_memory(with_cases([*RUN.group("memory"), *RUN.group("start")]))
    sections = page.html(two).split("<section ")
    commits = {name: [commit for commit in ("abc1234", "def5678") if commit in text]
               for text in sections for name in ("memory", "start") if text.startswith(f'id="{name}"')}
    assert commits == {"memory": ["def5678"], "start": ["abc1234"]}


def test_a_chart_takes_its_colours_from_the_page(html):
    assert "fill: var(--uvloop)" in html and "prefers-color-scheme: dark" in html
    assert all(html.count(looks.look(name).light) == 1 for name in bench_sample.COSTS)  # where the variable is set


def test_every_chart_can_be_a_picture_for_light_and_for_dark_pages(html, tmp_path):
    from report import charts

    # Two suffice: drawing is slow.
    for chart in charts.charts(with_cases([*RUN.group("memory"), *RUN.group("busy")])):
        for theme in (charts.LIGHT, charts.DARK):
            charts.png(chart, theme, tmp_path / f"{chart.name}-{theme.name}.png")
    assert len(list(tmp_path.iterdir())) == 4
    assert {path.read_bytes()[:4] for path in tmp_path.iterdir()} == {b"\x89PNG"}


def test_labels_are_moved_apart_no_further_than_it_takes(html):
    from report import charts

    assert charts.apart([5.0, 1.0, 1.0], 1.0) == [5.0, 0.5, 1.5]


# ---- colours and numbers ----


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_two_servers_share_a_colour(theme):
    colours = [getattr(look, theme) for look in looks.LOOKS.values()]
    assert len(set(colours)) == len(colours)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.0123, "0.0123"), (1.234, "1.23"), (12.34, "12.3"), (123.4, "123"), (12345, "12,345")],
)
def test_a_number_shows_the_digits_that_count(value, text):
    assert looks.number(value) == text


def test_a_table_has_median_spread_ratio_and_rounds_of_each_server():
    table = tables.table(RUN.cases[0])
    summary = RUN.cases[0].cost("c-epoll")
    assert table.rows[0].cells[:5] == [
        f"{summary.middle:,.0f}", f"{summary.low:,.0f} … {summary.high:,.0f}", "1.00×", "1.00× … 1.00×", "5",
    ]


def with_bases(bases):
    servers = {name: results.Server(base, {"ns": results.SAME}, {}) for name, base in bases.items()}
    return results.Case("echo", "one", "ns", {"ns": "ns"}, servers, 1)


@pytest.mark.parametrize(
    ("bases", "text"),
    [
        ({"c-epoll": "c-epoll", "uvloop": "c-epoll"}, "raw C, epoll"),
        ({"python-epoll": "c-epoll", "python-uring": "c-uring"}, "the C server of the same backend"),
        ({"asyncio": "asyncio, loop outside", "uvloop": "uvloop, loop outside"}, "the same server, loop outside"),
    ],
)
def test_a_table_says_what_its_ratios_are_to(bases, text):
    assert tables.base_label(with_bases(bases)) == text


def test_a_server_that_ran_in_another_way_keeps_its_place_and_colour():
    names = looks.in_order(["asyncio", "uvloop, loop outside", "uvloop", "unknown, as such"])
    assert names == ["uvloop", "uvloop, loop outside", "asyncio", "unknown, as such"]
    assert looks.look("uvloop, loop outside") == looks.look("uvloop")
    assert looks.label("c-epoll, loop outside") == "raw C, epoll, loop outside"


# ---- what README and docs quote ----


@pytest.fixture
def root(tmp_path):
    """A checkout with a README that quotes."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("nothing yet\n")
    return tmp_path


def fill(root, text):
    (root / "README.md").write_text(text)
    quoted.fill(RUN, root)
    return (root / "README.md").read_text(encoding="utf-8")


def test_a_ratio_within_a_sentence_is_filled_in(root):
    ratio = RUN.case("echo", "echo 14 B x 50").ratio("python-epoll", "uvloop").middle
    mark = "<!-- bench:ratio echo | echo 14 B x 50 | python-epoll | uvloop -->"
    assert fill(root, f"It takes {mark}old<!-- bench:end --> of uvloop.") == (
        f"It takes {mark}{ratio:.2f}×<!-- bench:end --> of uvloop."
    )


def test_a_table_of_a_group_is_filled_in(root):
    text = fill(root, "<!-- bench:table memory --><!-- bench:end -->\n")
    assert "|  | 1,000 idle | 10,000 idle |" in text
    assert "| uvloop | " in text and "medians of 1 round," in text


def test_a_table_of_many_cases_has_a_line_for_each(root):
    (case, *_) = RUN.group("memory")
    cases = [dataclasses.replace(case, name=f"case {number}") for number in range(quoted.MOST_COLUMNS + 1)]
    lines = quoted.table(with_cases(cases), ["memory"], root / "README.md").splitlines()
    assert lines[1].startswith("|  | raw C, epoll |")
    assert [line.split(" | ")[0] for line in lines if "case" in line] == [f"| {case.name}" for case in cases]


def test_a_table_says_who_is_missing_in_it(root):
    text = fill(root, "<!-- bench:table memory --><!-- bench:end -->\n")
    assert "not measured: rsloop: no wheel for this <Python>\n" in text
    elsewhere = with_cases(RUN.cases, missing=[results.Missing("winloop", "no wine", "wine")])
    assert "winloop" not in quoted.table(elsewhere, ["memory"], root / "README.md")


def test_a_server_stands_beside_a_busy_loop_in_one_row(root):
    def measured(base, p50, p99):
        return {"rounds": [{"p50_us": p50, "p99_us": p99}], "base": base}

    servers = {
        "uvloop": measured("uvloop, loop outside", 3000.0, 5000.0),
        "uvloop, loop outside": measured(None, 10.0, 50.0),
        "c-epoll, loop outside": measured(None, 9.0, 40.0),
    }
    case = bench_sample.case("busy", "loop", "p99_us", {"p99_us": "us", "p50_us": "us"}, servers)
    result = results.parse({**bench_sample.document(), "cases": [case]})
    rows = quoted.busy(result, [], root / "README.md").splitlines()
    assert "| uvloop | 10.0 | 50.0 | 3,000 | 5,000 | 100.0× |" in rows
    assert "| raw C, epoll | 9.00 | 40.0 | – | – | – |" in rows


def test_what_is_filled_in_is_in_line_with_the_result(root):
    text = "<!-- bench:source --><!-- bench:end --> <!-- bench:value start | import | uvloop -->?<!-- bench:end -->"
    fill(root, text)
    assert quoted.stale(RUN, root) == []


def test_a_figure_changed_by_hand_is_found(root):
    text = fill(root, "<!-- bench:value start | import | uvloop --><!-- bench:end -->")
    (root / "README.md").write_text(text.replace("-->", "-->9", 1))
    assert quoted.stale(RUN, root) == ["README.md"]


def test_another_result_makes_the_pages_stale(root):
    fill(root, "<!-- bench:value memory | 1,000 idle | asyncio --><!-- bench:end -->")
    assert quoted.stale(bench_sample.sample(seed=2), root) == ["README.md"]


@pytest.mark.parametrize(
    ("mark", "problem"),
    [
        ("table nothing", "no group 'nothing'"),
        ("value start | import | nobody", "no nobody in 'import'"),
        ("ratio start | import | uvloop | nobody", "no ratio of uvloop to nobody"),
        ("value start", "README.md: <!-- bench:value start -->"),
        ("sum start", "no mark is called bench:sum"),
    ],
)
def test_a_mark_that_asks_for_what_is_not_there_is_an_error(root, mark, problem):
    with pytest.raises(quoted.Unknown, match=problem):
        fill(root, f"<!-- bench:{mark} --><!-- bench:end -->")


def test_what_stands_between_two_marks_stays(root):
    text = "<!-- bench:source --><!-- bench:end -->\n## Stays\n<!-- bench:source -->old<!-- bench:end -->\n"
    assert "\n## Stays\n" in fill(root, text)


def test_a_chart_on_a_page_has_a_picture_for_each_theme_and_its_source(root, html):
    text = fill(root, "<!-- bench:figure memory --><!-- bench:end -->\n")
    assert 'media="(prefers-color-scheme: dark)" srcset="docs/figures/memory-dark.png"' in text
    assert 'src="docs/figures/memory-light.png"' in text
    assert "Made by `make bench` at commit abc1234 on 2026-01-02" in text
    assert quoted.stale(RUN, root) == []


def test_a_picture_of_another_result_is_found(root, html):
    fill(root, "<!-- bench:figure memory --><!-- bench:end -->\n")
    old = root / "docs" / "figures" / "memory-dark.png"
    old.write_bytes(old.read_bytes().replace(quoted.digest(RUN, "memory").encode(), b"0" * 64))
    assert quoted.stale(RUN, root) == ["docs/figures/memory-dark.png"]


def test_where_the_groups_are_of_several_runs_each_run_is_named_with_its_groups(root):
    two = renewed_memory(with_cases([*RUN.group("memory"), *RUN.group("start")]))
    first, second = quoted.source(two, [], root / "README.md").split("\\\n")
    assert first.startswith("start: Made by `make bench` at commit abc1234")
    assert second.startswith("memory: Made by `make bench` at commit def5678")


def test_a_picture_of_a_group_that_was_not_measured_anew_stays(root, html):
    fill(root, "<!-- bench:figure start --><!-- bench:end -->\n")
    picture = root / "docs" / "figures" / "start-dark.png"
    before = picture.stat().st_mtime_ns
    quoted.fill(renewed_memory(RUN), root)
    assert picture.stat().st_mtime_ns == before


def test_publishing_a_group_names_the_cases_that_are_no_longer_there(root, monkeypatch, capsys):
    published, new = root / "published.json", root / "new.json"
    monkeypatch.setattr(quoted, "PUBLISHED", published)
    monkeypatch.setattr(quoted, "fill", lambda result: None)  # which would write the pages of this checkout
    results.write(results.document(RUN), published)
    results.write(results.document(with_cases(RUN.group("memory")[:1], commit="def5678")), new)
    main(["publish", str(new)])
    assert {c.name for c in results.load(published).group("memory")} == {"1,000 idle"}
    assert len(results.load(published).cases) == len(RUN.cases) - 1
    assert "  memory: 10,000 idle: asyncio\n" in capsys.readouterr().out


def test_the_pages_of_this_checkout_are_in_line_with_the_published_result():
    assert quoted.stale(results.load(quoted.PUBLISHED)) == []


def test_a_page_belongs_to_sphinx_by_its_place_in_the_checkout_whatever_that_is_called(tmp_path):
    checkout = tmp_path / "docs"
    (checkout / "docs").mkdir(parents=True)
    (checkout / "README.md").touch()
    assert quoted.belongs_to_sphinx(checkout / "docs" / "index.md")
    assert not quoted.belongs_to_sphinx(checkout / "README.md")
