"""Mistakes in an author's Python, found without running it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pie_bakery.build.source import read
from pie_bakery.errors import AuthorError

Write = Callable[[dict[str, str]], Path]
RUN = "def run(input):\n    return 1\n"


def refusal(folder: Path) -> tuple[str, int | None, str]:
    with pytest.raises(AuthorError) as caught:
        read(folder)
    return caught.value.path.name, caught.value.line, caught.value.message


@pytest.mark.parametrize(
    ("source", "line", "message"),
    [
        ("def run(input):\n    x = (1\n", 2, "SyntaxError: '(' was never closed"),
        ("\n\nasync def run(input): ...", 3, "`run` must be a plain function"),
        ("def main(): ...", None, "no function `run`"),
        ("class A:\n    def run(self): ...", None, "no function `run`"),
        ("def run(a, b): ...", 1, "`run` takes one argument"),
        ("def run(a, *, b): ...", 1, "`run` takes one argument"),
        (f"{RUN}import requests", 3, "no module named `requests`"),
        ("def run(input):\n    from numpy import array\n", 2, "no module named `numpy`"),
        ("\0", None, "null byte"),
    ],
)
def test_a_mistake_is_told_at_its_line(
    write: Write, source: str, line: int | None, message: str
) -> None:
    """The author's file and line, and what to do."""
    name, at, said = refusal(write({"main.py": source}))
    assert ("main.py", line) == (name, at)
    assert message in said


def test_a_folder_without_main_says_what_an_inferlet_is(write: Write) -> None:
    """The first mistake one makes."""
    assert "an inferlet is a main.py with a function run(input)" in refusal(write({}))[2]


@pytest.mark.parametrize(
    "source",
    [
        RUN,
        "def run(): return 1",
        "def run(input, extra=1, *, more=2): ...",
        "run = lambda input: 1",
        "from helper import run",
        "if True:\n    def run(input): ...\nelse:\n    run = None",
        "try:\n    import numpy\nexcept ImportError:\n    numpy = None\n" + RUN,
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import numpy\n" + RUN,
        "import inferlet, json, os.path\n" + RUN,
    ],
)
def test_what_is_allowed_passes(write: Write, source: str) -> None:
    """`run` may come from anywhere; what an author catches himself is his business."""
    read(write({"main.py": source, "helper.py": RUN}))


def test_imports_are_found_wherever_they_hide(write: Write) -> None:
    """In functions, in other files and in packages, relative ones too: each is loaded at build."""
    folder = write(
        {
            "main.py": "from tools import calc\ndef run(input):\n    import decimal\n",
            "tools/__init__.py": "",
            "tools/calc.py": "from . import words\nfrom .words import say\n",
            "tools/words.py": "def say():\n    import fractions\n",
            "unused.py": "import nonsense",
        }
    )
    found = {found.module for found in read(folder)}
    assert {"tools", "tools.calc", "tools.words", "decimal", "fractions"} == found


def test_a_mistake_in_another_file_is_told_there(write: Write) -> None:
    """Not at the import that led to it."""
    folder = write({"main.py": "import helper\n" + RUN, "helper.py": "import a\nx ="})
    assert ("helper.py", 2) == refusal(folder)[:2]


def test_packages_in_vendor_may_miss_what_they_like(write: Write) -> None:
    """Other people's optional imports are no mistake of the author."""
    folder = write({"main.py": "import lib\n" + RUN, "vendor/lib.py": "import numpy\n"})
    assert {"lib": False, "numpy": True} == {one.module: one.optional for one in read(folder)}
