"""The facts the model learns by heart: one table to a kind of question.

A relation is a table of keys and values, the questions that ask for a value, and the sentence that answers.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Relation:
    name: str
    answer: str
    questions: tuple[str, ...]
    pairs: dict[str, str]


def table(text):
    """Reads `key: value; key: value`."""
    return dict(entry.strip().split(": ") for entry in text.split(";"))


CAPITALS = table(
    "France: Paris; Germany: Berlin; Italy: Rome; Spain: Madrid; Portugal: Lisbon; England: London; Ireland: Dublin; "
    "Scotland: Edinburgh; Norway: Oslo; Sweden: Stockholm; Finland: Helsinki; Denmark: Copenhagen; Poland: Warsaw; "
    "Austria: Vienna; Hungary: Budapest; Greece: Athens; Turkey: Ankara; Russia: Moscow; Ukraine: Kyiv; Egypt: Cairo; "
    "Kenya: Nairobi; Japan: Tokyo; China: Beijing; India: New Delhi; Thailand: Bangkok; Vietnam: Hanoi; "
    "South Korea: Seoul; Australia: Canberra; New Zealand: Wellington; Canada: Ottawa; Mexico: Mexico City; "
    "Brazil: Brasilia; Argentina: Buenos Aires; Chile: Santiago; Peru: Lima; Cuba: Havana; Iceland: Reykjavik; "
    "Switzerland: Bern; Belgium: Brussels; the Netherlands: Amsterdam"
)

CONTINENTS = table(
    "France: Europe; Germany: Europe; Italy: Europe; Spain: Europe; Norway: Europe; Poland: Europe; Greece: Europe; "
    "Egypt: Africa; Kenya: Africa; Nigeria: Africa; Morocco: Africa; Japan: Asia; China: Asia; India: Asia; "
    "Thailand: Asia; Vietnam: Asia; Canada: North America; Mexico: North America; Cuba: North America; "
    "Brazil: South America; Peru: South America; Chile: South America; Argentina: South America"
)

OPPOSITES = table(
    "hot: cold; big: small; up: down; fast: slow; day: night; happy: sad; old: young; long: short; light: dark; "
    "wet: dry; hard: soft; full: empty; open: closed; left: right; early: late; rich: poor; strong: weak; loud: quiet; "
    "good: bad; first: last; high: low; clean: dirty; near: far; easy: difficult; thick: thin; awake: asleep"
)

COLOURS = table(
    "the sky: blue; grass: green; snow: white; coal: black; a lemon: yellow; a strawberry: red; a carrot: orange; "
    "chocolate: brown; an elephant: grey; a flamingo: pink; a frog: green; a banana: yellow; blood: red; milk: white; "
    "a raven: black; a plum: purple"
)

BABIES = table(
    "dog: puppy; cat: kitten; cow: calf; horse: foal; sheep: lamb; goat: kid; pig: piglet; duck: duckling; "
    "goose: gosling; bear: cub; hen: chick; frog: tadpole; kangaroo: joey; swan: cygnet"
)

SOUNDS = table(
    "dog: barks; cat: meows; cow: moos; sheep: bleats; pig: grunts; duck: quacks; lion: roars; horse: neighs; "
    "bee: buzzes; snake: hisses; owl: hoots; frog: croaks"
)

HOMES = table(
    "bee: hive; bird: nest; spider: web; rabbit: burrow; bear: den; horse: stable; dog: kennel; ant: nest; "
    "pig: sty; beaver: lodge"
)

FOODS = table(
    "cow: grass; panda: bamboo; lion: meat; rabbit: carrots; squirrel: nuts; bee: nectar; cat: fish; mouse: cheese; "
    "koala: leaves; frog: insects"
)

LEGS = table("dog: four; bird: two; spider: eight; ant: six; horse: four; octopus: eight; bee: six; snake: no")

SIDES = table("triangle: three; square: four; pentagon: five; hexagon: six; heptagon: seven; octagon: eight")

UNITS = table(
    "days are in a week: seven days in a week; months are in a year: twelve months in a year; "
    "hours are in a day: twenty-four hours in a day; minutes are in an hour: sixty minutes in an hour; "
    "seconds are in a minute: sixty seconds in a minute; days are in a year: 365 days in a year; "
    "weeks are in a year: fifty-two weeks in a year; years are in a century: one hundred years in a century; "
    "letters are in the alphabet: twenty-six letters in the alphabet; seasons are in a year: four seasons in a year; "
    "continents are on Earth: seven continents on Earth; planets circle the Sun: eight planets circling the Sun"
)

HELLOS = table(
    "French: bonjour; Spanish: hola; German: hallo; Italian: ciao; Portuguese: ola; Japanese: konnichiwa; "
    "Polish: czesc; Swedish: hej; Hawaiian: aloha; Swahili: jambo"
)

DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = (
    "January February March April May June July August September October November December".split()
)
ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split()


def successors(names):
    return {name: names[(place + 1) % len(names)] for place, name in enumerate(names)}


def predecessors(names):
    return {name: names[place - 1] for place, name in enumerate(names)}


# From small to big; every pair is a question.
SIZES = (
    "an ant; a bee; a mouse; a rabbit; a cat; a dog; a sheep; a lion; a horse; an elephant; a house; a mountain; "
    "the Moon; the Earth; the Sun"
).split("; ")
