"""Calls every function of `http` and `tools` and says what came back.

Given `web`, the url of the tests' web server, and the tests' MCP server as `test`, the result is

    {"http":  {"hello": true, "posted": true, "both": 2, "status": 404, "slow": "timeout",
               "denied": "denied", "refused": "invalid-argument", "unfinished": true},
     "tools": {"servers": ["test"], "listed": true, "sum": 5, "both": 2, "failed": true,
               "asked": true, "denied": "denied", "unfinished": true}}

With `leave` it ends by a trap while a request and a call are under way; with `child` it launches
itself with that input.
"""

from collections.abc import Callable
from typing import Any

from inferlet import PieError, ToolCall, events, http, runtime, session, tools


def run(input: dict[str, Any]) -> Any:
    if "child" in input:
        return outcome_of(runtime.launch("guest-outside", input["child"]))
    if "leave" in input:
        return leave(input["web"])
    return {"http": about_http(input["web"]), "tools": about_tools()}


def outcome_of(child: runtime.Child) -> Any:
    try:
        return child.result()
    except PieError as error:
        return [error.code, error.message]


def leave(web: str) -> None:
    left = [http.start("GET", f"{web}/hang"), tools.start("test", "hang")]
    session.send("leaving")
    session.receive()
    raise SystemExit(len(left))


def code_of(function: Callable[..., Any], *args: Any, **options: Any) -> str:
    """The code of the error that the call raises."""
    try:
        function(*args, **options)
    except PieError as error:
        return error.code
    return "ok"


def about_http(web: str) -> dict[str, Any]:
    hello = http.fetch(web)
    posted = http.post(f"{web}/status/201", json={"a": 1}, headers={"x-a": "b"}, timeout_s=60)
    under_way = [http.start("GET", f"{web}/status/{status}") for status in (200, 404)]
    both = [http.get(f"{web}/").status, *[one.response().status for one in until_all(under_way)]]
    unfinished = http.start("GET", f"{web}/hang")
    late = events.wait_any([unfinished], timeout_s=0.01)
    unfinished.close()
    return {
        "hello": hello.ok and hello.json() == {"hello": "world"} and hello.header("Server") != "",
        "posted": (posted.status, posted.text) == (201, "so it is"),
        "both": len(both) - 1,
        "status": max(both),
        "slow": code_of(http.get, f"{web}/hang", timeout_s=0.05),
        "denied": code_of(http.get, "https://example.com"),
        "refused": code_of(http.get, web, headers={"a": "b\r\nc: d"}),
        "unfinished": late == [] and code_of(posted.raise_for_status) == "ok",
    }


def until_all(items: list[Any]) -> list[Any]:
    """In the order in which they became ready."""
    left, done = list(items), []
    while left:
        ready = events.wait_any(left)
        done += ready
        left = [item for item in left if item not in ready]
    return done


def about_tools() -> dict[str, Any]:
    listed = tools.list_tools()
    add = next(tool for tool in listed if tool.name == "add")
    both = until_all([tools.start("test", "add", {"a": n, "b": n}) for n in (1, 2)])
    failed = tools.call("test", "fail", {"reason": "no paper"})
    unfinished = tools.start("test", "hang")
    late = events.wait_any([unfinished], timeout_s=0.01)
    unfinished.close()
    return {
        "servers": tools.servers(),
        "listed": listed == tools.list_tools("test") and add.openai()["function"]["name"] == "add",
        "sum": tools.call("test", "add", {"a": 2, "b": 3}).structured["result"],
        "both": sum(one.result().structured["result"] for one in both) // 3,
        "failed": failed.is_error and "no paper" in failed.text,
        "asked": tools.call_as_asked(ToolCall("1", "add", {"a": 1, "b": 1}), listed).text == "2"
        and code_of(tools.call_as_asked, ToolCall("1", "sub", {}), listed) == "not-found",
        "denied": code_of(tools.call, "other", "add"),
        "unfinished": late == [] and "a" in add.parameters["properties"],
    }
