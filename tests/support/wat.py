"""Small components written as text: they build in a millisecond where a language takes seconds."""

from __future__ import annotations

MEMORY = """
  (core module $memory
    (memory (export "memory") 1)
    (global $next (mut i32) (i32.const 1024))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (local $start i32)
      (global.set $next
        (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
      (local.set $start (global.get $next))
      (global.set $next (i32.add (global.get $next) (local.get 3)))
      (local.get $start)))
  (core instance $memory (instantiate $memory))
"""

RUN = """
  (func (export "run") (param "input" string) (result (result string (error string)))
    (canon lift (core func $main "run")
      (memory $memory "memory") (realloc (func $memory "realloc"))))
"""

# A result of `run` at address 64: ok, the empty string.
OK_EMPTY = "(i64.store (i32.const 64) (i64.const 0)) (i32.const 64)"


def program(imports: str, body: str, core_imports: str = "", instances: str = "") -> str:
    """A component whose `run` has `body`; `core_imports` and `instances` bind what it calls."""
    return f"""(component {imports} {MEMORY}
      (core module $main
        (import "memory" "memory" (memory 1)) {core_imports}
        (func (export "run") (param i32 i32) (result i32) (local $i i32) (local $h i32) {body}))
      (core instance $main
        (instantiate $main (with "memory" (instance $memory)) {instances}))
      {RUN})"""


def importing(interface: str, function: str = "f") -> str:
    """A component that imports one function without parameters and calls it."""
    return program(
        f'(import "{interface}" (instance $host (export "{function}" (func))))'
        f'(core func $f (canon lower (func $host "{function}")))',
        f"(call $f) {OK_EMPTY}",
        '(import "host" "f" (func $f))',
        '(with "host" (instance (export "f" (func $f))))',
    )


THINGS = """
  (import "pie:test/things@0.1.0" (instance $host
    (export "thing" (type $thing (sub resource)))
    (export "[constructor]thing" (func (param "number" u32) (result (own $thing))))
    (export "[method]thing.value" (func (param "self" (borrow $thing)) (result u32)))
    (export "tick" (func))))
  (alias export $host "thing" (type $thing))
  (core func $new (canon lower (func $host "[constructor]thing")))
  (core func $value (canon lower (func $host "[method]thing.value")))
  (core func $tick (canon lower (func $host "tick")))
  (core func $drop (canon resource.drop $thing))
"""


def using_things(body: str) -> str:
    """A component that may call `$new`, `$value`, `$drop` and `$tick` of `pie:test/things`."""
    return program(
        THINGS,
        body,
        """(import "host" "new" (func $new (param i32) (result i32)))
           (import "host" "value" (func $value (param i32) (result i32)))
           (import "host" "drop" (func $drop (param i32)))
           (import "host" "tick" (func $tick))""",
        """(with "host" (instance (export "new" (func $new)) (export "value" (func $value))
             (export "drop" (func $drop)) (export "tick" (func $tick))))""",
    )


FILLING = f'(func (export "filling") {"nop " * 40_000})'
"""Makes a module worth keeping by itself."""


def with_library(number: int) -> str:
    """Tells the host its number through a module of code alone that all such programs have."""
    return f"""(component
      (import "pie:test/x@0.1.0" (instance $host (export "tell" (func (param "number" u32)))))
      (core func $tell (canon lower (func $host "tell")))
      {MEMORY}
      (core module $library
        (import "host" "tell" (func $tell (param i32)))
        (func (export "pass-on") (param i32) (call $tell (local.get 0)))
        {FILLING})
      (core instance $library
        (instantiate $library (with "host" (instance (export "tell" (func $tell))))))
      (core module $main
        (import "memory" "memory" (memory 1))
        (import "library" "pass-on" (func $pass-on (param i32)))
        (func (export "run") (param i32 i32) (result i32)
          (call $pass-on (i32.const {number})) {OK_EMPTY}))
      (core instance $main
        (instantiate $main (with "memory" (instance $memory)) (with "library" (instance $library))))
      {RUN})"""
