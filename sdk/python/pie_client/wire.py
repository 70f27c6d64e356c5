"""The messages between clients and the daemon. `docs/protocol.md` is the authority.

Both sides use these types; `pie_client.codec` turns them into frames and back.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

PROTOCOL_VERSION: Final = 1
MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
"""The largest body that a side takes unless hello or welcome says otherwise."""

EVENTS_TOGETHER: Final = "events-together"
"""In `features` of a hello: this client takes `Events`."""

Name = Annotated[str, Meta(min_length=1, max_length=256)]
Text = Annotated[str, Meta(max_length=65536)]
InstanceId = Annotated[str, Meta(min_length=1, max_length=128)]
UploadId = Annotated[str, Meta(min_length=1, max_length=128)]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Positive = Annotated[int, Meta(gt=0, le=2**63 - 1)]
Seconds = Annotated[float, Meta(gt=0)]


class Part(msgspec.Struct, frozen=True, omit_defaults=True):
    """Base of what is part of a message."""


class Request(msgspec.Struct, frozen=True, tag_field="type", forbid_unknown_fields=True):
    """Base of what a client sends. The daemon refuses unknown fields by name."""


class Reply(msgspec.Struct, frozen=True, tag_field="type"):
    """Base of what the daemon sends. Clients ignore fields they do not know, so it may grow."""


# --- parts ------------------------------------------------------------------------------------


class Budgets(Part, frozen=True, forbid_unknown_fields=True):
    """Ceilings of one launch, children included; None: what the daemon grants."""

    max_tokens_total: Positive | None = None
    max_cpu_s: Seconds | None = None
    deadline_s: Seconds | None = None
    max_kv_pages: Positive | None = None


class Usage(Part, frozen=True):
    """What an instance has used."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    cpu_s: float = 0.0
    wall_s: float = 0.0


class Outcome(Part, frozen=True):
    """How an instance ended; `result` only when ok, `code` and `message` only when not."""

    status: Literal["ok", "error", "cancelled", "trapped", "exceeded"]
    result: str | None = None
    code: str | None = None
    message: str | None = None
    usage: Usage = Usage()


class InstanceInfo(Part, frozen=True):
    """One instance, running or lately finished."""

    id: str
    program: str
    digest: str
    username: str
    state: Literal["starting", "running", "finished"]
    started_at: float  # unix seconds
    cpu_s: float = 0.0
    tokens: int = 0
    kv_pages: int = 0
    outcome: Outcome | None = None


class ProgramInfo(Part, frozen=True):
    """One program; beside state `ready`, `reason` says why a newer candidate was rejected."""

    name: str
    namespace: str
    state: Literal["settling", "compiling", "ready", "rejected", "draining"]
    version: str | None = None
    description: str | None = None
    digest: str | None = None
    size_bytes: int | None = None
    reason: str | None = None
    updated_at: float = 0.0  # unix seconds
    instances: int = 0


# --- requests ---------------------------------------------------------------------------------


class Hello(Request, frozen=True, tag="hello"):
    versions: Annotated[list[int], Meta(min_length=1, max_length=32)]
    client: Annotated[str, Meta(max_length=256)] = ""
    features: Annotated[list[Name], Meta(max_length=64)] = []
    max_message_bytes: Annotated[int, Meta(ge=65536)] = MAX_MESSAGE_BYTES


class Ping(Request, frozen=True, tag="ping"):
    pass


class GetStatus(Request, frozen=True, tag="status"):
    pass


class UploadBegin(Request, frozen=True, tag="upload-begin"):
    """`instance` None: a program for the user's namespace; else a blob for that instance."""

    sha256: Sha256
    size: Count
    name: Name | None = None  # program: overrides its manifest; blob: its name
    stem: Name | None = None  # name of a program that has neither `name` nor a manifest
    instance: InstanceId | None = None


class UploadChunk(Request, frozen=True, tag="upload-chunk"):
    upload: UploadId
    offset: Count
    data: bytes


class UploadCommit(Request, frozen=True, tag="upload-commit"):
    upload: UploadId


