"""What the guest's Python prints when a build fails, turned into the author's line."""

from __future__ import annotations

from pathlib import Path

from pie_bakery.build.python import explained
from pie_bakery.build.toolchain import BuildFailed
from pie_bakery.errors import AuthorError

FOLDER = Path("/bot")


def test_the_deepest_line_of_the_author_is_named() -> None:
    """Frames of the entry, the SDK and vendored packages are not his."""
    error = explained(
        BuildFailed(
            'Traceback (most recent call last):\n  File "/0/pie_entry.py", line 7, in <module>\n'
            '  File "/1/main.py", line 3, in <module>\n  File "/2/inferlet/x.py", line 9, in y\n'
            "ImportError: cannot import name 'Modle' from 'inferlet' (/2/inferlet/__init__.py). "
            "Did you mean: 'Model'?"
        ),
        FOLDER,
    )
    assert "/bot/main.py:3: ImportError: cannot import name 'Modle' from 'inferlet'. " in str(error)


def test_an_import_inside_a_function_is_named_where_it_stands() -> None:
    """It is only tried while building, from the entry, which knows the place."""
    said = "Traceback ...\nImportError: bakery: tools/a.py:12: ModuleNotFoundError: No module 'x'"
    error = explained(BuildFailed(said), FOLDER)
    assert isinstance(error, AuthorError)
    assert (FOLDER / "tools/a.py", 12, "ModuleNotFoundError: No module 'x'") == (
        error.path,
        error.line,
        error.message,
    )


def test_what_is_not_the_authors_keeps_its_output() -> None:
    """A failure of the tool itself is shown as it is."""
    failure = BuildFailed("out of disk")
    assert failure is explained(failure, FOLDER)
    assert "out of disk" in str(failure)
