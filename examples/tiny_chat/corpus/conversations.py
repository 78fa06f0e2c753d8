"""Mixes the generators into whole conversations, and roughens what the user types."""

from . import arithmetic, facts, smalltalk, stories

# How often each kind of exchange is drawn, early and late in the training. Arithmetic is the hardest to learn, so
# it is the most frequent; results below zero confuse the model until it can subtract, so they come late.
SEGMENTS = (
    (32, 40, lambda rng: [arithmetic.sample(rng)]),
    (0, 9, lambda rng: [arithmetic.below_zero(rng)]),
    (6, 4, arithmetic.chain),
    (4, 4, lambda rng: [arithmetic.story_problem(rng)]),
    (2, 2, lambda rng: [arithmetic.larger(rng)]),
    (2, 2, lambda rng: [arithmetic.count(rng)]),
    (28, 32, lambda rng: [facts.sample(rng)]),
    (2, 2, lambda rng: [facts.compare_sizes(rng)]),
    (2, 2, lambda rng: [facts.unknown(rng)]),
    (12, 9, lambda rng: [smalltalk.exchange(rng)]),
    (4, 4, smalltalk.remembered),
    (1, 1, lambda rng: [smalltalk.opinion(rng)]),
    (4, 3, stories.story),
    (3, 3, lambda rng: [stories.description(rng)]),
    (1, 1, lambda rng: [stories.listing(rng)]),
    (2, 3, lambda rng: [stories.repeat(rng)]),
)
EARLY, LATE = 0, 1
SYSTEM = (
    "You are a helpful assistant.",
    "You are a friendly assistant.",
    "You are Pip, a tiny language model.",
    "Answer the questions of the user.",
    "Be brief and polite.",
    "You are a helpful, honest assistant. Answer in short sentences.",
)
OPENINGS = ("Please tell me: ", "Hey Pip, ", "Quick question: ", "Hi! ", "Hello! ", "Can you help me? ", "Next question: ")


def conversation(rng, stage=EARLY):
    """A list of messages, as a chat client would send them."""
    length = rng.choice((1, 1, 1, 2, 3, 4, 6))
    turns = [smalltalk.greeting(rng)] if length > 1 and rng.random() < 0.5 else []
    weights = [row[stage] for row in SEGMENTS]
    recall = None
    for _ in range(length):
        segment = rng.choices(SEGMENTS, weights)[0][-1]
        added = segment(rng)
        if segment is smalltalk.remembered and recall is None and rng.random() < 0.6:
            # The question comes after other exchanges, so that the model must look further back.
            added, recall = added[:1], added[1]
        if added[0][1].startswith("The capital of") and rng.random() < 0.3:
            added = added + [facts.capital_follow_up(rng)]
        turns += added
    turns += [recall] if recall else []
    if length > 1 and rng.random() < 0.4:
        turns.append(smalltalk.farewell(rng))
    return messages(rng, turns)


def messages(rng, turns):
    result = []
    if rng.random() < 0.15:
        result.append({"role": "system", "content": rng.choice(SYSTEM)})
    for ask, reply in turns:
        result.append({"role": "user", "content": roughen(rng, ask)})
        result.append({"role": "assistant", "content": reply})
    return result


def roughen(rng, text):
    """People forget capitals and full stops, and they do not come to the point at once."""
    if rng.random() < 0.08:
        text = rng.choice(OPENINGS) + text
    if rng.random() < 0.15:
        text = text.rstrip("?.!")
    if rng.random() < 0.15:
        text = text.lower()
    return text
