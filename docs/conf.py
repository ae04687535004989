"""Sphinx configuration: Markdown pages, numpy docstrings, warnings as errors (`make docs`)."""

from importlib.metadata import version as installed_version

project = "bilevelrl"
author = "The bilevelrl maintainers"
release = version = installed_version("bilevelrl")

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.intersphinx"]
myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3
numpydoc_show_class_members = False
autosummary_generate = False  # one-line summaries; the docstrings are the reference
autodoc_typehints = "none"  # shapes and units are in the docstrings
intersphinx_mapping: dict[str, tuple[str, None]] = {}  # offline builds

html_theme = "furo"
html_title = "bilevelrl"
exclude_patterns = ["examples"]
nitpicky = False
