"""The component-model border: Python functions as imports of a component.

    class Counter:
        def __init__(self, start: int) -> None: ...   # [constructor]counter
        def increment(self, by: int) -> int: ...      # [method]counter.increment
        @staticmethod
        def parse(text: str) -> Counter:              # [static]counter.parse
            raise PieError("invalid-argument", "not a number")
        def close(self) -> None: ...                  # last name and hold are gone

    def greet(name: str | None) -> str:               # greet: func(name: option<string>) -> string
        return f"{current().context.program} greets {name}"

    INTERFACE = Interface(
        "pie:example/counting@0.1.0",
        functions={"greet": greet},
        resources={"counter": Counter},
    )
    linker = build_linker(engine, [INTERFACE, *wasi.INTERFACES], component)

Arguments come positionally, in these shapes; results go back in the same:
numbers, bool, str; `list<u8>` bytes; `list<T>` list; record a named tuple (a result may be any
object with the attributes, or a dict); variant `(case, payload)`; enum str; flags frozenset;
option None or the value; tuple tuple; own and borrowed handles the Python objects themselves.
A function whose WIT result is `result<T, error>` returns T or raises `PieError`; with another
error type it raises `ResultError(payload)`. A result nested in another value is `("ok", value)` or
`("err", error)`. Any other exception is reported to `Guest.on_failure` and ends the program.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from wasmtime import component as c

from pie_daemon.errors import PieError
from pie_daemon.host import ffi
from pie_daemon.host.abi_base import ResultError
from pie_daemon.host.abi_calls import callback, destructor
from pie_daemon.host.abi_types import TypeCompiler
from pie_daemon.host.abi_variants import python_name
from pie_daemon.host.abi_versions import parse_name, satisfies
from pie_daemon.host.apart import is_library
from pie_daemon.host.engine import Engine
from pie_daemon.host.libraries import Libraries

__all__ = ["Interface", "Linker", "ResultError", "build_linker", "unknown_imports"]


@dataclass(frozen=True)
class Interface:
    """The host side of one WIT interface; names are written as in WIT.

    Methods of a resource are found on its class (kebab-case becomes snake_case), a constructor is
    the class itself; an entry in `functions` under the full name (`[method]counter.increment`)
    comes first.
    """

    name: str
    functions: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    resources: Mapping[str, type] = field(default_factory=dict)

    def find(self, name: str) -> Callable[..., Any] | None:
        if name in self.functions:
            return self.functions[name]
        if not name.startswith("["):
            return None
        kind, _, path = name[1:].partition("]")
        resource, _, method = path.partition(".")
        cls = self.resources.get(resource)
        if cls is None or kind == "constructor":
            return cls
        return getattr(cls, python_name(method), None)


class Linker:
    """The imports of one component, ready to instantiate it any number of times on any thread.

    Whoever runs an instance keeps a reference: wasmtime calls into functions that live here.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.pointer: int = ffi.linker_new(engine.pointer)
        self._kept: list[Any] = []

    def keep(self, *values: Any) -> None:
        self._kept.extend(values)

    def __del__(self) -> None:
        ffi.linker_delete(self.pointer)


_type_numbers: dict[str, int] = {}
_type_numbers_lock = threading.Lock()


def _type_number(name: str) -> int:
    """One number per resource of the host, the same in every linker."""
    with _type_numbers_lock:
        return _type_numbers.setdefault(name, len(_type_numbers) + 1)


@dataclass
class _Import:
    name: str
    interface: Interface
    items: dict[str, Any]  # WIT name -> its type


def _exports_of(extern: Any, engine: Engine) -> dict[str, Any] | None:
    ty = extern.ty
    if not isinstance(ty, c.ComponentInstanceType):
        return None
    return {name: item.ty for name, item in ty.exports(engine.stock).items()}


def _match(
    component: c.Component, engine: Engine, interfaces: Iterable[Interface]
) -> tuple[list[_Import], list[str]]:
    """The imports that an interface serves, and the names of those that none does."""
    offered = list(interfaces)
    found, unknown = [], []
    for name, extern in component.type.imports(engine.stock).items():
        if is_library(name):
            continue
        items = _exports_of(extern, engine)
        interface = next((i for i in offered if satisfies(i.name, name)), None)
        if interface is None or items is None:
            # An interface of types alone needs no implementation.
            if items is None or any(
                isinstance(i, c.FuncType | c.ResourceType) for i in items.values()
            ):
                unknown.append(name)
            continue
        found.append(_Import(name, interface, items))
    return found, unknown


