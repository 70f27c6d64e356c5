"""Model, context and generation over a faked host."""

from __future__ import annotations

import pytest

from inferlet import (
    Adapter,
    Busy,
    Chat,
    Context,
    InvalidArgument,
    Model,
    NotFound,
    PieError,
    _host,
    delete_saved,
    saved,
)
from inferlet.errors import error_for
from support.fake_pie import Err, FakePie


def test_only_given_options_reach_the_engine(pie: FakePie) -> None:
    """None leaves a key to the engine's own default."""
    pie.answers = [["ab"]]
    Context(Model.open()).generate(max_tokens=3, temperature=0, top_k=None).collect()
    assert [{"max_tokens": 3, "temperature": 0}] == pie.options


def test_a_generation_gathers_what_its_chunks_brought(pie: FakePie) -> None:
    """Iterating gives the pieces; afterwards the whole is there."""
    pie.answers = [["ab", "c"]]
    generation = Context(Model.open()).generate()
    assert ["ab", "c"] == [chunk.text for chunk in generation]
    assert ("abc", [97, 98, 99]) == (generation.text, generation.tokens)
    assert (5, 7) == (generation.usage.prompt_tokens, generation.usage.generated_tokens)


@pytest.mark.parametrize(
    ("case", "value", "reason"),
    [
        ("StopToken", (7,), "stop"),
        ("StopString", ("END",), "stop"),
        ("Length", (), "length"),
        ("Budget", (), "budget"),
    ],
)
def test_finish_reasons_are_words_and_say_what_stopped(
    pie: FakePie, case: str, value: tuple[object, ...], reason: str
) -> None:
    """One word to branch on, and beside it the token or string where there is one."""
    pie.answers = [["a"]]
    pie.finish_with(case, *value)
    generation = Context(Model.open()).generate().collect()
    assert (reason, value[0] if value else None) == (
        generation.finish_reason,
        generation.stopped_by,
    )


def test_leaving_a_block_gives_the_resources_back(pie: FakePie) -> None:
    """`with` ends a generation and frees a context, early exits included."""
    pie.answers = [["a", "b"]]
    with Context(Model.open()) as context, context.generate() as generation:
        generation.next()
    assert ["Generation", "Context"] == pie.released


def test_an_adapter_goes_along_with_the_generation(pie: FakePie) -> None:
    """Of a context or a chat; closed by its block."""
    pie.answers = [["a"], ["b"], ["c"]]
    model = Model.open()
    with Adapter.open(model, "pirate") as adapter:
        Context(model).generate(adapter=adapter).collect()
        Chat(model, adapter=adapter).user("hi").reply()
        Context(model).generate().collect()
    assert ["pirate", "pirate", None] == pie.adapters
    assert "Adapter" == pie.released[-1]


def test_a_fork_goes_its_own_way(pie: FakePie) -> None:
    """What the fork appends, the original never sees."""
    context = Context(Model.open())
    context.append([1, 2])
    fork = context.fork()
    fork.append([3])
    assert ([1, 2], [1, 2, 3]) == (context.tokens(), fork.tokens())


def test_hiding_and_priority_reach_the_host(pie: FakePie) -> None:
    """Without an end it is that of the context."""
    context = Context(Model.open())
    context.append([1, 2, 3])
    context.hide(1)
    context.show(1, 2)
    context.show()
    context.set_priority(-2)
    assert [(1, 3, False), (1, 2, True), (0, 3, True), (-2,)] == pie.told


def test_saved_contexts_are_opened_listed_and_deleted(pie: FakePie) -> None:
    """Each opening is a context of its own, of the model that it was saved from."""
    context = Context(Model.open())
    context.append([1, 2])
    context.save("b")
    context.save("a", durable=True)
    context.append([3])
    opened = Context.open("b")
    assert ([1, 2], ["a", "b"], ["a"]) == (opened.tokens(), saved(), pie.durable)
    assert opened.model.handle is not None
    delete_saved("b")
    with pytest.raises(NotFound):
        Context.open("b")


def test_host_errors_come_as_the_class_of_their_code(pie: FakePie) -> None:
    """A program catches `InvalidArgument`, not a string."""
    with pytest.raises(InvalidArgument, match="past the length"):
        Context(Model.open()).tokens(0, 5)


def test_a_code_newer_than_the_sdk_is_still_an_error() -> None:
    """Old components keep working on a host that knows more codes."""
    error = error_for("overheated", "too warm")
    assert (PieError, "overheated") == (type(error), error.code)
    assert Busy is type(error_for("busy", ""))


def test_errors_that_are_not_the_hosts_pass_unchanged() -> None:
    """A mistake in the SDK's own call stays what it is."""
    with pytest.raises(TypeError):
        _host.call(len, 3)
    with pytest.raises(Busy):
        _host.call(_raise_busy)


def test_outside_a_component_the_first_host_call_says_so() -> None:
    """Importing works anywhere; calling explains where it would."""
    with pytest.raises(RuntimeError, match=r"call Pie from within run\(\)"):
        Model.open()


def _raise_busy() -> None:
    raise Err("busy", "a generation is running")
