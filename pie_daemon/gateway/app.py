"""The routes: from a request to its answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import structlog
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from pie_daemon.gateway.access import Access
from pie_daemon.gateway.body import read_body
from pie_daemon.gateway.catalogue import Catalogue
from pie_daemon.gateway.config import GatewayConfig
from pie_daemon.gateway.errors import ApiError
from pie_daemon.gateway.exchange import COMMENT, DONE, Exchange, event
from pie_daemon.gateway.following import ClientGone, Group, Launcher, Limits
from pie_daemon.gateway.replies import Replies, replies
from pie_daemon.gateway.request import Ask, parse_chat, parse_completion
from pie_daemon.tasks import Tasks

Parse = Callable[[bytes, int], Ask]
_log = structlog.get_logger()


@dataclass
class Front:
    """What the routes share."""

    config: GatewayConfig
    access: Access
    catalogue: Catalogue
    launcher: Launcher
    draining: bool = False
    num_requests: int = 0
    """That run right now."""

    def admit(self, scope: Scope) -> str:
        """The user; ApiError when nothing is served now, or not to this one."""
        if scope["state"].get("surplus"):
            most = self.config.max_connections
            raise ApiError(503, f"more than gateway.max_connections={most} are open", again=True)
        user = self.access.user(Headers(scope=scope))
        if self.draining:
            raise ApiError(503, "the daemon is shutting down", code="closed", again=True)
        return user


def make_app(front: Front) -> Starlette:
    async def health(request: Request) -> Response:
        status = "draining" if front.draining else "ok"
        return JSONResponse({"status": status}, 503 if front.draining else 200)

    async def models(request: Request) -> Response:
        user = front.admit(request.scope)
        return JSONResponse({"object": "list", "data": front.catalogue.listed(user)})

    async def model(request: Request) -> Response:
        user = front.admit(request.scope)
        return JSONResponse(front.catalogue.entry(unquote(request.path_params["name"]), user))

    routes = [
        Route("/health", health, methods=["GET"]),
        Route("/v1/models", models, methods=["GET"]),
        Route("/v1/models/{name:path}", model, methods=["GET"]),
        Route("/v1/chat/completions", Answering(front, parse_chat), methods=["POST"]),
        Route("/v1/completions", Answering(front, parse_completion), methods=["POST"]),
    ]
    handlers: dict[Any, Any] = {ApiError: _api_error, HTTPException: _http_error}
    return Starlette(routes=routes, exception_handlers=handlers)


async def _api_error(request: Request, error: ApiError) -> Response:
    return JSONResponse(error.body(), error.status, error.headers())


async def _http_error(request: Request, error: HTTPException) -> Response:
    """What the router refuses: an unknown path, another method."""
    where = f"{request.method} {request.url.path[:80]}"
    message = f"{where}: {error.detail}; docs/gateway.md lists what is served"
    made = ApiError(error.status_code, message, code="unknown_url")
    return JSONResponse(made.body(), made.status, {**made.headers(), **(error.headers or {})})


class Answering:
    """One route that runs programs; an ASGI application."""

    def __init__(self, front: Front, parse: Parse) -> None:
        self._front = front
        self._parse = parse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.monotonic()
        exchange = Exchange(scope, receive, send, self._front.config.write_timeout_s)
        self._front.num_requests += 1
        status: int | str = 200
        try:
            await self._answer(scope, receive, exchange)
        except ApiError as error:
            status = error.status
            await _last_words(exchange, error)
        except ClientGone:
            status = "closed by the client"
        except Exception:  # noqa: BLE001 - the edge of a request: it gets its answer
            status = 500
            _log.exception("gateway_failed", path=scope["path"])
            await _last_words(exchange, ApiError(500, "a bug in the gateway; its log has more"))
        finally:
            self._front.num_requests -= 1
            took_s = round(time.monotonic() - started, 3)
            _log.info("http_request", path=scope["path"], status=status, took_s=took_s)

    async def _answer(self, scope: Scope, receive: Receive, exchange: Exchange) -> None:
        front, config = self._front, self._front.config
        user = front.admit(scope)
        headers = Headers(scope=scope)
        body = await read_body(headers, receive, config.max_body_bytes, config.read_timeout_s)
        ask = self._parse(body, config.max_choices)
        target = front.catalogue.target(ask.model, ask.kind, user)
        group = Group()
        watching = Tasks("gateway")
        watching.spawn(exchange.watch(group.leave), "watch a client")
        reason = "its request has failed"
        try:
            limits = Limits(config.request_timeout_s, config.max_answer_bytes)
            group.start(front.launcher, ask, target, user, limits)
            answers = replies(ask, target, group.ids)
            deliver = self._stream if ask.stream else self._whole
            await deliver(exchange, group, answers, ask)
        except ClientGone:
            reason = "its client closed the connection"
            raise
        finally:
            group.close(reason)
            await watching.close()

    async def _whole(self, exchange: Exchange, group: Group, answers: Replies, ask: Ask) -> None:
        while not group.ended:
            for index, part in await group.next(self._front.config.comment_s):
                answers.gather(index, part)
            group.ack()
        await exchange.answer(answers.whole())

    async def _stream(self, exchange: Exchange, group: Group, answers: Replies, ask: Ask) -> None:
        while not group.ended:
            parts = await group.next(self._front.config.comment_s)
            chunks = [chunk for index, part in parts for chunk in answers.chunks(index, part)]
            await exchange.stream(b"".join(map(event, chunks)) if parts else COMMENT)
            group.ack()
        last = event(answers.usage_chunk()) if ask.include_usage else b""
        await exchange.end_stream(last + DONE)


async def _last_words(exchange: Exchange, error: ApiError) -> None:
    try:
        await exchange.fail(error)
    except ClientGone:
        return
