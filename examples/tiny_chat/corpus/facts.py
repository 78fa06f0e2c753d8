"""Questions about the facts, and which ways of asking are kept out of training."""

import hashlib
import random
import re

from . import tables
from .tables import Relation

RELATIONS = (
    Relation(
        "capital",
        "The capital of {k} is {v}.",
        (
            "What is the capital of {k}?",
            "Which city is the capital of {k}?",
            "Name the capital of {k}.",
            "What's the capital city of {k}?",
            "Do you know the capital of {k}?",
            "Tell me the capital of {k}.",
            "{k} has which capital?",
            "The capital of {k} is what?",
            "Can you name the capital city of {k}?",
            "I forgot the capital of {k}. What is it?",
            "Which capital does {k} have?",
        ),
        tables.CAPITALS,
    ),
    Relation(
        "capital_of",
        "{k} is the capital of {v}.",
        (
            "{k} is the capital of which country?",
            "Which country has {k} as its capital?",
            "What country is {k} the capital of?",
            "Of which country is {k} the capital?",
            "{k} is the capital of what country?",
            "Name the country whose capital is {k}.",
            "Tell me which country has the capital {k}.",
        ),
        {city: country for country, city in tables.CAPITALS.items()},
    ),
    Relation(
        "continent",
        "{k} is in {v}.",
        (
            "On which continent is {k}?",
            "Which continent is {k} in?",
            "What continent does {k} belong to?",
            "Where in the world is {k}?",
            "Tell me the continent of {k}.",
            "{k} is on which continent?",
            "Do you know which continent {k} is on?",
        ),
        tables.CONTINENTS,
    ),
    Relation(
        "opposite",
        "The opposite of {k} is {v}.",
        (
            "What is the opposite of {k}?",
            "Name the opposite of {k}.",
            "What's the opposite of the word {k}?",
            "Which word means the opposite of {k}?",
            "Tell me the opposite of {k}.",
            "The opposite of {k} is what?",
            "Give me the opposite of {k}.",
            "Which word is the opposite of {k}?",
        ),
        tables.OPPOSITES | {value: key for key, value in tables.OPPOSITES.items()},
    ),
    Relation(
        "colour",
        "The colour of {k} is {v}.",
        (
            "What colour is {k}?",
            "Which colour is {k}?",
            "What is the colour of {k}?",
            "Tell me the colour of {k}.",
            "What color is {k}?",
            "Do you know the colour of {k}?",
            "Which colour does {k} have?",
            "What is the color of {k}?",
        ),
        tables.COLOURS,
    ),
    Relation(
        "baby",
        "A baby {k} is called a {v}.",
        (
            "What is a baby {k} called?",
            "What do you call a baby {k}?",
            "What is the name for a young {k}?",
            "A baby {k} is called what?",
            "How do you call a young {k}?",
            "What's the word for a baby {k}?",
            "Tell me what a baby {k} is called.",
        ),
        tables.BABIES,
    ),
    Relation(
        "sound",
        "A {k} {v}.",
        (
            "What sound does a {k} make?",
            "Which sound does a {k} make?",
            "What noise does a {k} make?",
            "How does a {k} sound?",
            "What does a {k} sound like?",
            "Tell me the sound of a {k}.",
        ),
        tables.SOUNDS,
    ),
    Relation(
        "home",
        "The home of a {k} is called a {v}.",
        (
            "What is the home of a {k} called?",
            "What do you call the home of a {k}?",
            "Where does a {k} live?",
            "In what does a {k} live?",
            "What is the name of the home of a {k}?",
            "Tell me where a {k} lives.",
        ),
        tables.HOMES,
    ),
    Relation(
        "food",
        "A {k} eats {v}.",
        (
            "What does a {k} eat?",
            "What is the food of a {k}?",
            "What does a {k} like to eat?",
            "Tell me what a {k} eats.",
            "Which food does a {k} eat?",
            "What do you feed a {k}?",
        ),
        tables.FOODS,
    ),
    Relation(
        "legs",
        "A {k} has {v} legs.",
        (
            "How many legs does a {k} have?",
            "What number of legs does a {k} have?",
            "A {k} has how many legs?",
            "Tell me how many legs a {k} has.",
            "Do you know how many legs a {k} has?",
            "Count the legs of a {k}.",
        ),
        tables.LEGS,
    ),
    Relation(
        "sides",
        "A {k} has {v} sides.",
        (
            "How many sides does a {k} have?",
            "What number of sides does a {k} have?",
            "A {k} has how many sides?",
            "Tell me how many sides a {k} has.",
            "Do you know how many sides a {k} has?",
            "Count the sides of a {k}.",
        ),
        tables.SIDES,
    ),
    Relation(
        "unit",
        "There are {v}.",
        (
            "How many {k}?",
            "Tell me how many {k}.",
            "Do you know how many {k}?",
            "Can you say how many {k}?",
            "I want to know how many {k}.",
            "Please say how many {k}.",
        ),
        tables.UNITS,
    ),
    Relation(
        "hello",
        "Hello in {k} is {v}.",
        (
            "How do you say hello in {k}?",
            "What is hello in {k}?",
            "Say hello in {k}.",
            "How do people say hello in {k}?",
            "What is the {k} word for hello?",
            "Tell me the word for hello in {k}.",
        ),
        tables.HELLOS,
    ),
    Relation(
        "next",
        "{v} comes after {k}.",
        (
            "What comes after {k}?",
            "Which one comes after {k}?",
            "What follows {k}?",
            "Name what comes right after {k}.",
            "What is next after {k}?",
            "Tell me what comes after {k}.",
        ),
        tables.successors(tables.DAYS) | tables.successors(tables.MONTHS),
    ),
    Relation(
        "previous",
        "{v} comes before {k}.",
        (
            "What comes before {k}?",
            "Which one comes before {k}?",
            "What is right before {k}?",
            "Name what comes just before {k}.",
            "Tell me what comes before {k}.",
            "What do we have before {k}?",
        ),
        tables.predecessors(tables.DAYS) | tables.predecessors(tables.MONTHS),
    ),
    Relation(
        "month",
        "The {k} month of the year is {v}.",
        (
            "What is the {k} month of the year?",
            "Which month is the {k} month?",
            "Name the {k} month of the year.",
            "Tell me the {k} month.",
            "What is the name of the {k} month?",
            "Which one is the {k} month of the year?",
        ),
        dict(zip(tables.ORDINALS, tables.MONTHS)),
    ),
    Relation(
        "product",
        "{k} = {v}.",
        (
            "What is {k}?",
            "{k} = ?",
            "Calculate {k}.",
            "How much is {k}?",
            "Compute {k}, please.",
            "Tell me {k}.",
            "Multiply {k}.",
        ),
        {f"{a} * {b}": str(a * b) for a in range(11) for b in range(11)},
    ),
)
HELD_OUT_PER_FACT = 2


