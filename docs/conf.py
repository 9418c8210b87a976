"""The documentation: `make docs` builds it in build/docs, with warnings as errors."""

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


def drop_signature(app, what, name, found, options, lines):
    """One that is longer than a line: autodoc knows it from the function, and leaves it in the text."""
    if lines and lines[0].startswith(f"{name.rpartition('.')[2]}("):
        del lines[: lines.index("") if "" in lines else len(lines)]


def setup(app):
    app.connect("autodoc-process-docstring", drop_signature)
    return {"parallel_read_safe": True}
