"""How Sphinx builds the documentation: ``make docs``."""

import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import generate  # noqa: E402

import memrl  # noqa: E402

project = "memrl"
author = "memrl contributors"
version = release = memrl.__version__
copyright = author

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = "memrl"
html_static_path: list[str] = []
html_show_copyright = False

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
add_module_names = False
copybutton_prompt_text = r"\$ "


def escape_stars(app, what, name, obj, options, lines: list[str]) -> None:
    """Keep shapes such as (B, *obs_shape) from being read as the beginning of an emphasis."""
    lines[:] = [re.sub(r"(?<=[(, ])\*(?=\w)", r"\\*", line) for line in lines]


def setup(app) -> None:
    """Write the generated pages before the others are read."""
    app.connect("builder-inited", lambda _: generate.write(HERE / "reference"))
    app.connect("autodoc-process-docstring", escape_stars)