class _Resources:
    """Which resource types of the component are which resources of the host."""

    def __init__(self, imports: Iterable[_Import]) -> None:
        self._known: list[tuple[c.ResourceType, str]] = []
        for one in imports:
            path = parse_name(one.interface.name).path
            for name, ty in one.items.items():
                if isinstance(ty, c.ResourceType) and name in one.interface.resources:
                    self._known.append((ty, f"{path}#{name}"))

    def find(self, ty: c.ResourceType) -> str | None:
        return next((name for known, name in self._known if known == ty), None)

    def number(self, ty: c.ResourceType) -> int:
        name = self.find(ty)
        return 0 if name is None else _type_number(name)


def _missing(imports: Iterable[_Import], resources: _Resources) -> list[str]:
    missing = []
    for one in imports:
        for name, ty in one.items.items():
            is_missing = (isinstance(ty, c.FuncType) and one.interface.find(name) is None) or (
                isinstance(ty, c.ResourceType) and resources.find(ty) is None
            )
            if is_missing:
                missing.append(f"{one.name}#{name}")
    return missing


def unknown_imports(names: Iterable[str], interfaces: Iterable[Interface]) -> list[str]:
    """Imported interfaces that no host interface serves, judged by name and version alone."""
    offered = [interface.name for interface in interfaces]
    return [name for name in names if not any(satisfies(host, name) for host in offered)]


def build_linker(
    engine: Engine,
    interfaces: Iterable[Interface],
    component: c.Component,
    libraries: Libraries | None = None,
) -> Linker:
    """Defines every import of the component; `invalid-argument` names those it cannot.

    `libraries`: of what was compiled apart."""
    imports, unknown = _match(component, engine, interfaces)
    resources = _Resources(imports)
    unknown += _missing(imports, resources)
    if unknown:
        raise PieError(
            "invalid-argument",
            "the component imports what this host does not offer: " + ", ".join(sorted(unknown)),
        )
    linker = Linker(engine)
    compiler = TypeCompiler(resources.number)
    root = ffi.linker_root(linker.pointer)
    try:
        for one in imports:
            _define(linker, root, one, resources, compiler)
        if libraries is not None:
            _define_libraries(linker, root, component, libraries)
    finally:
        ffi.instance_delete(root)
    return linker


def _define(
    linker: Linker, root: int, one: _Import, resources: _Resources, compiler: TypeCompiler
) -> None:
    name = one.name.encode()
    out = ctypes.c_void_p()
    _ok(ffi.instance_add_instance(root, name, len(name), ctypes.addressof(out)))
    try:
        for item, ty in one.items.items():
            if isinstance(ty, c.ResourceType):
                _define_resource(linker, out.value, item, resources.number(ty))
            elif isinstance(ty, c.FuncType):
                function = one.interface.find(item)
                assert function is not None  # `_missing` looked
                where = f"{parse_name(one.name).path}#{item}"
                pointer = callback(where, function, ty, compiler)
                linker.keep(pointer)
                name = item.encode()
                _ok(
                    ffi.instance_add_func(
                        out.value, name, len(name), pointer, None, ffi.NO_FINALIZER
                    )
                )
    finally:
        ffi.instance_delete(out.value)


def _define_libraries(
    linker: Linker, root: int, component: c.Component, libraries: Libraries
) -> None:
    for name in filter(is_library, component.type.imports(linker.engine.stock)):
        module = libraries.load(name)
        linker.keep(module)
        encoded = name.encode()
        pointer = ffi.address_of(module.ptr())
        _ok(ffi.instance_add_module(root, encoded, len(encoded), pointer))


def _define_resource(linker: Linker, instance: int | None, item: str, number: int) -> None:
    ty = c.ResourceType.host(number)
    linker.keep(ty)
    name = item.encode()
    _ok(
        ffi.instance_add_resource(
            instance, name, len(name), ffi.address_of(ty.ptr()), destructor, None, ffi.NO_FINALIZER
        )
    )


def _ok(error: int | None) -> None:
    if error:
        raise PieError("internal", ffi.take_error(error))
