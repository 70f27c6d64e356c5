"""A program that does what its input says: `["action", argument, ...]`."""

import asyncio
import json
import os
import selectors
import sys
import time

import wit_world
from componentize_py_types import Err, Ok
from wit_world.imports import host

VALUES = {
    "bools": [True, False],
    "u8s": [0, 255],
    "u16s": [0, 65535],
    "u32s": [0, 2**32 - 1],
    "u64s": [0, 2**64 - 1],
    "s8s": [-128, 127],
    "s16s": [-(2**15), 2**15 - 1],
    "s32s": [-(2**31), 2**31 - 1],
    "s64s": [-(2**63), 2**63 - 1],
    "f32s": [0.0, -1.5, float("inf")],
    "f64s": [0.1, -1e300],
    "chars": ["a", "é", "😀"],
    "strings": ["", "plain", "naïve 😀 \0 end", "x" * 70_000],
    "blobs": [b"", bytes(range(256)) * 40],
    "tokens": [[], [0, 1, 2**32 - 1], list(range(5000))],
    "wide": [[], [-(2**63), 0, 2**63 - 1]],
    "floats": [[], [0.5, -0.25]],
    "names": [[], ["", "a", "ü" * 100]],
    "flagged": [[], [True, False, True]],
    "pairs": [[], [(1, "one"), (2, "")]],
    "points": [host.Point(0.5, "p")],
    "chunks": [
        host.Chunk([], "", []),
        host.Chunk([1, 2, 3], "abc", [(1, 0.5), (2, -0.5)]),
    ],
    "lists": [host.EmptyLists([], b"", []), host.EmptyLists(["a"], b"b", [[], [1, 2]])],
    "shapes": [
        [],
        [
            host.Shape_Circle(1.5),
            host.Shape_Named("n"),
            host.Shape_At(host.Point(1.0, "t")),
            host.Shape_Nothing(),
        ],
    ],
    "colors": [host.Color.RED, host.Color.DARK_GREEN],
    "permissions": [host.Rights(0), host.Rights.READ | host.Rights.WRITE_ALL],
    "maybe": [None, "", "some"],
    "maybe_point": [None, host.Point(2.0, "q")],
    "outcomes": [[None, Ok("fine"), Err(host.Error("busy", "later"))]],
}


def echo(name):
    for value in VALUES[name]:
        got = getattr(host, name)(value)
        if got != value:
            raise AssertionError(f"{name}: sent {value!r}, got {got!r}")
    return len(VALUES[name])


def echo_all(rounds):
    for _ in range(rounds):
        for name in VALUES:
            echo(name)
    return list(VALUES)


def refused(function, *arguments):
    try:
        return ["ok", repr(function(*arguments))]
    except Err as error:
        value = error.value
        return ["err", getattr(value, "code", None) or str(value), getattr(value, "message", "")]


def errors():
    return [
        refused(host.checked, 1),
        refused(host.checked, 99),
        refused(host.unit, False),
        refused(host.unit, True),
        refused(host.enum_error, True),
        refused(host.bare_error, True),
        refused(host.Counter.parse, "x"),
    ]


def resources():
    five = [host.Counter(number) for number in range(5)]
    total = list(host.sum(five))
    one = host.Counter(10)
    fork = one.fork()
    fork.increment(5)
    twin = one.twin()
    twin.increment(1)
    chosen = [
        host.chosen(one, None, None),
        host.chosen(one, fork, None),
        host.chosen(one, fork, twin),
    ]
    parsed = host.Counter.parse("7").increment(0)
    swallowed = host.swallow(host.Counter(3))
    host.adopt(host.Counter(4))
    return [total, one.increment(0), fork.increment(0), chosen, parsed, swallowed]


def keep_counters(number):
    kept = [host.Counter(index) for index in range(number)]
    return len(kept)


def stress(seconds):
    end = time.monotonic() + seconds
    rounds = 0
    while time.monotonic() < end:
        for name in VALUES:
            echo(name)
        if errors()[1] != ["err", "busy", "99 is refused"]:
            raise AssertionError("errors")
        if resources()[0] != [0, 1, 2, 3, 4]:
            raise AssertionError("resources")
        if host.next().tokens != list(range(16)):
            raise AssertionError("next")
        rounds += 1
    return rounds


def bench(which, number):
    data = bytes(65536)
    calls = {
        "loop": lambda: None,
        "u32": lambda: host.u32s(7),
        "string": lambda: host.strings("hello"),
        "result": lambda: host.checked(7),
        "record": host.next,
        "bytes 64 KiB": lambda: host.blobs(data),
        "string 64 KiB": lambda: host.strings(long),
    }
    long = "x" * 65536
    call = calls[which]
    start = time.monotonic()
    for _ in range(number):
        call()
    return (time.monotonic() - start) / number * 1e6


def spin():
    while True:
        pass


def hog():
    kept = []
    while True:
        kept.append(bytearray(1 << 20))


def deny_memory_forever():
    while True:
        try:
            bytearray(1 << 30)
        except MemoryError:
            pass


def deep(levels):
    return 0 if levels == 0 else 1 + deep(levels - 1)


def say(text):
    print(text, flush=True)
    print("err " + text, file=sys.stderr)


def write_long(size):
    sys.stdout.write("x" * size)
    sys.stdout.flush()


class SleepingSelector(selectors.SelectSelector):
    """Nothing to select on but the time: a component has no sockets."""

    def select(self, timeout=None):
        if timeout is None:
            raise RuntimeError("waits for nothing")
        time.sleep(max(timeout, 0))
        return []


class Loop(asyncio.SelectorEventLoop):
    def __init__(self):
        super().__init__(SleepingSelector())

    def _make_self_pipe(self):
        self._ssock = self._csock = None

    def _close_self_pipe(self):
        pass


def asleep(seconds):
    async def both():
        await asyncio.gather(asyncio.sleep(seconds), asyncio.sleep(seconds / 2))
        return "slept"

    with asyncio.Runner(loop_factory=Loop) as runner:
        return runner.run(both())


def system():
    found = {"random": len(set(os.urandom(16))) > 1, "time": time.time() > 1e9}
    found["environ"] = os.environ.get("PIE_TEST")
    found["stdin"] = sys.stdin.read()
    try:
        open("/etc/passwd").close()
    except OSError as error:
        found["file"] = type(error).__name__
    try:
        import socket

        socket.socket().connect(("127.0.0.1", 80))
    except OSError as error:
        found["socket"] = type(error).__name__
    return found


def fail():
    raise KeyError("no such key")


ACTIONS = {
    "asleep": asleep,
    "bench": bench,
    "blob": lambda size: len(host.blobs(bytes(size))),
    "deep": deep,
    "deny-memory": deny_memory_forever,
    "echo": echo,
    "echo-all": echo_all,
    "errors": errors,
    "exit": os._exit,
    "fail": fail,
    "hog": hog,
    "keep-counters": keep_counters,
    "many": lambda: host.many(1, "two", 3, [4, 5], True),
    "plain": host.plain,
    "receive": host.receive,
    "resources": resources,
    "return": lambda text: text,
    "say": say,
    "sleep": time.sleep,
    "spin": spin,
    "stress": stress,
    "system": system,
    "write-long": write_long,
}


class WitWorld(wit_world.WitWorld):
    def run(self, input: str) -> str:
        name, *arguments = json.loads(input)
        if name == "refuse":
            raise Err(arguments[0])
        return json.dumps(ACTIONS[name](*arguments))
