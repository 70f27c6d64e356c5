"""WIT interface `inference`: `generate`, the decode loop that the engine runs by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec

from pie_daemon.errors import PieError
from pie_daemon.grammar.matcher import Matcher
from pie_daemon.host.context import HostContext
from pie_daemon.host.interfaces.adapters import Adapter, digest_for
from pie_daemon.host.interfaces.constraints import Constraint
from pie_daemon.host.interfaces.contexts import Context
from pie_daemon.host.interfaces.options import GenerateOptions, parse_options, remembered
from pie_daemon.host.interfaces.requests import HeldRequest, subscribe
from pie_daemon.host.relay import Relay
from pie_daemon.scheduler.params import GenerateParams
from pie_daemon.scheduler.request import Chunk


class Generation(HeldRequest):
    """A running generation."""

    def __init__(self, host: HostContext, context: Context, relay: Relay, request: int) -> None:
        super().__init__(host, context, request)
        self.relay = relay
        relay.request = request


def generate(
    host: HostContext,
    context: Context,
    options: str,
    constraint: Constraint | None,
    adapter: Adapter | None,
) -> Generation:
    params = _params_of(options)
    if constraint is not None or adapter is not None:
        params = replace(
            params,
            adapter=digest_for(context.model, adapter),
            matcher=_matcher(context, constraint),
        )
    relay = Relay(host, context.model.scheduler)
    request = context.model.scheduler.generate(context.id, params, relay.notify)
    return Generation(host, context, relay, request)


def _matcher(context: Context, constraint: Constraint | None) -> Matcher | None:
    """A fork, with its first mask made here, in the program's own thread."""
    if constraint is None:
        return None
    if constraint.model is not context.model:
        raise PieError(
            "invalid-argument",
            f"the constraint is for {constraint.model.name}, the context for {context.model.name}",
        )
    constraint.matcher.mask()
    return constraint.matcher.fork()


@remembered
def _params_of(text: str) -> GenerateParams:
    return _params(parse_options(text))


def _params(options: GenerateOptions) -> GenerateParams:
    return GenerateParams(
        sampling=options.sampling(),
        fresh_seed=options.seed is None and options.temperature > 0,
        max_tokens=options.max_tokens,
        stop_tokens=tuple(options.stop_tokens),
        stop_strings=tuple(options.stop_strings),
        ignore_eos=options.ignore_eos,
        chunk_tokens=options.chunk_tokens,
        drafts=options.drafts(),
    )


def next_chunk(host: HostContext, generation: Generation) -> dict[str, Any] | None:
    host.mailbox.wait(lambda: generation.ready, None)
    chunk = generation.context.model.scheduler.take(generation.request)
    return None if chunk is None else _record(chunk)


def relay(host: HostContext, generation: Generation) -> dict[str, Any]:
    return _record(generation.relay.run())


def _record(chunk: Chunk) -> dict[str, Any]:
    logprobs = [{"chosen": one.chosen, "top": one.top} for one in chunk.logprobs]
    return {"tokens": chunk.tokens, "text": chunk.text, "logprobs": logprobs}


def finish(host: HostContext, generation: Generation) -> tuple[str, Any] | None:
    """The WIT variant `finish-reason`; None while it runs."""
    reason = generation.context.model.scheduler.finish(generation.request)
    if reason is None:
        return None
    return reason.kind, reason.token if reason.kind == "stop-token" else reason.text


def usage(host: HostContext, generation: Generation) -> str:
    scheduler = generation.context.model.scheduler
    return msgspec.json.encode(scheduler.usage(generation.request)).decode()


def cancel(host: HostContext, generation: Generation) -> None:
    generation.context.model.scheduler.cancel(generation.request)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "[method]generation.subscribe": subscribe,
    "[method]generation.next": next_chunk,
    "[method]generation.relay": relay,
    "[method]generation.finish": finish,
    "[method]generation.usage": usage,
    "[method]generation.cancel": cancel,
    "generate": generate,
}
