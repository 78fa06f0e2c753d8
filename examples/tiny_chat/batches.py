"""The tokenizer, and batches of packed conversations."""

import random

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from corpus.conversations import EARLY, conversation

PAD, BOS, END = "<|pad|>", "<|bos|>", "<|end|>"
ROLES = {"system": "<|system|>", "user": "<|user|>", "assistant": "<|assistant|>"}
SPECIAL = [PAD, BOS, END, *ROLES.values()]
VOCABULARY = 1024
CHAT_TEMPLATE = (
    "{{ '<|bos|>' }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
ROWS, LENGTH = 16, 256
IGNORED = -100


def train_tokenizer(seed, n_conversations=12000):
    """Byte-level BPE. Every digit is a token of its own, because sums are done digit by digit."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    rng = random.Random(seed)
    texts = (message["content"] for _ in range(n_conversations) for message in conversation(rng))
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def encode(tokenizer, messages):
    """Token ids as the chat template lays them out, and for each whether the model must learn to say it."""
    tokens, learnt = [tokenizer.token_to_id(BOS)], [False]
    for message in messages:
        content = tokenizer.encode(message["content"]).ids
        is_reply = message["role"] == "assistant"
        tokens += [tokenizer.token_to_id(ROLES[message["role"]]), *content, tokenizer.token_to_id(END)]
        learnt += [False] + [is_reply] * (len(content) + 1)
    return tokens[:LENGTH], learnt[:LENGTH]


def spread_positions(rng, length):
    """Positions of one conversation. Some get a gap, so that far distances are familiar in long chats."""
    positions = list(range(length))
    if rng.random() < 0.2:
        cut, gap = rng.randrange(length), rng.randrange(512 - LENGTH)
        positions = [place + (gap if place >= cut else 0) for place in positions]
    return positions


class Packer:
    """Fills rows with whole conversations; what does not fit into a row opens the next one."""

    def __init__(self, tokenizer, seed):
        self.tokenizer = tokenizer
        self.rng = random.Random(seed)
        self.stage = EARLY
        self.waiting = []

    def row(self):
        tokens, targets, documents, positions = [], [], [], []
        while True:
            if not self.waiting:
                self.waiting.append(encode(self.tokenizer, conversation(self.rng, self.stage)))
            document, learnt = self.waiting[0]
            if len(tokens) + len(document) > LENGTH:
                break
            self.waiting.pop()
            targets += [t if keep else IGNORED for t, keep in zip(document[1:], learnt[1:])] + [IGNORED]
            documents += [len(tokens)] * len(document)
            positions += spread_positions(self.rng, len(document))
            tokens += document
        padding = LENGTH - len(tokens)
        return (
            tokens + [0] * padding,
            targets + [IGNORED] * padding,
            documents + [-1] * padding,
            positions + [0] * padding,
        )

    def batch(self):
        """tokens, targets, positions [ROWS, LENGTH] and a mask that lets no conversation see another."""
        tokens, targets, documents, positions = (torch.tensor(part) for part in zip(*(self.row() for _ in range(ROWS))))
        same = documents[:, :, None] == documents[:, None, :]
        mask = (same & torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril())[:, None]
        return tokens, targets, positions, mask
