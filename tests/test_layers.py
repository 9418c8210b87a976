"""The core's folders are layers: a file imports from its own and from those below, and no step knows another."""

import re
import runpy
from pathlib import Path

import pytest

CORE = Path(__file__).parent.parent / "iocpcore"
pytestmark = pytest.mark.skipif(not CORE.exists(), reason="the sources of iocpcore are not here")

LAYERS = ["calls", "loop", "stream", "ends", "iocpcore"]  # the last: what puts them together, in the top folder
ALL = {"tuning", "structs"}  # numbers and data: every layer's
KINDS = {".pxd", ".pxi", ".pyx", ".h", ".c", ".py", ".diff"}
STEPS = {"accept", "connect", "receive", "send", "close"}
FILES = {file.stem: file for file in CORE.rglob("*.pxd")}
every_file = pytest.mark.parametrize("name", sorted(FILES))


def imports(name):
    """Of the core's other files."""
    text = FILES[name].read_text(encoding="utf-8")
    return {module for module in re.findall(r"^from (\w+) cimport ", text, re.MULTILINE) if module in FILES}


def layer(name):
    return LAYERS.index(FILES[name].parent.name)


@every_file
def test_a_file_imports_from_its_own_layer_and_from_those_below(name):
    if name not in ALL:
        assert [module for module in imports(name) - ALL if layer(module) > layer(name)] == []


@pytest.mark.parametrize("name", sorted(STEPS))
def test_a_step_knows_no_other_step(name):
    assert imports(name) & STEPS == set()


@every_file
def test_no_file_imports_itself_by_way_of_others(name):
    seen, new = set(), imports(name)
    while new:
        seen |= new
        new = set().union(*(imports(module) for module in new)) - seen
    assert name not in seen


def test_only_the_tuning_knows_of_the_simulated_build():
    asked = [file.name for file in CORE.rglob("*.*") if re.search("mutant|IOCPCORE_SIMULATED", file.read_text("utf-8"))]
    assert asked == ["tuning.h"]


@pytest.mark.parametrize("page", ["design.md", "lifetime.md"])
def test_the_functions_and_files_that_a_page_names_are_there(page):
    text = (CORE.parent / "docs" / page).read_text(encoding="utf-8")
    folders = [CORE, *(CORE.parent / name for name in ("tests", "tools", "python"))]
    sources = [file for folder in folders for file in folder.rglob("*.*") if file.suffix in KINDS]
    code = "".join(file.read_text(encoding="utf-8") for file in sources)
    named = set(re.findall(r"`(\w+)\(\)`", text)) - {"start_x", "on_x", "io_uring_enter"}
    assert [name for name in sorted(named) if not re.search(rf"\b{name}\(", code)] == []
    files = set(re.findall(r"`[\w/]*?(\w+\.(?:pxd|pxi|h|c|py|diff))`", text))
    assert files - {file.name for file in sources} == set()


def test_the_picture_of_the_folders_is_made_from_the_imports():
    tool = runpy.run_path(str(CORE.parent / "tools" / "house.py"))
    assert set(tool["LAYERS"]) == {file.parent.name for file in FILES.values()}
    assert tool["PICTURE"].read_text(encoding="utf-8") == tool["picture"](), "tools/house.py draws it anew"
