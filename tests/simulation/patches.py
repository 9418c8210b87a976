"""Patches of the core's sources for the simulation: deliberate faults (mutants.diff) and measurements (probes.diff).

A patch file has hunks. `@ FILE` begins one; the lines that follow begin with a blank (context), a minus (taken out) or
a plus (put in). Context and what is taken out are the hunk's old lines. They must stand in FILE exactly once: else
PatchError is raised, so that a fault never gets lost when the core changes. A hunk without old lines is an import for
the other hunks: it goes to the top of its file. `== NAME: description` names the fault of the hunks below it; `#`
begins a comment.
"""

import re
from pathlib import Path

HERE = Path(__file__).resolve().parent
MUTANTS = HERE / "mutants.diff"
PROBES = HERE / "probes.diff"
FIRST_IMPORT = re.compile(r"^from .* cimport ", re.MULTILINE)
MUTANT = '''# Which fault is active: made from mutants.diff.
cdef extern from "simulated.h" nogil:
    unsigned int active_fault "sim_mutant"

cdef enum Mutant:
    {names}

cdef inline bint mutant(Mutant fault) noexcept nogil:
    return active_fault == fault
'''


class PatchError(Exception):
    """A hunk does not fit its file. The message says which hunk, and why."""


def faults():
    """{name: description}, in the order of the file; the first fault has number 1."""
    described = re.findall(r"^== ([A-Z_]+): (.*)$", MUTANTS.read_text(encoding="utf-8"), re.MULTILINE)
    added = "".join(new for _, _, new in hunks(MUTANTS))
    for name, _ in described:
        if f"mutant({name})" not in added:
            raise PatchError(f"{MUTANTS.name}: no hunk asks for {name}")
    return dict(described)


def hunks(patch):
    """The hunks of a patch file: (file, old text, new text)."""
    for part in re.split(r"^@ ", patch.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        file, *lines = part.splitlines()
        lines = [line for line in lines if line[:1] in (" ", "-", "+")]
        yield file, text(lines, " -"), text(lines, " +")


def text(lines, kinds):
    return "".join(line[1:] + "\n" for line in lines if line[0] in kinds)


def put_on_top(code, imports):
    at = FIRST_IMPORT.search(code).start()
    return code[:at] + imports + code[at:]


def apply(code, old, new):
    if not old:
        return put_on_top(code, new)
    found = len(re.findall(rf"^{re.escape(old)}", code, re.MULTILINE))
    if found != 1:
        raise PatchError(f"these lines stand in the file {found} times, not once:\n{old}")
    if old == new:
        raise PatchError(f"this hunk changes nothing:\n{old}")
    return re.sub(rf"^{re.escape(old)}", lambda _: new, code, count=1, flags=re.MULTILINE)


def patched(core):
    """The core's patched Cython sources: {path below `core`: text}. Included files have the imports of _core.pyx."""
    sources = {file.relative_to(core).as_posix(): file.read_text(encoding="utf-8") for file in core.rglob("*.p*")}
    for patch in (PROBES, MUTANTS):
        for file, old, new in hunks(patch):
            try:
                sources[file] = apply(sources[file], old, new)
            except PatchError as error:
                raise PatchError(f"{patch.name}, {file}: {error}") from None
    for file, code in sources.items():
        if file == "_core.pyx" or ("mutant(" in code and file.endswith(".pxd")):
            sources[file] = put_on_top(code, "from mutant cimport *\n")
    sources["mutant.pxd"] = MUTANT.format(names="\n    ".join(["NO_FAULT", *faults()]))
    return sources
