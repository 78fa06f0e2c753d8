"""Trains the small chat model from nothing, or measures the one that is committed.

    python train.py            # makes the text, trains, writes model/ and eval/ (half an hour on two idle cores)
    python train.py --eval     # prints the exact-match accuracy of model/ on eval/
    python train.py --calibrate  # writes eval/calibration.txt, conversations like those it was trained on
    python train.py --chat     # talks with the committed model
"""

import argparse
import json
import os
import random
import time
from collections import defaultdict
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

import batches
from batches import BOS, CHAT_TEMPLATE, END, IGNORED, PAD, Packer, encode
from corpus import arithmetic, facts
from corpus.conversations import EARLY, LATE, conversation
from network import CONFIG, Network

HERE = Path(__file__).resolve().parent
MODEL, EVAL = HERE / "model", HERE / "eval"
SEED = 7
STEPS = 2600
WARMUP = 60
# From this step on the text is drawn with the late weights.
LATE_FROM = 1400
MUON_RATE, ADAM_RATE = 5e-3, 3e-3
CHECK_EVERY = 200
# Questions of each kind that a check asks.
CHECKED = 100
# Held-out questions of each kind that are kept in `eval/`.
EVALUATED = {"facts": (facts, 300), "arithmetic": (arithmetic, 200)}


def write_evaluation():
    """A fixed sample of the held-out questions of each kind."""
    EVAL.mkdir(exist_ok=True)
    for name, (source, count) in EVALUATED.items():
        chosen = random.Random(SEED).sample(list(source.evaluation()), count)
        lines = [json.dumps({"prompt": prompt, "answer": answer}) for prompt, answer in chosen]
        (EVAL / f"{name}.jsonl").write_text("\n".join(lines) + "\n")


def write_calibration(count=240):
    """Conversations as the chat template prints them, for `sinter quantize --calibration`."""
    rng = random.Random(SEED + 4)
    lines = []
    for _ in range(count):
        said = "".join(f"<|{m['role']}|>{m['content']}{END}" for m in conversation(rng, LATE))
        lines.append(BOS + said)
    (EVAL / "calibration.txt").write_text("".join(lines) + "\n")


def read_evaluation(name):
    return [json.loads(line) for line in (EVAL / f"{name}.jsonl").read_text().splitlines()]


def write_json(name, value):
    (MODEL / name).write_text(json.dumps(value, indent=2) + "\n")


def write_description(tokenizer):
    """Everything of the checkpoint but the weights."""
    MODEL.mkdir(exist_ok=True)
    tokenizer.save(str(MODEL / "tokenizer.json"))
    bos, end, pad = (tokenizer.token_to_id(token) for token in (BOS, END, PAD))
    ids = {"bos_token_id": bos, "eos_token_id": end, "pad_token_id": pad}
    write_json("config.json", CONFIG | ids | {"vocab_size": tokenizer.get_vocab_size()})
    write_json("generation_config.json", ids | {"do_sample": False, "max_new_tokens": 160})
    write_json(
        "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": BOS,
            "eos_token": END,
            "pad_token": PAD,
            "model_max_length": CONFIG["max_position_embeddings"],
            "clean_up_tokenization_spaces": False,
            "chat_template": CHAT_TEMPLATE,
        },
    )


