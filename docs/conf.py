"""Sphinx configuration: Markdown pages, numpy docstrings, warnings as errors (`make docs`)."""

import re
from importlib.metadata import version as installed_version
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert

project = "bilevelrl"
author = "The bilevelrl maintainers"
release = version = installed_version("bilevelrl")

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.viewcode",
]
myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3
numpydoc_show_class_members = False
autosummary_generate = True  # a page per name of names.md: its docstring, and a link to its source
autosummary_ignore_module_all = False
templates_path = ["_templates"]
autodoc_typehints = "none"  # shapes and units are in the docstrings
intersphinx_mapping: dict[str, tuple[str, None]] = {}  # offline builds

html_theme = "furo"
html_math_renderer = "mathml"
html_title = "bilevelrl"
html_show_copyright = False  # the licence is in the README
exclude_patterns = ["examples", "_templates"]
nitpicky = False


def inline_formula(self: Any, node: nodes.Node) -> None:
    """MathML, which browsers draw without a script from elsewhere."""
    self.body.append(convert(node.astext()))
    raise nodes.SkipNode


def displayed_formula(self: Any, node: nodes.Node) -> None:
    """The same on lines of its own."""
    formula = convert(re.sub(r"\\tag\{(\w+)\}", r"\\qquad (\1)", node.astext()), display="block")
    self.body.append(f'<div style="overflow: auto hidden">{formula}</div>')
    raise nodes.SkipNode


_EMPHASIS = re.compile(r"(`[^`]*`|\*\*\w[^*]*\w\*\*|\*\w[^*]*\w\*)|([|*])")


def plain_signs(app: object, what: str, name: str, found: object, options: object, lines: list[str]) -> None:
    """Docstrings are plain text: |x| is a size and V* a solution, not markup. Code, examples and *emphasis* stay."""
    example = False
    for place, line in enumerate(lines):
        example = line.lstrip().startswith((">>>", "...")) or (example and bool(line.strip()))
        if not example:
            lines[place] = _EMPHASIS.sub(lambda sign: sign[1] or f"\\{sign[2]}", line)


def setup(app: Any) -> None:
    """Join before numpydoc writes its own markup."""
    app.connect("autodoc-process-docstring", plain_signs, priority=100)
    app.add_html_math_renderer("mathml", (inline_formula, None), (displayed_formula, None))
