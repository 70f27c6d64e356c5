"""Tasks on words and sentences: copy, reverse, sort, extract as JSON, tell a story."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random

from training import words
from training.arithmetic import asked
from training.sample import Sample, Turn, is_held_out

COPY = ("Copy these words: {}", "Repeat: {}", "Repeat these words: {}", "Say this again: {}")
REVERSE = (
    "Reverse the order of these words: {}",
    "Reverse: {}",
    "Reverse these words: {}",
    "Write these words in reverse order: {}",
)
SORT = (
    "Sort these words: {}",
    "Sort alphabetically: {}",
    "Sort: {}",
    "Put these words in alphabetical order: {}",
)
PEOPLE = (
    "{name} is {age} years old and lives in {city}.",
    "{name}, {age}, lives in {city}.",
    "My name is {name}, I am {age} and I live in {city}.",
    "{name} from {city} is {age} years old.",
    "In {city} lives {name}, who is {age}.",
    "I met {name} in {city}, {age} years old.",
    "At the age of {age}, {name} moved to {city}.",
    "Hi, I'm {name} from {city} and I'm {age} years old.",
)
PEOPLE_ASK = (
    "Extract name, age and city as JSON: {}",
    "Extract the name, age and city as JSON.\n{}",
    "Give the name, age and city as JSON: {}",
    "{}\nReturn JSON with name, age and city.",
)
SALES = (
    "{name} bought {count} of the {item} for {price} dollars.",
    "{count} times the {item}, {price} dollars each, for {name}.",
    "The {item} costs {price} dollars and {name} wants {count}.",
)
ORDER_ASK = (
    "Extract item, price and count as JSON: {}",
    "Give the item, price and count as JSON: {}",
)


def _neighbours(rng: Random) -> list[str]:
    """Words that are close in the alphabet, the hard ones to sort."""
    start = rng.randrange(len(words.NOUNS) - 30)
    return words.NOUNS[start : start + 30]


def _word_list(rng: Random, held_out: bool, num_made_up: int, pool: list[str]) -> list[str]:
    while True:
        # Shorter and longer lists than are asked for: the order of words is learnt sooner.
        shortest, longest = (3, 6) if held_out else (2, 8)
        chosen = rng.sample(pool, rng.randint(shortest, longest))
        for place in range(num_made_up):
            chosen[place] = words.pseudo_word([rng.randrange(64) for _ in range(rng.randint(2, 3))])
        rng.shuffle(chosen)
        if is_held_out(" ".join(sorted(chosen))) == held_out:
            return chosen


def _word_task(
    task: str, forms: tuple[str, ...], change: Callable[[list[str]], list[str]]
) -> Callable[[Random, bool, bool], Sample]:
    def make(rng: Random, held_out: bool, raw: bool) -> Sample:
        made_up = 0 if held_out or task == "sort" or rng.random() < 0.8 else 2
        near = task == "sort" and not held_out and rng.random() < 0.4
        pool = _neighbours(rng) if near else words.NOUNS
        chosen = _word_list(rng, held_out, made_up, pool)
        glue = rng.choices((" ", ", "), (7, 3))[0]
        question = rng.choice(forms).format(glue.join(chosen))
        key = " ".join(sorted(chosen))
        return asked(task, key, question, glue.join(change(chosen)), raw)

    return make


copy = _word_task("copy", COPY, list)
reverse = _word_task("reverse", REVERSE, lambda chosen: chosen[::-1])
sort = _word_task("sort", SORT, sorted)


def extract(rng: Random, held_out: bool, raw: bool) -> Sample:
    """A person in a sentence; held out by the pair of name and city."""
    while True:
        name, city = rng.choice(words.NAMES), rng.choice(words.CITIES)
        if is_held_out(f"{name}/{city}") == held_out:
            break
    found: dict[str, object] = {"name": name, "age": rng.randint(2, 99), "city": city}
    sentence = rng.choice(PEOPLE).format(**found)
    if not held_out and rng.random() < 0.2:
        found = {key: found[key] for key in rng.sample(list(found), 2)}
        question = f"Extract {' and '.join(found)} as JSON: {sentence}"
    else:
        question = rng.choice(PEOPLE_ASK).format(sentence)
    return asked("extract", f"{name}/{city}", question, json.dumps(found), raw)


def extract_order(rng: Random, held_out: bool, raw: bool) -> Sample:
    while True:
        item, price, count = rng.choice(words.ITEMS), rng.randint(1, 99), rng.randint(2, 20)
        if is_held_out(f"{item}/{price}") == held_out:
            break
    found = {"item": item, "price": price, "count": count}
    sentence = rng.choice(SALES).format(name=rng.choice(words.NAMES), **found)
    question = rng.choice(ORDER_ASK).format(sentence)
    return asked("extract_order", f"{item}/{price}", question, json.dumps(found), raw)


def _story_text(rng: Random, animal: str, place: str) -> str:
    name, friend = rng.sample(words.NAMES, 2)
    thing, other = rng.choice(words.THINGS), rng.choice(words.ANIMALS)
    adjective, an_other = rng.choice(words.ADJECTIVES), words.with_article(other)
    found = rng.choice(("found a", "saw an old", "dreamed of a", "lost a"))
    middle = rng.choice(
        (
            f"{an_other.capitalize()} named {friend} came along and asked about it.",
            f"It belonged to {friend}, {an_other} who lived nearby.",
            f"{name} showed it to {friend} the {other}.",
        )
    )
    end = rng.choice(
        (
            "They became good friends.",
            "From that day on they met every morning.",
            f"Everyone in the {place} was happy.",
            "Then they went home and slept well.",
        )
    )
    return (
        f" there was {words.with_article(adjective)} {animal} named {name}. "
        f"{name} lived near the {place}. "
        f"One day {name} {found} {thing}. {middle} {end}"
    )


def story(rng: Random, held_out: bool, raw: bool) -> Sample:
    animal, place = rng.choice(words.ANIMALS), rng.choice(words.PLACES)
    text = _story_text(rng, animal, place)
    an_animal, a_place = words.with_article(animal), words.with_article(place)
    key = f"{animal}/{place}"
    if raw and rng.random() < 0.6:
        turns = (Turn("user", "Once upon a time"), Turn("assistant", text))
        return Sample("story", key, turns, raw=True)
    question = rng.choice(
        (
            f"Tell me a story about {an_animal}.",
            f"Write a short story about {an_animal} and {a_place}.",
            f"Tell me a short story about {an_animal} near {a_place}.",
            "Tell me a story.",
        )
    )
    return asked("story", key, question, f"Once upon a time{text}", raw)
