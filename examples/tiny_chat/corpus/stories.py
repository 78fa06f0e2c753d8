"""Short stories from a grammar, questions about them, and descriptions of animals and things."""

from .facts import sentence
from .smalltalk import draw_name

HEROES = "fox bear rabbit mouse cat dog bird frog owl duck horse lion hedgehog turtle squirrel pig goat wolf".split()
PEOPLE = "girl boy king queen farmer sailor baker teacher".split()
TRAITS = "little brave kind clever shy young old happy curious lazy friendly quiet".split()
PLACES = {
    "forest": "in a green forest",
    "village": "in a small village",
    "farm": "on a quiet farm",
    "mountain": "on a high mountain",
    "river": "near a wide river",
    "sea": "by the blue sea",
    "castle": "in an old castle",
    "garden": "in a beautiful garden",
    "town": "in a busy town",
    "island": "on a lonely island",
}
# What goes wrong, what the helper does, and what the hero feels in the end.
PLOTS = (
    ("lost a golden key", "looked under every stone and found the key", "The key was safe again"),
    ("could not find the way home", "knew the way and walked ahead", "They were home before dark"),
    ("was very hungry in the cold winter", "shared some warm bread", "Nobody was hungry any more"),
    ("fell into a deep hole", "brought a long rope and pulled", "The hole was soon far behind them"),
    ("wanted to cross the water but had no boat", "built a small boat out of wood", "They crossed the water together"),
    ("heard a strange noise at night", "brought a lamp, and they saw that it was only the wind", "They laughed and slept well"),
    ("wanted to see the stars but was afraid of the dark", "held a little light", "The stars were bright and beautiful"),
    ("had no friends to play with", "said hello and brought a red ball", "They played until the sun went down"),
    ("broke a cup and was sad", "mended the cup with glue", "The cup looked like new"),
    ("wanted to grow a big tree", "gave a small seed and some water", "After many days the tree was tall"),
    ("was caught in the rain", "had a big umbrella", "They both stayed warm and dry"),
    ("forgot the song for the feast", "sang the first words softly", "The whole feast sang along"),
)
MORALS = (
    "From that day on they were good friends.",
    "They lived happily ever after.",
    "It is good to have a friend.",
    "In the evening they had a cup of tea together.",
    "They never forgot that day.",
)


def story(rng):
    """A request for a story, the story, and now and then a question about it."""
    hero, helper = rng.sample(HEROES + PEOPLE[:4] if rng.random() < 0.3 else HEROES, 2)
    trait, place = rng.choice(TRAITS), rng.choice(list(PLACES))
    name = draw_name(rng)
    problem, help_given, ending = rng.choice(PLOTS)
    text = " ".join(
        (
            rng.choice(("Once upon a time", "A long time ago", "Once")) + f" there was a {trait} {hero} called {name}.",
            f"{name} lived {PLACES[place]}.",
            rng.choice(("One day", "One morning", "One evening")) + f" {name} {problem}.",
            rng.choice((f"Then a {helper} came along and {help_given}.", f"But a kind {helper} {help_given}.")),
            f"{ending}.",
            rng.choice(MORALS),
        )
    )
    turns = [(story_request(rng, trait, hero, place), sentence(text))]
    if rng.random() < 0.5:
        turns.append(story_question(rng, name, hero, helper, place))
    return turns


def story_request(rng, trait, hero, place):
    forms = (
        "Tell me a story.",
        "Please tell me a story.",
        "Can you tell me a short story?",
        f"Tell me a story about a {hero}.",
        f"Tell me a story about a {trait} {hero}.",
        f"Can you tell me a story about a {hero}?",
        f"I want to hear a story about a {hero}.",
        f"Write a short story about a {hero} {PLACES[place]}.",
        f"Tell me a story about a {trait} {hero} {PLACES[place]}.",
    )
    return sentence(rng.choice(forms))


def story_question(rng, name, hero, helper, place):
    return rng.choice(
        (
            (f"What was the {hero} called?", f"The {hero} was called {name}."),
            (f"Where did {name} live?", f"{name} lived {PLACES[place]}."),
            (f"Who helped {name}?", sentence(f"A {helper} helped {name}.")),
            (f"Who was {name}?", sentence(f"{name} was a {hero}.")),
            ("I like that story.", "Thank you! I am glad that you like it."),
            ("That was nice!", "Thank you! I can tell you another story."),
        )
    )


