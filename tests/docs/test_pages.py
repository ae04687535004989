"""Pages whose code blocks are run, and whose printed lines are what is printed."""

import contextlib
import io
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.exact

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"```(python|text)\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize(
    "page",
    ["causes.md", "followers.md", "general_objectives.md", "own_problems.md", "separate_kernels.md", "tax_design.md"],
)
def test_code_prints_what_the_page_says(page):
    names = {"__name__": "page"}
    printed = ""
    for language, block in BLOCK.findall((DOCS / page).read_text(encoding="utf-8")):
        if language == "text":
            assert printed == block
            printed = ""
            continue
        assert printed == "", "code that prints, without a block that says what"
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(compile(block, page, "exec"), names)
        printed = said.getvalue()
