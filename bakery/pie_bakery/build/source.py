"""Reads an author's Python files without running them: what is wrong, and what they import."""

from __future__ import annotations

import ast
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pie_bakery.errors import AuthorError

MAIN = "main.py"
VENDOR = "vendor"
_PROVIDED = frozenset({"inferlet", "wit_world", "componentize_py_types"})
_TOLERANT = frozenset({"ImportError", "ModuleNotFoundError", "Exception", "BaseException"})

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Import:
    """One module that some file imports; `optional` inside `try: ... except ImportError`."""

    module: str
    path: Path
    line: int
    optional: bool


def read(folder: Path) -> list[Import]:
    """Every import reachable from `main.py`; `AuthorError` at the first thing that is wrong."""
    main = folder / MAIN
    if not main.is_file():
        raise AuthorError("missing; an inferlet is a main.py with a function run(input)", main)
    _check_run(_parsed(main), main)
    imports: list[Import] = []
    seen: set[Path] = set()
    todo = [main]
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        for found in _imports(path, folder):
            imports.append(found)
            todo += _files(found, folder)
    return imports


def _parsed(path: Path) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            return ast.parse(path.read_bytes(), str(path))
    except SyntaxError as error:
        raise AuthorError(f"SyntaxError: {error.msg}", path, error.lineno) from None
    except ValueError as error:
        raise AuthorError(str(error), path) from None


def _check_run(tree: ast.Module, path: Path) -> None:
    found = [node for node in tree.body if "run" in _bound_names(node)]
    if not found:
        raise AuthorError("no function `run`; add `def run(input: dict) -> object:`", path)
    if isinstance(found[-1], Function):
        _check_signature(found[-1], path)


def _check_signature(node: Function, path: Path) -> None:
    if isinstance(node, ast.AsyncFunctionDef):
        message = "`run` must be a plain function; host calls block, so nothing needs async"
        raise AuthorError(message, path, node.lineno)
    positional = len(node.args.posonlyargs) + len(node.args.args)
    without_default = positional - len(node.args.defaults)
    named_only = sum(default is None for default in node.args.kw_defaults)
    if without_default > 1 or named_only:
        message = "`run` takes one argument, the decoded input: `def run(input: dict) -> object:`"
        raise AuthorError(message, path, node.lineno)


def _bound_names(node: ast.stmt) -> set[str]:
    """Names a top-level statement may define, those inside `if` and `try` included."""
    names = {n.name for n in ast.walk(node) if isinstance(n, Function) and n in _tops(node)}
    for inner in _tops(node):
        if isinstance(inner, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in inner.names}
        elif isinstance(inner, ast.Assign | ast.AnnAssign):
            targets = inner.targets if isinstance(inner, ast.Assign) else [inner.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def _tops(node: ast.stmt) -> Iterator[ast.stmt]:
    """The statement and those nested in it, without entering functions and classes."""
    yield node
    if isinstance(node, Function | ast.ClassDef):
        return
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt):
            yield from _tops(child)
        elif isinstance(child, ast.ExceptHandler):
            for inner in child.body:
                yield from _tops(inner)


def _imports(path: Path, folder: Path) -> Iterator[Import]:
    tree = _parsed(path)
    vendored = (folder / VENDOR) in path.parents
    optional_lines = _tolerated(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        optional = vendored or id(node) in optional_lines
        for module in _modules(node, path, folder):
            found = Import(module, path, node.lineno, optional)
            _check_known(found, folder)
            yield found


def _tolerated(tree: ast.Module) -> set[int]:
    """Import statements whose failure the author expects, or that never run."""
    tolerated: set[int] = set()
    for node in ast.walk(tree):
        body: list[ast.stmt] = []
        if isinstance(node, ast.Try) and any(map(_catches_import_error, node.handlers)):
            body = node.body
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            body = node.body
        tolerated |= {id(inner) for statement in body for inner in ast.walk(statement)}
    return tolerated


def _catches_import_error(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    names = {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)}
    return bool(names & _TOLERANT)


def _modules(node: ast.Import | ast.ImportFrom, path: Path, folder: Path) -> list[str]:
    """Absolute names; of `from a import b`, `a.b` too where that is a file."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    if node.level:
        base = ".".join([*_package(path, folder, node.level), *filter(None, [base])])
    inner = [f"{base}.{alias.name}".lstrip(".") for alias in node.names]
    return [*filter(None, [base]), *(name for name in inner if _file(name, folder))]


def _package(path: Path, folder: Path, level: int) -> tuple[str, ...]:
    root = folder / VENDOR if (folder / VENDOR) in path.parents else folder
    parts = path.relative_to(root).parent.parts
    return parts[: len(parts) - level + 1]


def _check_known(found: Import, folder: Path) -> None:
    top = found.module.partition(".")[0]
    if found.optional or top in _PROVIDED or top in sys.stdlib_module_names:
        return
    if _file(top, folder) is None and not _is_namespace(top, folder):
        raise AuthorError(
            f"no module named `{top}`; an inferlet sees its own folder, `inferlet` and the "
            f"standard library. A pure Python package goes into {VENDOR}/: "
            f"pip install --target {VENDOR} {top}",
            found.path,
            found.line,
        )


def _is_namespace(name: str, folder: Path) -> bool:
    return any((root / name).is_dir() for root in (folder, folder / VENDOR))


def _files(found: Import, folder: Path) -> list[Path]:
    """The author's files that importing it would run: the module and its parent packages."""
    parts = found.module.split(".")
    names = [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
    return [path for name in names if (path := _file(name, folder)) is not None]


def _file(module: str, folder: Path) -> Path | None:
    relative = Path(*module.split("."))
    for root in (folder, folder / VENDOR):
        for candidate in (root / relative / "__init__.py", root / relative.with_suffix(".py")):
            if candidate.is_file():
                return candidate
    return None