class UploadAbort(Request, frozen=True, tag="upload-abort"):
    upload: UploadId


class Launch(Request, frozen=True, tag="launch"):
    program: Name
    input: str = "{}"
    budgets: Budgets = Budgets()
    detached: bool = False


class ListInstances(Request, frozen=True, tag="instances"):
    pass


class ListPrograms(Request, frozen=True, tag="programs"):
    pass


class Attach(Request, frozen=True, tag="attach"):
    instance: InstanceId
    after: Count = 0


class Detach(Request, frozen=True, tag="detach"):
    instance: InstanceId


class Ack(Request, frozen=True, tag="ack"):
    instance: InstanceId
    upto: Count


class Terminate(Request, frozen=True, tag="terminate"):
    instance: InstanceId
    reason: Text = ""


class Message(Request, frozen=True, tag="message"):
    instance: InstanceId
    text: str


class CloseInput(Request, frozen=True, tag="close-input"):
    instance: InstanceId


class Bye(Request, frozen=True, tag="bye"):
    pass


# --- replies and notices ----------------------------------------------------------------------


class Welcome(Reply, frozen=True, tag="welcome"):
    version: int
    server: str
    features: list[str]
    max_message_bytes: int
    heartbeat_s: float
    timeout_s: float
    chunk_bytes: int
    credit: int  # upload chunks that may be unanswered at a time
    event_window_bytes: int


class Pong(Reply, frozen=True, tag="pong"):
    pass


class Status(Reply, frozen=True, tag="status-report"):
    server: str
    pid: int
    started_at: float  # unix seconds
    endpoints: list[str]
    sessions: int
    instances: int
    programs: int
    detail: dict[str, Any] = {}


class UploadReady(Reply, frozen=True, tag="upload-ready"):
    upload: str
    offset: int


class UploadProgress(Reply, frozen=True, tag="upload-progress"):
    offset: int


class Uploaded(Reply, frozen=True, tag="uploaded"):
    program: ProgramInfo | None = None


class Launched(Reply, frozen=True, tag="launched"):
    instance: str
    program: str
    digest: str


class InstanceList(Reply, frozen=True, tag="instance-list"):
    items: list[InstanceInfo]


class ProgramList(Reply, frozen=True, tag="program-list"):
    items: list[ProgramInfo]


class Attached(Reply, frozen=True, tag="attached"):
    info: InstanceInfo
    last_seq: int
    next_seq: int | None = None  # the first event that follows; None: none is kept yet


class Done(Reply, frozen=True, tag="done"):
    pass


class Error(Reply, frozen=True, tag="error"):
    code: str
    message: str
    detail: dict[str, Any] = {}


class Event(Reply, frozen=True, tag="event", omit_defaults=True):
    """`data` is the piece at `offset` of `size` bytes; size None: the whole."""

    instance: str
    seq: int
    kind: Literal["stdout", "stderr", "log", "message", "blob", "outcome"]
    name: str = ""
    data: bytes = b""
    offset: int = 0
    size: int | None = None


class Events(Reply, frozen=True, tag="events"):
    """Of any instances, in their order; only to clients that take them, see `EVENTS_TOGETHER`."""

    items: list[Event]


class Heartbeat(Reply, frozen=True, tag="heartbeat"):
    pass


class Goodbye(Reply, frozen=True, tag="goodbye"):
    reason: str


AnyRequest = (
    Hello
    | Ping
    | GetStatus
    | UploadBegin
    | UploadChunk
    | UploadCommit
    | UploadAbort
    | Launch
    | ListInstances
    | ListPrograms
    | Attach
    | Detach
    | Ack
    | Terminate
    | Message
    | CloseInput
    | Bye
)
AnyReply = (
    Welcome
    | Pong
    | Status
    | UploadReady
    | UploadProgress
    | Uploaded
    | Launched
    | InstanceList
    | ProgramList
    | Attached
    | Done
    | Error
    | Event
    | Events
    | Heartbeat
    | Goodbye
)
