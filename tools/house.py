#!/usr/bin/env python3
"""Draws docs/figures/house.svg: the core's folders, their files, and their imports. Needs Python 3.11.

It reads the cimports. Run it when a file is added, or a layer imports from another one; tests/test_layers.py compares.
"""

import collections
import html
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / "iocpcore"
PICTURE = ROOT / "docs" / "figures" / "house.svg"
LAYERS = {  # from the top; each imports from those below only
    "iocpcore": "a worker, made of the layers; the Python objects",
    "ends": "handlers: what is done with a session's bytes",
    "stream": "TCP sessions and their listeners",
    "loop": "a worker's loop: it knows items, not sessions",
    "calls": "the Win32 calls, and ours on Linux",
}
EVERYBODYS = ("structs", "tuning")  # not drawn as imports: every layer imports them
WIDTH, LEFT, PILLS, ROW, GAP = 860, 20, 620, 26, 34
LETTER = 6.6  # the approximate width of a letter
STYLE = """text{font:12px sans-serif;fill:#222}.name{font-weight:bold;font-size:14px}.what{fill:#666}
.folder{fill:#f4f7fb;stroke:#8aa4c0}.file{fill:#fff;stroke:#b8c4d2}.arrow{fill:none;stroke:#5b7ea4}"""


def imports(file):
    return re.findall(r"^from (\w+) cimport ", file.read_text(encoding="utf-8"), re.MULTILINE)


def house():
    """{folder: names of its files}, and a count of cimports for each (folder, folder below)."""
    files = [file for file in sorted(CORE.rglob("*.p*")) if file.suffix in (".pxd", ".pyx")]
    folder_of = {file.stem: file.parent.name for file in files}
    folders = collections.defaultdict(list)
    edges = collections.Counter()
    for file in files:
        folders[file.parent.name].append(file.stem)
        for module in imports(file):
            target = folder_of.get(module, file.parent.name)
            if module not in EVERYBODYS and target != file.parent.name:
                edges[file.parent.name, target] += 1
    return folders, edges


def text(x, y, words, kind):
    return f'<text x="{x:.0f}" y="{y:.0f}" class="{kind}">{html.escape(words)}</text>'


def pills(names, top):
    """The files as boxes in rows: the SVG elements, and the number of rows."""
    drawn, x, rows = [], LEFT + 14, 1
    for name in names:
        width = len(name) * LETTER + 16
        if x + width > LEFT + PILLS - 10:
            x, rows = LEFT + 14, rows + 1
        y = top + (rows - 1) * ROW
        drawn.append(f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="20" rx="4" class="file"/>')
        drawn.append(text(x + 8, y + 14, name, "label"))
        x += width + 6
    return drawn, rows


def arrow(upper, lower, place, count):
    """An arrow from one folder to another, to the right of both."""
    x = LEFT + PILLS
    bend = x + 30 + 26 * place
    path = f"M{x} {upper:.0f} C{bend} {upper:.0f} {bend} {lower:.0f} {x + 6} {lower:.0f}"
    middle = x + (bend - x) * 0.75
    return [
        f'<path d="{path}" class="arrow" marker-end="url(#head)"/>',
        text(middle + 3, (upper + lower) / 2 + 4, str(count), "what"),
    ]


def picture():
    folders, edges = house()
    drawn, middles, top = [], {}, 14
    for folder, what in LAYERS.items():
        files, rows = pills(folders[folder], top + 32)
        height = 40 + rows * ROW
        drawn.append(f'<rect x="{LEFT}" y="{top}" width="{PILLS}" height="{height}" rx="8" class="folder"/>')
        drawn += [text(LEFT + 14, top + 21, f"{folder}/", "name"), text(LEFT + 110, top + 21, what, "what"), *files]
        middles[folder] = top + height / 2
        top += height + GAP
    order = list(LAYERS)
    for (upper, lower), count in sorted(edges.items(), key=lambda edge: order.index(edge[0][0])):
        place = order.index(lower) - order.index(upper)
        drawn += arrow(middles[upper] + 4 * place, middles[lower] - 4 * place, place, count)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}">',
            f"<style>{STYLE}</style>",
            '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"',
            ' orient="auto"><path d="M0 0L8 4L0 8z" fill="#5b7ea4"/></marker></defs>',
            f'<rect width="{WIDTH}" height="{top}" fill="#fff"/>',
            *drawn,
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
