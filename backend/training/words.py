"""Word lists the generated samples are made of."""

from __future__ import annotations

NOUNS = """
acorn actor album anchor angel ankle apple apron arrow artist autumn badge bag baker ball banana
bank barn basket beach bean bear bed bell belt bench berry bike bird blanket boat bone book boot
bottle bowl box branch bread brick bridge brush bucket butter button cabin cake camel camera candle
car card carpet carrot castle cat chair cheese cherry circle city clock cloud coat coffee coin comb
copper cow crab cup curtain daisy dance desk dog doll door dragon dream dress drum duck eagle ear
earth egg elbow engine eye farm feather fence field finger fire fish flag flower flute forest fork
fox frog fruit garden gate ghost giant gift glass glove goat gold grape grass guitar hammer hand
harbor hat hill honey horse house ice ink island jacket jar jewel juice kettle key king kitchen kite
knife ladder lake lamp leaf lemon letter lion lizard lock maple map market mask meadow melon milk
mirror monkey moon mountain mouse mug music nail needle nest night nose notebook nut oak ocean olive
onion orange oven owl paint panda paper peach pear pen pencil pepper piano picture pillow pilot pine
planet plate plum pocket pond pony potato queen quilt rabbit rain ribbon rice ring river road robot
rocket roof rope rose sail salt sand scarf school shark sheep shelf ship shirt shoe silver snow soap
sock song soup spider spoon stamp star stone storm sugar sun swan table tea tent tiger toast tomato
tower town toy train tree truck turtle umbrella valley vase village violin wagon wall watch water
wave whale wheel wind window winter wolf wood yarn zebra
""".split()

NAMES = """
Ada Adam Alice Amir Anna Anton Bella Ben Bruno Carla Carlos Chloe Clara Daniel David Diana Dora
Elena Eli Emil Emma Eric Eva Felix Fiona Finn Frank George Grace Greta Hanna Hugo Ida Igor Iris Ivan
Jack James Jana Jonas Julia Karl Kate Kenji Lara Leo Lena Liam Lily Linda Lucas Maria Mark Marta
Maya Mia Mila Nadia Nina Noah Nora Olga Oliver Omar Oscar Paula Peter Priya Rosa Ruth Sam Sara Simon
Sofia Stella Tara Theo Tina Tom Vera Victor Wendy Yara Yuki Zoe
""".split()

CITIES = """
Amsterdam Athens Austin Bangkok Barcelona Beijing Berlin Bern Boston Brussels Budapest Cairo Chicago
Copenhagen Dakar Delhi Denver Dublin Florence Geneva Hamburg Hanoi Helsinki Istanbul Jakarta Kyiv
Lagos Lima Lisbon London Lyon Madrid Manila Miami Milan Montreal Munich Nairobi Naples Oslo Paris
Porto Prague Quito Riga Rome Santiago Seattle Seoul Sofia Stockholm Sydney Tallinn Tokyo Toronto
Turin Venice Vienna Warsaw Zurich
""".split()

ANIMALS = """
bear cat dog dragon duck eagle fox frog goat horse lion mouse owl pony rabbit tiger turtle wolf
""".split()
PLACES = """
beach castle farm forest garden hill island lake market meadow mountain river town valley village
""".split()
THINGS = """
bell book candle coin drum feather flute key kite lamp letter map mirror ring rope star stone
""".split()
ADJECTIVES = "brave clever curious gentle happy kind little old quiet small tiny wise young".split()
ITEMS = """
apple bag book bottle chair clock coat cup desk guitar hat jacket kettle lamp mirror mug notebook
pen pillow scarf shirt shoe table tent umbrella vase watch
""".split()
SYLLABLES = """
ba be bi bo da de di do fa fe fi ga go ka ke ki ko la le li lo ma me mi mo na ne ni no pa pe po ra
re ri ro sa se si so ta te ti to va vi zo
""".split()


def with_article(text: str) -> str:
    return f"an {text}" if text[0] in "aeiou" else f"a {text}"


def pseudo_word(draw: list[int]) -> str:
    """A pronounceable word that is in no list, one syllable for each number drawn."""
    return "".join(SYLLABLES[number % len(SYLLABLES)] for number in draw)
