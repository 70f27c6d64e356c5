"""Sums and differences of whole numbers up to three digits."""

from __future__ import annotations

from random import Random

from training.sample import Sample, Turn, is_held_out

QUESTIONS = (
    "What is {a} + {b}?",
    "What is {a} plus {b}?",
    "{a} + {b}",
    "{a}+{b}",
    "Add {a} and {b}.",
    "add {a} and {b}",
    "Calculate {a} + {b}.",
    "How much is {a} + {b}?",
    "Sum {a} and {b}.",
)
COMPLETIONS = ("{a}+{b}=", "{a} + {b} =", "The sum of {a} and {b} is")
DIFFERENCES = (
    "What is {a} - {b}?",
    "What is {a} minus {b}?",
    "{a} - {b}",
    "Subtract {b} from {a}.",
)


def _number(rng: Random) -> int:
    digits = rng.choices((1, 2, 3), (15, 30, 55))[0]
    return rng.randrange(0 if digits == 1 else 10 ** (digits - 1), int(10**digits))


def _carries(a: int, b: int) -> int:
    count = carry = 0
    while a or b:
        carry = int(a % 10 + b % 10 + carry > 9)
        count += carry
        a, b = a // 10, b // 10
    return count


def pair_key(a: int, b: int) -> str:
    """The same for both orders: a pair is held out with its mirror image."""
    return f"{min(a, b)}+{max(a, b)}"


def operands(rng: Random, held_out: bool, carry_heavy: bool) -> tuple[int, int]:
    """Two numbers of the wanted split; `carry_heavy` keeps drawing until a digit carries."""
    while True:
        a, b = _number(rng), _number(rng)
        if is_held_out(pair_key(a, b)) == held_out and (not carry_heavy or _carries(a, b) > 0):
            return a, b


def addition(rng: Random, held_out: bool, raw: bool) -> Sample:
    a, b = operands(rng, held_out, carry_heavy=not held_out and rng.random() < 0.5)
    return _sum_sample(rng, a, b, raw)


def _sum_sample(rng: Random, a: int, b: int, raw: bool) -> Sample:
    key = pair_key(a, b)
    if raw and rng.random() < 0.75:
        form = rng.choices(COMPLETIONS, (6, 3, 1))[0]
        space = "" if form.endswith("+{b}=") else " "
        turns = (Turn("user", form.format(a=a, b=b)), Turn("assistant", f"{space}{a + b}"))
        return Sample("addition", key, turns, raw=True)
    question = rng.choice(QUESTIONS).format(a=a, b=b)
    return asked("addition", key, question, str(a + b), raw)


def subtraction(rng: Random, held_out: bool, raw: bool) -> Sample:
    """The larger minus the smaller, so that no answer is negative."""
    low, high = sorted(operands(rng, held_out, carry_heavy=False))
    question = rng.choice(DIFFERENCES).format(a=high, b=low)
    return asked("subtraction", pair_key(low, high), question, str(high - low), raw)


def asked(task: str, key: str, question: str, answer: str, raw: bool) -> Sample:
    """A question and its answer as a chat, or on two lines when raw."""
    text = f"\n{answer}" if raw else answer
    return Sample(task, key, (Turn("user", question), Turn("assistant", text)), raw=raw)
