"""From a component's own types to converters, once per linked component."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from wasmtime import component as c

from pie_daemon.errors import PieError
from pie_daemon.host import abi_lists, abi_variants, ffi
from pie_daemon.host.abi_base import NUMBERS, SCALARS, Converter, kind_of
from pie_daemon.host.guest import current

_RESOURCE = kind_of("RESOURCE")
_kind_at = ctypes.c_uint64.from_address
_pointer_at = ctypes.c_uint64.from_address

HostType = Callable[[c.ResourceType], int]
"""The host's number of a resource type of the component."""


def _host_representation(context: int, any_resource: int) -> int:
    """The table name behind a handle. A borrow is consumed by this, as it must be."""
    out = ctypes.c_void_p()
    error = ffi.any_to_resource(context, any_resource, ctypes.addressof(out))
    if error:
        raise RuntimeError(ffi.take_error(error))
    rep: int = ffi.resource_rep(out.value)
    ffi.resource_delete(out.value)
    return rep


def borrow_converter() -> Converter:
    def lift(address: int, context: int) -> Any:
        rep = _host_representation(context, _pointer_at(address + ffi.PAYLOAD).value)
        return current().table.get(rep)

    def lower(value: Any, address: int, context: int) -> None:
        raise PieError("unsupported", "a host cannot lend a resource to a component")

    return Converter(lift, lower)


def own_converter(type_number: int) -> Converter:
    def lift(address: int, context: int) -> Any:
        rep = _host_representation(context, _pointer_at(address + ffi.PAYLOAD).value)
        return current().table.take(rep)

    def lower(value: Any, address: int, context: int) -> None:
        table = current().table
        rep = table.add(value)
        resource = ffi.resource_new(True, rep, type_number)
        out = ctypes.c_void_p()
        error = ffi.resource_to_any(context, resource, ctypes.addressof(out))
        ffi.resource_delete(resource)
        if error:
            table.drop(rep)
            raise RuntimeError(ffi.take_error(error))
        _pointer_at(address + ffi.PAYLOAD).value = out.value or 0
        _kind_at(address).value = _RESOURCE

    return Converter(lift, lower)


class TypeCompiler:
    """Builds converters; equal subtypes are built again, which costs little and shares nothing."""

    def __init__(self, host_type: HostType) -> None:
        self._host_type = host_type
        self._builders: dict[type, Callable[[Any], Converter]] = {
            c.ListType: self._list,
            c.RecordType: self._record,
            c.TupleType: lambda ty: abi_lists.tuple_converter(
                [self.compile(element) for element in ty.elements]
            ),
            c.VariantType: lambda ty: abi_variants.variant_converter(
                [(name, self.optional(payload)) for name, payload in ty.cases]
            ),
            c.EnumType: lambda ty: abi_variants.enum_converter(ty.names),
            c.OptionType: lambda ty: abi_variants.option_converter(self.compile(ty.payload)),
            c.ResultType: lambda ty: abi_variants.result_converter(
                self.optional(ty.ok), self.optional(ty.err)
            ),
            c.FlagsType: lambda ty: abi_variants.flags_converter(ty.names),
            c.OwnType: lambda ty: own_converter(self._host_type(ty.ty)),
            c.BorrowType: lambda ty: borrow_converter(),
        }

    def compile(self, ty: Any) -> Converter:
        scalar = SCALARS.get(type(ty))
        if scalar is not None:
            return scalar
        builder = self._builders.get(type(ty))
        if builder is None:
            raise PieError("unsupported", f"values of type {type(ty).__name__} cannot cross")
        return builder(ty)

    def optional(self, ty: Any) -> Converter | None:
        return None if ty is None else self.compile(ty)

    def _list(self, ty: c.ListType) -> Converter:
        element = ty.element
        if isinstance(element, c.U8):
            return abi_lists.bytes_converter()
        if type(element) in NUMBERS:
            return abi_lists.number_list_converter(type(element))
        return abi_lists.list_converter(self.compile(element))

    def _record(self, ty: c.RecordType) -> Converter:
        return abi_variants.record_converter(
            [(name, self.compile(field)) for name, field in ty.fields]
        )
