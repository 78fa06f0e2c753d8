"""Sums and differences of numbers up to 99, with pairs of operands that training never sees."""

import hashlib

LARGEST = 99
WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
).split()
SUM_FORMS = (
    "What is {a} + {b}?",
    "What is {a} plus {b}?",
    "{a} + {b}",
    "{a}+{b}=?",
    "{a} + {b} = ?",
    "How much is {a} + {b}?",
    "Add {a} and {b}.",
    "Calculate {a} + {b}.",
    "What's the sum of {a} and {b}?",
    "Can you add {b} to {a}?",
    "What do I get when I add {a} and {b}?",
)
DIFFERENCE_FORMS = (
    "What is {a} - {b}?",
    "What is {a} minus {b}?",
    "{a} - {b}",
    "{a}-{b}=?",
    "{a} - {b} = ?",
    "How much is {a} - {b}?",
    "Subtract {b} from {a}.",
    "Calculate {a} - {b}.",
    "Take {b} away from {a}.",
    "What is left when I take {b} from {a}?",
)
THINGS = "apples pears books coins stones eggs cookies flowers shells balls stamps pens".split()


def is_held_out(sign, a, b):
    """About one pair in fourteen. A sum is held out in both orders, so that swapping gives nothing away."""
    if sign == "+":
        a, b = min(a, b), max(a, b)
    return hashlib.sha256(f"{a}{sign}{b}".encode()).digest()[0] < 18


def draw_operands(rng, sign):
    """Operands of one or two digits that training may see; small ones are as frequent as people ask for them."""
    while True:
        largest = rng.choice((20, LARGEST, LARGEST, LARGEST))
        a, b = rng.randint(0, largest), rng.randint(0, largest)
        if sign == "-" and a < b and rng.random() < 0.8:
            a, b = b, a
        if not is_held_out(sign, a, b):
            return a, b


def equation(sign, a, b):
    return f"{a} {sign} {b} = {a + b if sign == '+' else a - b}."


def sample(rng):
    sign = rng.choice("+-")
    a, b = draw_operands(rng, sign)
    form = rng.choice(SUM_FORMS if sign == "+" else DIFFERENCE_FORMS)
    if max(a, b) < len(WORDS) and rng.random() < 0.3:
        word = "plus" if sign == "+" else "minus"
        form = rng.choice(("What is {a} {w} {b}?", "How much is {a} {w} {b}?", "{a} {w} {b}", "Tell me {a} {w} {b}."))
        return form.format(a=WORDS[a], w=word, b=WORDS[b]).capitalize(), equation(sign, a, b)
    return form.format(a=a, b=b), equation(sign, a, b)


def below_zero(rng):
    """A difference whose result is negative."""
    while True:
        a, b = sorted(rng.sample(range(LARGEST + 1), 2))
        if not is_held_out("-", a, b):
            return rng.choice(DIFFERENCE_FORMS).format(a=a, b=b), equation("-", a, b)


def chain(rng):
    """A sum and a second step that starts from its result."""
    while True:
        question, reply = sample(rng)
        start = int(reply[:-1].split("= ")[1])
        sign, step = rng.choice("+-"), rng.randint(1, 20)
        if 0 <= start <= LARGEST and not (sign == "-" and step > start) and not is_held_out(sign, start, step):
            break
    forms = ("Now add {n}.", "Add {n} to that.", "And plus {n}?") if sign == "+" else (
        "Now subtract {n}.", "Take {n} away from that.", "And minus {n}?")
    return [(question, reply), (rng.choice(forms).format(n=step), equation(sign, start, step))]


def story_problem(rng):
    sign = rng.choice("+-")
    a, b = draw_operands(rng, sign)
    a, b = (max(a, b), min(a, b)) if sign == "-" else (a, b)
    if is_held_out(sign, a, b):
        return story_problem(rng)
    thing = rng.choice(THINGS)
    if sign == "+":
        forms = (
            "I have {a} {t} and I get {b} more. How many {t} do I have?",
            "There are {a} {t} in one box and {b} {t} in another. How many are there together?",
            "Anna has {a} {t} and Tom has {b}. How many {t} do they have together?",
        )
    else:
        forms = (
            "I have {a} {t} and I lose {b}. How many {t} are left?",
            "There were {a} {t} and {b} are gone. How many are left?",
            "Tom has {a} {t} and gives {b} away. How many {t} does he have now?",
        )
    return rng.choice(forms).format(a=a, b=b, t=thing), equation(sign, a, b)


def larger(rng):
    a, b = rng.sample(range(LARGEST + 1), 2)
    form = rng.choice(("Which is larger, {a} or {b}?", "Which number is bigger, {a} or {b}?", "Is {a} larger than {b}?"))
    reply = f"{max(a, b)} is larger than {min(a, b)}."
    if form.startswith("Is"):
        reply = f"{'Yes' if a > b else 'No'}, {reply}"
    return form.format(a=a, b=b), reply


def count(rng):
    start, length = rng.randint(0, 90), rng.randint(3, 9)
    start = rng.choice((0, 1, 1, start))
    numbers = list(range(start, start + length))
    if rng.random() < 0.25:
        numbers.reverse()
    form = rng.choice(("Count from {a} to {b}.", "Please count from {a} to {b}.", "Can you count from {a} to {b}?"))
    return form.format(a=numbers[0], b=numbers[-1]), ", ".join(map(str, numbers)) + "."


def evaluation():
    """All held-out pairs, each asked in one form."""
    for sign, forms in (("+", SUM_FORMS), ("-", DIFFERENCE_FORMS)):
        for a in range(LARGEST + 1):
            for b in range(LARGEST + 1):
                if is_held_out(sign, a, b):
                    yield forms[(7 * a + b) % len(forms)].format(a=a, b=b), equation(sign, a, b)