def optimisers(network):
    """Muon for the matrices of the layers, which learns in fewer steps; AdamW for the rest."""
    matrices = [p for name, p in network.named_parameters() if p.dim() == 2 and "embed" not in name]
    rest = [p for name, p in network.named_parameters() if p.dim() == 1 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=MUON_RATE, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=ADAM_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def rate_at(step, steps):
    """A short warm-up, a plateau until 60 % of the way, then a straight line down to nothing."""
    return min((step + 1) / WARMUP, 1.0, 2.5 * (1.0 - step / steps))


@torch.no_grad()
def answers(network, tokenizer, prompts, longest=28):
    """Greedy replies. Prompts of one length run together, so no padding is needed."""
    groups, replies = defaultdict(list), {}
    for prompt in prompts:
        tokens, _ = encode(tokenizer, [{"role": "user", "content": prompt}])
        tokens.append(tokenizer.token_to_id(batches.ROLES["assistant"]))
        groups[len(tokens)].append((prompt, tokens))
    for length, group in groups.items():
        tokens = torch.tensor([tokens for _, tokens in group])
        for _ in range(longest):
            size = tokens.shape[1]
            positions = torch.arange(size).expand(len(group), size)
            mask = torch.ones(size, size, dtype=torch.bool).tril()[None, None]
            last = network(tokens, positions, mask)[:, -1]
            tokens = torch.cat([tokens, network.logits(last).argmax(-1, keepdim=True)], dim=1)
        for (prompt, _), row in zip(group, tokens[:, length:].tolist()):
            end = tokenizer.token_to_id(END)
            replies[prompt] = tokenizer.decode(row[: row.index(end)] if end in row else row)
    return replies


def exact_replies(network, tokenizer, name, count):
    questions = read_evaluation(name)[:count]
    replies = answers(network, tokenizer, [q["prompt"] for q in questions])
    return sum(replies[q["prompt"]] == q["answer"] for q in questions)


def train_step(network, body, packer, optimisers_, scale):
    tokens, targets, positions, mask = packer.batch()
    with torch.autocast("cpu", torch.bfloat16):
        hidden = body(tokens, positions, mask)
        kept = targets != IGNORED
        logits = network.logits(hidden[kept])
    loss = F.cross_entropy(logits.float(), targets[kept])
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    for optimiser in optimisers_:
        for group in optimiser.param_groups:
            group["lr"] = group.setdefault("full_rate", group["lr"]) * scale
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    return loss.item()


class Run:
    """What a training run consists of; it can be put aside and taken up again without changing its result."""

    def __init__(self, tokenizer):
        torch.manual_seed(SEED)
        self.tokenizer = tokenizer
        self.network = Network(tokenizer.get_vocab_size())
        self.packer = Packer(tokenizer, SEED + 1)
        self.optimisers = optimisers(self.network)
        self.step = 0
        self.best = -1

    def save(self, path):
        parts = [part.state_dict() for part in (self.network, *self.optimisers)]
        torch.save((self.step, self.best, parts, self.packer.rng.getstate(), self.packer.waiting), path)

    def load(self, path):
        self.step, self.best, parts, random_state, self.packer.waiting = torch.load(path, weights_only=False)
        for part, state in zip((self.network, *self.optimisers), parts):
            part.load_state_dict(state)
        self.packer.rng.setstate(random_state)

    def check(self):
        """Measures the run, and writes its weights if no earlier ones were better."""
        scores = {name: exact_replies(self.network, self.tokenizer, name, CHECKED) for name in EVALUATED}
        print(f"step {self.step}  {scores}", flush=True)
        if sum(scores.values()) >= self.best:
            self.best = sum(scores.values())
            save_file(self.network.checkpoint(), MODEL / "model.safetensors", metadata={"format": "pt"})


def train(steps, state):
    """Trains and keeps the checkpoint with the best held-out accuracy seen at the regular checks."""
    write_evaluation()
    tokenizer = batches.train_tokenizer(SEED)
    write_description(tokenizer)
    run = Run(tokenizer)
    if state and state.exists():
        run.load(state)
    body, losses, start = torch.compile(run.network), [], time.time()
    while run.step < steps:
        run.packer.stage = LATE if run.step >= LATE_FROM else EARLY
        losses.append(train_step(run.network, body, run.packer, run.optimisers, rate_at(run.step, steps)))
        run.step += 1
        if run.step % 25 == 0:
            speed = len(losses) * batches.ROWS * batches.LENGTH / (time.time() - start)
            print(f"step {run.step}  loss {sum(losses) / len(losses):.4f}  {speed:.0f} tokens/s", flush=True)
            losses, start = [], time.time()
        if run.step % CHECK_EVERY == 0 or run.step == steps:
            run.check()
            if state:
                run.save(state)
            losses, start = [], time.time()


def load_committed():
    """The committed checkpoint as any user of transformers loads it: bf16 weights, run in float32."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    return AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval(), tokenizer


@torch.no_grad()
def reply_to(model, tokenizer, messages):
    inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    output = model.generate(**inputs)
    return tokenizer.decode(output[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True)


def evaluate():
    model, tokenizer = load_committed()
    for name in EVALUATED:
        questions = read_evaluation(name)
        right = 0
        for question in questions:
            reply = reply_to(model, tokenizer, [{"role": "user", "content": question["prompt"]}])
            right += reply == question["answer"]
            if reply != question["answer"]:
                print(f"  {question['prompt']}  wanted {question['answer']!r}, got {reply!r}")
        print(f"{name}: {right} of {len(questions)} exact, {100 * right / len(questions):.1f} %")


def chat():
    model, tokenizer = load_committed()
    messages = []
    while line := input("> ").strip():
        messages.append({"role": "user", "content": line})
        messages.append({"role": "assistant", "content": reply_to(model, tokenizer, messages)})
        print(messages[-1]["content"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calibrate", action="store_true", help="write a text to calibrate quantisation with")
    parser.add_argument("--eval", action="store_true", help="measure the committed checkpoint")
    parser.add_argument("--chat", action="store_true", help="talk with the committed checkpoint")
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--state", type=Path, help="keep the state of the run in this file, and go on from it")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.calibrate:
        write_calibration()
    elif options.eval:
        evaluate()
    elif options.chat:
        chat()
    else:
        train(options.steps, options.state)


if __name__ == "__main__":
    main()
