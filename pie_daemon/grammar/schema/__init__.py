"""JSON Schema in the part of it that can be enforced token by token.

llguidance reads a good part of JSON Schema and refuses the rest by name. What it refuses is said
here in other words: exactly where that is possible, otherwise more narrowly, never more widely. So
every text that comes out is valid, though not every valid text can come out.
"""

from pie_daemon.grammar.schema.lowering import lowered

__all__ = ["lowered"]
