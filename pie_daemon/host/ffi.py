"""wasmtime's C functions with plain integers for pointers.

Small helpers go through `PyDLL`: dropping the interpreter lock costs more than they do, and at 32
threads each drop is a context switch. What runs guest code or takes milliseconds goes through
`CDLL`, which frees the lock for everybody else.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import c_bool, c_char_p, c_int, c_size_t, c_ssize_t, c_uint32, c_uint64, c_void_p
from typing import Any

from wasmtime import _ffi as stock

_held = ctypes.PyDLL(str(stock.filename))
_freed = ctypes.CDLL(str(stock.filename))

VAL_SIZE = ctypes.sizeof(stock.wasmtime_component_val_t)
ENTRY_SIZE = ctypes.sizeof(stock.wasmtime_component_valrecord_entry_t)
PAYLOAD = 8  # offset of the union inside a value
ENTRY_VAL = 16  # offset of the value inside a record entry

FUNC_CALLBACK = ctypes.CFUNCTYPE(
    c_size_t, c_void_p, c_void_p, c_void_p, c_void_p, c_size_t, c_void_p, c_size_t
)
DESTRUCTOR = ctypes.CFUNCTYPE(c_size_t, c_void_p, c_void_p, c_uint32)
FINALIZER = ctypes.CFUNCTYPE(None, c_void_p)
EPOCH_CALLBACK = ctypes.CFUNCTYPE(c_size_t, c_void_p, c_void_p, c_void_p, c_void_p)
NO_FINALIZER = FINALIZER(0)


def _bind(dll: ctypes.CDLL, name: str, restype: Any, *argtypes: Any) -> Callable[..., Any]:
    function = getattr(dll, name)
    function.restype = restype
    function.argtypes = argtypes
    return function  # type: ignore[no-any-return]


def _helper(name: str, restype: Any, *argtypes: Any) -> Callable[..., Any]:
    return _bind(_held, name, restype, *argtypes)


def _long(name: str, restype: Any, *argtypes: Any) -> Callable[..., Any]:
    return _bind(_freed, name, restype, *argtypes)


byte_vec_new = _helper("wasm_byte_vec_new", None, c_void_p, c_size_t, c_char_p)
byte_vec_delete = _helper("wasm_byte_vec_delete", None, c_void_p)
list_new = _helper("wasmtime_component_vallist_new_uninit", None, c_void_p, c_size_t)
tuple_new = _helper("wasmtime_component_valtuple_new_uninit", None, c_void_p, c_size_t)
record_new = _helper("wasmtime_component_valrecord_new_uninit", None, c_void_p, c_size_t)
flags_new = _helper("wasmtime_component_valflags_new_uninit", None, c_void_p, c_size_t)
val_new = _helper("wasmtime_component_val_new", c_void_p, c_void_p)
val_clone = _helper("wasmtime_component_val_clone", None, c_void_p, c_void_p)
val_delete = _helper("wasmtime_component_val_delete", None, c_void_p)
error_new = _helper("wasmtime_error_new", c_void_p, c_char_p)
error_message = _helper("wasmtime_error_message", None, c_void_p, c_void_p)
error_delete = _helper("wasmtime_error_delete", None, c_void_p)

resource_new = _helper("wasmtime_component_resource_host_new", c_void_p, c_bool, c_uint32, c_uint32)
resource_rep = _helper("wasmtime_component_resource_host_rep", c_uint32, c_void_p)
resource_delete = _helper("wasmtime_component_resource_host_delete", None, c_void_p)
resource_to_any = _helper(
    "wasmtime_component_resource_host_to_any", c_void_p, c_void_p, c_void_p, c_void_p
)
any_to_resource = _helper(
    "wasmtime_component_resource_any_to_host", c_void_p, c_void_p, c_void_p, c_void_p
)

linker_new = _helper("wasmtime_component_linker_new", c_void_p, c_void_p)
linker_delete = _helper("wasmtime_component_linker_delete", None, c_void_p)
linker_root = _helper("wasmtime_component_linker_root", c_void_p, c_void_p)
instance_delete = _helper("wasmtime_component_linker_instance_delete", None, c_void_p)
instance_add_instance = _helper(
    "wasmtime_component_linker_instance_add_instance",
    c_void_p, c_void_p, c_char_p, c_size_t, c_void_p,
)  # fmt: skip
instance_add_module = _helper(
    "wasmtime_component_linker_instance_add_module",
    c_void_p, c_void_p, c_char_p, c_size_t, c_void_p,
)  # fmt: skip
instance_add_func = _helper(
    "wasmtime_component_linker_instance_add_func",
    c_void_p, c_void_p, c_char_p, c_size_t, FUNC_CALLBACK, c_void_p, FINALIZER,
)  # fmt: skip
instance_add_resource = _helper(
    "wasmtime_component_linker_instance_add_resource",
    c_void_p, c_void_p, c_char_p, c_size_t, c_void_p, DESTRUCTOR, c_void_p, FINALIZER,
)  # fmt: skip

store_new = _helper("wasmtime_store_new", c_void_p, c_void_p, c_void_p, c_void_p)
store_delete = _long("wasmtime_store_delete", None, c_void_p)
store_context = _helper("wasmtime_store_context", c_void_p, c_void_p)
store_limiter = _helper(
    "wasmtime_store_limiter",
    None, c_void_p, *(ctypes.c_int64,) * 5,
)  # fmt: skip
set_epoch_deadline = _helper("wasmtime_context_set_epoch_deadline", None, c_void_p, c_uint64)
epoch_callback = _helper(
    "wasmtime_store_epoch_deadline_callback", None, c_void_p, EPOCH_CALLBACK, c_void_p, FINALIZER
)
increment_epoch = _helper("wasmtime_engine_increment_epoch", None, c_void_p)

instantiate = _long(
    "wasmtime_component_linker_instantiate", c_void_p, c_void_p, c_void_p, c_void_p, c_void_p
)
func_call = _long(
    "wasmtime_component_func_call",
    c_void_p, c_void_p, c_void_p, c_void_p, c_size_t, c_void_p, c_size_t,
)  # fmt: skip
component_new = _long("wasmtime_component_new", c_void_p, c_void_p, c_char_p, c_size_t, c_void_p)
component_deserialize_file = _long(
    "wasmtime_component_deserialize_file", c_void_p, c_void_p, c_char_p, c_void_p
)
instance_get_export_index = _helper(
    "wasmtime_component_instance_get_export_index",
    c_void_p, c_void_p, c_void_p, c_void_p, c_char_p, c_size_t,
)  # fmt: skip
export_index_delete = _helper("wasmtime_component_export_index_delete", None, c_void_p)
instance_get_func = _helper(
    "wasmtime_component_instance_get_func", c_bool, c_void_p, c_void_p, c_void_p, c_void_p
)

string_at = ctypes.string_at
# (address, length) -> bytes with a 64-bit length, unlike `ctypes.string_at`.
bytes_at = ctypes.PYFUNCTYPE(ctypes.py_object, c_void_p, c_ssize_t)(
    ("PyBytes_FromStringAndSize", ctypes.pythonapi)
)
_view = ctypes.PYFUNCTYPE(ctypes.py_object, c_void_p, c_ssize_t, c_int)(
    ("PyMemoryView_FromMemory", ctypes.pythonapi)
)
_memset = ctypes.PYFUNCTYPE(c_void_p, c_void_p, c_int, c_size_t)(ctypes._memset_addr)  # type: ignore[attr-defined]
_PYBUF_WRITE = 0x200


def view(address: int, num_bytes: int) -> memoryview:
    """Writable bytes over foreign memory; the caller keeps the memory alive meanwhile."""
    return _view(address, num_bytes, _PYBUF_WRITE)  # type: ignore[no-any-return]


def zero(address: int, num_bytes: int) -> None:
    """All zeros is the value `false`, which may be dropped or overwritten freely."""
    _memset(address, 0, num_bytes)


class Bytes(ctypes.Structure):
    """`wasm_byte_vec_t` and every other (size, data) vector of the C API."""

    _fields_ = (("size", c_size_t), ("data", c_void_p))


def take_error(error: int) -> str:
    """The text of an error of the C API, which is freed."""
    text = Bytes()
    error_message(error, ctypes.addressof(text))
    message: bytes = bytes_at(text.data, text.size)
    byte_vec_delete(ctypes.addressof(text))
    error_delete(error)
    return message.decode("utf-8", "replace")


def address_of(pointer: Any) -> int:
    """The plain address inside one of the stock binding's typed pointers."""
    return ctypes.cast(pointer, c_void_p).value or 0
