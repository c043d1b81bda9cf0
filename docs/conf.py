"""Sphinx: ``make docs`` builds the site from these pages into ``build/docs``."""

from __future__ import annotations

from importlib.metadata import version as installed

project = "vecstore"
copyright = "the vecstore authors"
author = "the vecstore authors"
release = installed("vecstore")
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "sphinx_copybutton",
]
source_suffix = {".md": "markdown"}
nitpicky = False
myst_enable_extensions = ["colon_fence", "deflist", "attrs_inline"]
myst_heading_anchors = 4
html_theme = "furo"
html_title = f"vecstore {release}"
html_copy_source = False
templates_path: list[str] = []
exclude_patterns: list[str] = []
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_google_docstring = False
napoleon_use_rtype = False
linkcheck_ignore = [r"https?://"]  # `make docs` needs no network; pages and anchors are checked