# Name: size, look, home, food or use.
ANIMALS = """
lion: big: golden fur: on the dry plains of Africa: meat
elephant: very big: grey skin and a long trunk: in Africa and Asia: leaves and grass
mouse: very small: soft fur and a long tail: in fields and houses: seeds and cheese
cat: small: soft fur and sharp claws: in the homes of people: fish and meat
dog: loyal: a wet nose and a good sense of smell: in the homes of people: meat
owl: wise: big eyes and soft wings: in old trees: mice
frog: small: smooth green skin: near ponds: insects
horse: strong: long legs and a mane: in stables and fields: grass and hay
penguin: funny: black and white feathers: on the cold ice: fish
bee: tiny: thin wings and yellow stripes: in a hive: nectar
whale: huge: smooth skin: in the deep sea: small sea animals
giraffe: tall: a very long neck: in Africa: leaves
rabbit: small: long ears: in a burrow: carrots and grass
bear: strong: thick brown fur: in the forest: berries and fish
fox: clever: red fur and a bushy tail: in the forest: mice and berries
duck: small: flat feet and a broad beak: near lakes: plants
camel: patient: a hump on its back: in the desert: dry plants
snake: long: smooth scales and no legs: in warm places: small animals
cow: calm: a big body and two horns: on farms: grass
spider: small: eight long legs: in a web: flies
"""
THINGS = """
the sun: The sun is a star. It gives us light and warmth. Without the sun there would be no life on Earth.
the moon: The moon circles the Earth. It shines at night. Its light comes from the sun.
rain: Rain is water that falls from the clouds. It makes the plants grow. After the rain you can see a rainbow.
snow: Snow is white and cold. It falls in winter. Children like to play in the snow.
the sea: The sea is wide and blue. Its water is salty. Many fish live in the sea.
a tree: A tree is a tall plant. It has roots, a trunk and leaves. Birds build their nests in it.
bread: Bread is made from flour, water and salt. It is baked in a hot oven. Fresh bread smells good.
a book: A book has many pages. It is full of words and stories. You can read a book again and again.
winter: Winter is the cold season. The days are short and the nights are long. Sometimes it snows.
summer: Summer is the warm season. The days are long and sunny. Many people go to the sea.
spring: Spring comes after winter. The flowers bloom and the birds sing. The days grow longer.
autumn: Autumn comes after summer. The leaves turn red and yellow. The days grow shorter.
a computer: A computer is a machine that works with numbers. It follows a program. I live inside a computer.
a house: A house has walls, windows and a roof. People live in it. It keeps them warm and dry.
a flower: A flower is a beautiful plant. It has colourful petals. Bees visit it to find nectar.
music: Music is made of sounds. People sing or play instruments. Music can make you happy or sad.
water: Water is clear and has no taste. All living things need it. It falls from the sky as rain.
fire: Fire is hot and bright. It needs wood and air. You should be careful with fire.
a school: A school is a place where children learn. They read, write and count. A teacher helps them.
a friend: A friend is somebody who likes you. Friends help each other. It is good to have a friend.
"""
ANIMAL_ROWS = [line.split(": ") for line in ANIMALS.strip().splitlines()]
THING_ROWS = [line.split(": ", 1) for line in THINGS.strip().splitlines()]


def description(rng):
    forms = (
        "Describe {k}.",
        "What is {k}?",
        "Tell me about {k}.",
        "Tell me something about {k}.",
        "What do you know about {k}?",
    )
    if rng.random() < 0.5:
        thing, text = rng.choice(THING_ROWS)
        return rng.choice(forms).format(k=thing), text
    animal, size, look, home, food = rng.choice(ANIMAL_ROWS)
    article = "an" if animal[0] in "aeio" else "a"
    text = f"A {animal} is a {size} animal. It has {look}. It lives {home}. It eats {food}."
    return rng.choice(forms).format(k=f"{article} {animal}"), sentence(text)


LISTS = {
    "animals": [row[0] for row in ANIMAL_ROWS],
    "colours": "red blue green yellow orange purple".split(),
    "fruits": "apples pears plums bananas cherries lemons".split(),
    "countries": "France Italy Spain Japan Canada Brazil".split(),
    "numbers": "three seven eight twelve twenty forty".split(),
}
COUNT_WORDS = {"two": 2, "three": 3, "four": 4}


def listing(rng):
    kind, word = rng.choice(list(LISTS)), rng.choice(list(COUNT_WORDS))
    chosen = rng.sample(LISTS[kind][:6], COUNT_WORDS[word])
    form = rng.choice(("Name {w} {k}.", "Tell me {w} {k}.", "List {w} {k}.", "Can you name {w} {k}?"))
    return form.format(w=word, k=kind), sentence(", ".join(chosen[:-1]) + f" and {chosen[-1]}.")


REPEATED = (
    "the cat is on the roof; I like warm bread; it is a nice day; the sun is bright; hello world; my house is blue; "
    "we are friends; the train is late; birds can fly; water is wet"
).split("; ")


def repeat(rng):
    """Copies a text; half of them are made of invented words, so that the copying itself is learnt."""
    if rng.random() < 0.4:
        text = rng.choice(REPEATED)
    else:
        text = " ".join(draw_name(rng).lower() for _ in range(rng.randint(1, 4)))
    ask = rng.choice(("Say: {t}", "Repeat after me: {t}", "Please say: {t}", "Repeat: {t}"))
    return ask.format(t=text), sentence(text) + "."
