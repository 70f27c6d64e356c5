"""Programs that run beside the model.

A program is a file `main.py` with a function `run(input)`; `bakery build` makes it a component.
"""

from inferlet import events, http, masks, messaging, runtime, session, storage, tools
from inferlet.adapter import Adapter
from inferlet.arguments import Arguments, generate_options
from inferlet.chat import Chat, Reply
from inferlet.constraint import Constraint
from inferlet.context import Context, GenerateOptions, SampleOptions, delete_saved, saved
from inferlet.errors import (
    AlreadyExists,
    Busy,
    Cancelled,
    Closed,
    Denied,
    Exhausted,
    Internal,
    Interrupted,
    InvalidArgument,
    NotFound,
    PieError,
    Quota,
    Timeout,
    Unsupported,
)
from inferlet.generation import Chunk, FinishReason, Generation, TokenLogprobs, Usage
from inferlet.model import Model, ModelInfo
from inferlet.passes import Answers, ForwardPass, Pass, Slot, submit
from inferlet.tool_calls import ToolCall, ToolCallParser

__version__ = "0.1.0"

__all__ = [
    "Adapter",
    "AlreadyExists",
    "Answers",
    "Arguments",
    "Busy",
    "Cancelled",
    "Chat",
    "Chunk",
    "Closed",
    "Constraint",
    "Context",
    "Denied",
    "Exhausted",
    "FinishReason",
    "ForwardPass",
    "GenerateOptions",
    "Generation",
    "Internal",
    "Interrupted",
    "InvalidArgument",
    "Model",
    "ModelInfo",
    "NotFound",
    "Pass",
    "PieError",
    "Quota",
    "Reply",
    "SampleOptions",
    "Slot",
    "Timeout",
    "TokenLogprobs",
    "ToolCall",
    "ToolCallParser",
    "Unsupported",
    "Usage",
    "delete_saved",
    "events",
    "generate_options",
    "http",
    "masks",
    "messaging",
    "runtime",
    "saved",
    "session",
    "storage",
    "submit",
    "tools",
]
