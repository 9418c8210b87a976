"""A case as people read it in a terminal."""
import statistics
import textwrap

KEYS = {
    "total_ns": "ns",
    "bytes_per_connection": "bytes",
    "kept_per_connection": "kept",
    "user_ns": "user",
    "system_ns": "system",
    "requests_per_s": "requests/s",
    "attaches_per_packet": "attaches",
    "p50_us": "p50 us",
    "p99_us": "p99 us",
    "p999_us": "p99.9 us",
}


MEANS = ("user_ns", "system_ns")  # split by timer ticks: exact only in the long run


def number(value):
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def row(case, name, base, others):
    main, ratio = case.servers[name].summary(case.figure), case.ratio(name)
    times = [f"{ratio.median:.3f}" if ratio else "-"] if base else []
    return [
        name,
        number(main.median),
        *times,
        number(main.low),
        number(main.high),
        *(number(middle(case.servers[name], key)) for key in others),
    ]


def middle(server, key):
    values = server.values(key)
    return values and (statistics.mean if key in MEANS else statistics.median)(values)


def base_of_all(case):
    """What the ratios are multiples of, or None where there are none."""
    names = {case.base_of(name) for name in case.servers} - {None}
    if not names:
        return None
    return "x raw C" if all(name.startswith("c-") for name in names) else "x its base"


def fitting(widths, room):
    """How many columns, from the first, a terminal has room for: those that matter most come first."""
    fit = len(widths)
    while room is not None and fit > 2 and sum(widths[:fit]) + 2 * fit > room:
        fit -= 1
    return fit


def lines(case, room=None):
    """Its table, in lines of at most so many columns; None: of any length."""
    # What none of these servers has is no column.
    others = [key for key in case.units if key != case.figure and any(s.values(key) for s in case.servers.values())]
    rounds = len(next(iter(case.servers.values())).rounds)
    base = base_of_all(case)
    header = ["", "median", *([base] if base else []), "min", "max", *(KEYS.get(key, key) for key in others)]
    table = [header, *(row(case, name, base, others) for name in case.servers)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    fit = fitting(widths, room)
    yield from wrapped(f"{case.name}: {case.units[case.figure]}, {rounds} round{'s' * (rounds > 1)}", room)
    for label, *cells in table:
        yield "  ".join(["", label.ljust(widths[0]), *map(str.rjust, cells[: fit - 1], widths[1:fit])]).rstrip()
    if fit < len(header):
        yield from wrapped(f"no room for {', '.join(header[fit:])}", room)


def wrapped(text, room):
    return textwrap.wrap(text, room) if room else [text]
