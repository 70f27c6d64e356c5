"""One sample of every message; `python tests/support/wire_samples.py` writes the golden files.

A golden file is the promise of a released protocol version: it is added, never changed.
"""

from __future__ import annotations

from pathlib import Path

from pie_client import wire
from pie_client.codec import encode

GOLDEN = Path(__file__).resolve().parent.parent / "wire" / "golden"

_USAGE = wire.Usage(prompt_tokens=7, cached_tokens=4, generated_tokens=12, cpu_s=0.25, wall_s=1.5)
_OUTCOME = wire.Outcome(status="ok", result='{"text":"4"}', usage=_USAGE)
_INSTANCE = wire.InstanceInfo(
    id="9f3a",
    program="chat",
    digest="ab" * 32,
    username="ada",
    state="finished",
    started_at=1700000000.5,
    cpu_s=0.25,
    tokens=12,
    kv_pages=2,
    outcome=_OUTCOME,
)
_PROGRAM = wire.ProgramInfo(
    name="chat",
    namespace="ada",
    state="ready",
    version="0.1.0",
    description="A chat",
    digest="ab" * 32,
    size_bytes=1024,
    reason="the newer one is truncated",
    updated_at=1700000000.5,
    instances=3,
)
_BUDGETS = wire.Budgets(max_tokens_total=100, max_cpu_s=1.5, deadline_s=30.0, max_kv_pages=8)

REQUESTS: list[wire.Request] = [
    wire.Hello(versions=[1], client="golden", features=["blobs"], max_message_bytes=65536),
    wire.Ping(),
    wire.GetStatus(),
    wire.UploadBegin(sha256="ab" * 32, size=3, name="chat", stem="main", instance=None),
    wire.UploadChunk(upload="u1", offset=0, data=b"\x00a\xff"),
    wire.UploadCommit(upload="u1"),
    wire.UploadAbort(upload="u1"),
    wire.Launch(program="chat", input='{"prompt":"2+2"}', budgets=_BUDGETS, detached=True),
    wire.ListInstances(),
    wire.ListPrograms(),
    wire.Attach(instance="9f3a", after=5),
    wire.Detach(instance="9f3a"),
    wire.Ack(instance="9f3a", upto=6),
    wire.Terminate(instance="9f3a", reason="enough"),
    wire.Message(instance="9f3a", text="grüße"),
    wire.CloseInput(instance="9f3a"),
    wire.Bye(),
]
REPLIES: list[wire.Reply] = [
    wire.Welcome(
        version=1,
        server="pie 0.1.0",
        features=["blobs", "resume"],
        max_message_bytes=4194304,
        heartbeat_s=2.0,
        timeout_s=15.0,
        chunk_bytes=262144,
        credit=8,
        event_window_bytes=262144,
    ),
    wire.Pong(),
    wire.Status(
        server="pie 0.1.0",
        pid=42,
        started_at=1700000000.5,
        endpoints=["ipc:///run/pie/pie.sock"],
        sessions=1,
        instances=2,
        programs=3,
        detail={"models": {"default": {"pages": 64}}},
    ),
    wire.UploadReady(upload="u1", offset=0),
    wire.UploadProgress(offset=3),
    wire.Uploaded(program=_PROGRAM),
    wire.Launched(instance="9f3a", program="chat", digest="ab" * 32),
    wire.InstanceList(items=[_INSTANCE]),
    wire.ProgramList(items=[_PROGRAM]),
    wire.Attached(info=_INSTANCE, last_seq=9, next_seq=6),
    wire.Done(),
    wire.Error(code="not-found", message="no instance 9f3a", detail={"near": ["9f3b"]}),
    wire.Event(
        instance="9f3a", seq=6, kind="blob", name="image", data=b"\x89PNG", offset=4, size=8
    ),
    wire.Events(
        items=[
            wire.Event(instance="9f3a", seq=4, kind="message", data=b"Hel"),
            wire.Event(instance="77b0", seq=9, kind="message", data=b"lo"),
        ]
    ),
    wire.Heartbeat(),
    wire.Goodbye(reason="the daemon is stopping"),
]
# Whatever carries an id in these samples: large enough to use all bytes.
CORRELATION = 0x0102030405060708


def tag(message: wire.Request | wire.Reply | type[wire.Request | wire.Reply]) -> str:
    """The name of a message on the wire."""
    return str(message.__struct_config__.tag)


def golden_text(message: wire.Request | wire.Reply) -> str:
    """The frames in hexadecimal, one line each."""
    return "".join(frame.hex() + "\n" for frame in encode(message, CORRELATION))


def main() -> None:
    messages: list[wire.Request | wire.Reply] = [*REQUESTS, *REPLIES]
    for message in messages:
        path = GOLDEN / f"{tag(message)}.hex"
        if not path.exists():
            path.write_text(golden_text(message))


if __name__ == "__main__":
    main()
