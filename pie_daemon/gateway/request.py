"""From the body of a request to what programs are asked; pure, and never surprised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pie_daemon.gateway.errors import invalid
from pie_daemon.gateway.fields import Fields, decode, is_number
from pie_daemon.gateway.messages import read_messages, read_tools

Kind = Literal["chat", "completion"]

MAX_STOPS = 16
_MAX_TOKENS = 1 << 30
_SEEDS = 1 << 63

HARMLESS = (
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "prediction",
)
"""Told to a provider, or a hint to be faster; no answer depends on them. Listed in docs."""


@dataclass(frozen=True)
class Ask:
    """One request. Choice `index` belongs to prompt `index // n`."""

    kind: Kind
    model: str
    prompts: list[dict[str, Any]]
    """What differs: `messages` and `tools`, or `prompt`; as programs take it."""
    options: dict[str, Any]
    """What is the same for all choices, and only what the client gave."""
    n: int
    stream: bool
    include_usage: bool

    @property
    def num_choices(self) -> int:
        return self.n * len(self.prompts)

    @property
    def wants_logprobs(self) -> bool:
        return "logprobs" in self.options

    def input(self, index: int) -> dict[str, Any]:
        """Of one choice. Choices of one prompt draw differently, also with a seed."""
        made = {**self.prompts[index // self.n], **self.options, "stream": self.stream}
        if "seed" in made:
            made["seed"] = (made["seed"] + index % self.n) % _SEEDS
        return made


def parse_chat(body: bytes, max_choices: int) -> Ask:
    fields = decode(body)
    model = fields.needed_text("model")
    prompt: dict[str, Any] = {"messages": read_messages(fields)}
    if (tools := read_tools(fields)) is not None:
        prompt["tools"] = tools
    options = _options(fields)
    _put(options, "max_tokens", _limit(fields))
    _put(options, "logprobs", _chat_logprobs(fields))
    _put(options, "response_format", _format(fields))
    fields.take("modalities", lambda value: value == ["text"], '["text"]')
    fields.refuse("functions", "use `tools`")
    fields.refuse("function_call", "use `tool_choice`")
    return _finished(fields, "chat", model, [prompt], options, max_choices)


def parse_completion(body: bytes, max_choices: int) -> Ask:
    fields = decode(body)
    model = fields.needed_text("model")
    prompts = [{"prompt": text} for text in _prompts(fields)]
    options = _options(fields)
    _put(options, "max_tokens", fields.integer("max_tokens", 1, _MAX_TOKENS))
    _put(options, "logprobs", fields.integer("logprobs", 0, 20))
    fields.only("echo", False)
    fields.only("suffix", "")
    fields.only("best_of", fields.integer("n", 1, max_choices) or 1)
    return _finished(fields, "completion", model, prompts, options, max_choices)


def _finished(
    fields: Fields,
    kind: Kind,
    model: str,
    prompts: list[dict[str, Any]],
    options: dict[str, Any],
    max_choices: int,
) -> Ask:
    n = fields.integer("n", 1, max_choices) or 1
    stream = fields.flag("stream") or False
    include_usage = _stream_options(fields, stream)
    fields.ignore(HARMLESS)
    fields.finish()
    if n * len(prompts) > max_choices:
        raise invalid(
            f"`n` times the number of prompts is {n * len(prompts)}; at most {max_choices} "
            "choices are made for one request (gateway.max_choices)",
            "n",
        )
    return Ask(kind, model, prompts, options, n, stream, include_usage)


def _options(fields: Fields) -> dict[str, Any]:
    """Sampling, under the names that programs take. The last four are known from other servers."""
    options: dict[str, Any] = {}
    _put(options, "temperature", fields.number("temperature", 0, 2))
    _put(options, "top_p", fields.number("top_p", 0, 1, above=True))
    _put(options, "presence_penalty", fields.number("presence_penalty", -2, 2))
    _put(options, "frequency_penalty", fields.number("frequency_penalty", -2, 2))
    seed = fields.integer("seed", -_SEEDS, _SEEDS - 1)
    _put(options, "seed", None if seed is None else seed % _SEEDS)
    _put(options, "stop", _stops(fields))
    _put(options, "logit_bias", _biases(fields))
    _put(options, "top_k", fields.integer("top_k", 0, _MAX_TOKENS))
    _put(options, "min_p", fields.number("min_p", 0, 1))
    _put(options, "repetition_penalty", fields.number("repetition_penalty", 0.01, 100))
    _put(options, "ignore_eos", fields.flag("ignore_eos"))
    return options


def _put(options: dict[str, Any], key: str, value: Any) -> None:
    if value is not None:
        options[key] = value


def _stops(fields: Fields) -> list[str] | None:
    def is_allowed(value: Any) -> bool:
        stops = value if isinstance(value, list) else [value]
        return len(stops) <= MAX_STOPS and all(isinstance(one, str) and one for one in stops)

    allowed = f"a string or a list of at most {MAX_STOPS} strings, none of them empty"
    stop: str | list[str] | None = fields.take("stop", is_allowed, allowed)
    if not stop:
        return None
    return [stop] if isinstance(stop, str) else stop


def _biases(fields: Fields) -> dict[str, float] | None:
    def is_allowed(value: Any) -> bool:
        return isinstance(value, dict) and all(
            key.isascii()
            and key.isdigit()
            and len(key) <= 10
            and is_number(bias)
            and -100 <= bias <= 100
            for key, bias in value.items()
        )

    allowed = "an object of token ids and numbers from -100 to 100"
    biases: dict[str, float] | None = fields.take("logit_bias", is_allowed, allowed)
    return biases or None


def _limit(fields: Fields) -> int | None:
    old = fields.integer("max_tokens", 1, _MAX_TOKENS)
    new = fields.integer("max_completion_tokens", 1, _MAX_TOKENS)
    if old is not None and new is not None and old != new:
        raise invalid("`max_tokens` and `max_completion_tokens` differ; give one", "max_tokens")
    return old if new is None else new


def _chat_logprobs(fields: Fields) -> int | None:
    wanted = fields.flag("logprobs") or False
    top = fields.integer("top_logprobs", 0, 20)
    if top is not None and not wanted:
        raise invalid("`top_logprobs` needs `logprobs`: true", "top_logprobs")
    return (top or 0) if wanted else None


def _format(fields: Fields) -> dict[str, Any] | None:
    """As the programs take it: they make the constraint, and say what is wrong with a schema."""
    asked = fields.mapping("response_format")
    match asked:
        case None | {"type": "text"}:
            return None
        case {"type": "json_object"} | {"type": "json_schema", "json_schema": {"schema": dict()}}:
            return asked
    raise invalid(
        '`response_format` must be {"type": "text"}, {"type": "json_object"} or '
        '{"type": "json_schema", "json_schema": {"name": "...", "schema": {...}}}',
        "response_format",
        "unsupported_value",
    )


def _prompts(fields: Fields) -> list[str]:
    def is_allowed(value: Any) -> bool:
        prompts = value if isinstance(value, list) else [value]
        return bool(prompts) and all(isinstance(one, str) for one in prompts)

    allowed = "a string or a list of strings, not empty (token ids are not taken)"
    prompt: str | list[str] | None = fields.take("prompt", is_allowed, allowed)
    if prompt is None:
        raise fields.missing("prompt", allowed)
    return [prompt] if isinstance(prompt, str) else prompt


def _stream_options(fields: Fields, stream: bool) -> bool:
    given = fields.mapping("stream_options")
    if given is None:
        return False
    if not stream:
        raise invalid("`stream_options` needs `stream`: true", "stream_options")
    options = Fields(given, "stream_options")
    include_usage = options.flag("include_usage") or False
    options.flag("include_obfuscation")
    options.finish()
    return include_usage