def sentence(text):
    """Mends the article before a vowel and starts with a capital letter."""
    text = re.sub(r"\b([Aa]) (?=[aeio])", r"\1n ", text)
    return text[0].upper() + text[1:]


def held_out(relation, key):
    """The two ways of asking for this fact that training never sees; other facts are asked in them."""
    digest = hashlib.sha256(f"{relation.name}/{key}".encode()).digest()
    places = list(range(len(relation.questions)))
    random.Random(digest).shuffle(places)
    return sorted(places[:HELD_OUT_PER_FACT])


def answer(relation, key):
    return sentence(relation.answer.format(k=key, v=relation.pairs[key]))


def question(relation, key, place):
    return sentence(relation.questions[place].format(k=key))


def sample(rng):
    """One fact, asked in a way that training may see."""
    weights = [len(relation.pairs) ** 0.8 for relation in RELATIONS]
    relation = rng.choices(RELATIONS, weights)[0]
    key = rng.choice(list(relation.pairs))
    kept_out = held_out(relation, key)
    place = rng.choice([p for p in range(len(relation.questions)) if p not in kept_out])
    return question(relation, key, place), answer(relation, key)


def capital_follow_up(rng):
    """A second capital, asked for in a few words that only make sense after the first question."""
    key = rng.choice(list(tables.CAPITALS))
    forms = ("And {k}?", "What about {k}?", "And of {k}?", "And the capital of {k}?", "How about {k}?")
    return rng.choice(forms).format(k=key), answer(RELATIONS[0], key)


def compare_sizes(rng):
    small, big = sorted(rng.sample(range(len(tables.SIZES)), 2))
    first, second = rng.sample((tables.SIZES[small], tables.SIZES[big]), 2)
    if rng.random() < 0.5:
        ask = rng.choice(("Which is bigger, {a} or {b}?", "What is bigger: {a} or {b}?", "Is {a} bigger than {b}?"))
        reply = f"{tables.SIZES[big]} is bigger than {tables.SIZES[small]}."
    else:
        ask = rng.choice(("Which is smaller, {a} or {b}?", "What is smaller: {a} or {b}?", "Is {a} smaller than {b}?"))
        reply = f"{tables.SIZES[small]} is smaller than {tables.SIZES[big]}."
    if ask.startswith("Is"):
        right = (first == tables.SIZES[big]) == ("bigger" in ask)
        reply = f"{'Yes' if right else 'No'}, {reply}"
    return ask.format(a=first, b=second), sentence(reply)


INVENTED = (
    ("Zam", "Bor", "Kel", "Tru", "Mon", "Dal", "Vor", "Lin", "Pog", "Sar"),
    ("oria", "land", "istan", "avia", "ego", "ul"),
)


def unknown(rng):
    """A question the model cannot answer, and an honest reply."""
    place = rng.choice(INVENTED[0]) + rng.choice(("", "a", "i", "o")) + rng.choice(INVENTED[1])
    asks = (
        (f"What is the capital of {place}?", f"I do not know the capital of {place}."),
        (f"Tell me the capital of {place}.", f"I do not know the capital of {place}."),
        ("Who won the football match yesterday?", "I do not know that. I am a very small model."),
        ("What will the weather be tomorrow?", "I do not know that. I am a very small model."),
        ("Who is the president?", "I do not know that. I am a very small model."),
        ("Can you write a computer program?", "I am sorry, I am too small for that."),
        ("Explain quantum physics to me.", "I am sorry, I am too small for that."),
        ("Can you translate a book?", "I am sorry, I am too small for that."),
        ("What time is it?", "I do not know that. I have no clock."),
        ("What day is it today?", "I do not know that. I have no calendar."),
    )
    return rng.choice(asks)


def evaluation():
    """Every fact in the ways of asking that training never sees."""
    for relation in RELATIONS:
        for key in relation.pairs:
            for place in held_out(relation, key):
                yield question(relation, key, place), answer(relation, key)
