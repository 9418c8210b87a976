"""The documentation: `make docs` builds it in build/docs, with warnings as errors."""

import re

from sphinx.util import logging

import iocpcore

project = "iocpcore"
author = "the iocpcore authors"
version = release = iocpcore.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "iocpcore"
html_copy_source = False
nitpicky = True
smartquotes = False  # what is quoted is often Python

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say what is taken, and in which unit
default_role = "literal"  # they put names in single backquotes


ITEM = re.compile(r"(?:- )?(?P<name>[a-z_]+)(?: (?P<unit>\([a-z]+\)))?:(?P<meaning> .*)")


def drop_signature(app, what, name, found, options, lines):
    """One that is longer than a line: autodoc knows it from the function, and leaves it in the text."""
    if lines and lines[0].startswith(f"{name.rpartition('.')[2]}("):
        del lines[: lines.index("") if "" in lines else len(lines)]


def list_attributes(app, what, name, found, options, lines):
    """What a class without arguments says of its attributes becomes an entry for each: in Cython, and in a dataclass,
    these have no docstring of their own."""
    if what != "class":
        return
    if found.__text_signature__ or (found.__doc__ or "").startswith(f"{found.__name__}("):
        return  # its list is of arguments
    shown = []
    for line in lines:
        item = ITEM.match(line)
        if item and hasattr(found, item["name"]):
            shown += ["", f".. attribute:: {item['name']}", "", "   " + (item["unit"] or "") + item["meaning"]]
        else:
            shown.append(line)
    lines[:] = shown


def public_names():
    """Of the module and of its classes, but for what these inherit."""
    for name in iocpcore.__all__:
        yield f"iocpcore.{name}"
        found = getattr(iocpcore, name)
        own = vars(found) if isinstance(found, type) else ()
        yield from (f"iocpcore.{name}.{attribute}" for attribute in own if not attribute.startswith("_"))


def check_complete(app, env):
    """An attribute without a docstring of its own, as Cython makes them, is nothing that autodoc would miss."""
    entries = env.get_domain("py").objects
    for name in sorted(set(public_names()) - entries.keys()):
        logging.getLogger(__name__).warning("%s is on no page", name)


def setup(app):
    app.connect("autodoc-process-docstring", list_attributes)
    app.connect("autodoc-process-docstring", drop_signature)
    app.connect("env-updated", check_complete)
    return {"parallel_read_safe": True}
