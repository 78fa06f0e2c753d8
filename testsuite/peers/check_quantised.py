"""Holds `sinter quantize` against transformers: what it writes loads there, gives the logits that Sinter gives, and keeps the
small chat model's answers, with a calibration text better than without; so do weights that are rounded at load.

    pip install -r ../goldens/requirements.txt accelerate
    python check_quantised.py ../../target/release/sinter

A reply counts as right if greedy decoding would give it whole: every token of it, the end included, is the likeliest one
after those before it. Perplexity is that of the replies.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "tiny_chat"
CALIBRATION = ["--calibration", str(EXAMPLE / "eval" / "calibration.txt")]
# The share of right answers that must be left, where one is promised, and the format whose perplexity must be undercut. Not
# with --asymmetric: transformers 5.23 expects zero points that are not packed, and refuses the checkpoint;
# `driver/tests/quantize.rs` reads it back.
FORMATS = {
    "int8": (["--format", "int8"], 0.99, None),
    "int4": (["--format", "int4"], 0.97, None),
    "int4 gptq": (["--format", "int4", "--method", "gptq", *CALIBRATION], 0.97, "int4"),
    "int4 gptq in order": (["--format", "int4", "--method", "gptq", "--act-order", *CALIBRATION], 0.97, "int4"),
    "int4 awq": (["--format", "int4", "--method", "awq", *CALIBRATION], 0.97, "int4"),
    "int4 by row": (["--format", "int4", "--group", "row"], None, None),
    "int4 by row gptq": (["--format", "int4", "--group", "row", "--method", "gptq", *CALIBRATION], None, "int4 by row"),
    "int4 by row awq": (["--format", "int4", "--group", "row", "--method", "awq", *CALIBRATION], None, "int4 by row"),
    "int4 in groups of 64": (["--format", "int4", "--group", "64"], None, None),
    "fp8": (["--format", "fp8"], None, None),
}
# The same for weights that are rounded at load, with activations of 8 bits.
AT_LOAD = {"--quant int8": ("int8", 0.99), "--quant int4": ("int4", 0.97)}
# Sums in another order differ by so many standard deviations of the logits.
BOUND = 1e-4


class Sinter:
    """What the command computes of the example model with further arguments, seen as a model of transformers."""

    def __init__(self, command, *arguments):
        self.command = [command, "logits", str(EXAMPLE / "model"), "--device", "host", *arguments]

    def __call__(self, ids):
        with tempfile.TemporaryDirectory() as place:
            out = Path(place) / "logits.safetensors"
            rows = []
            for row in ids:
                tokens = ["--tokens", ",".join(map(str, row.tolist())), "--out", str(out)]
                subprocess.run(self.command + tokens, check=True, stdout=subprocess.DEVNULL)
                rows.append(load_file(out)["logits"][0].clone())
        return SimpleNamespace(logits=torch.stack(rows))


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def conversations(tokenizer, name):
    """The tokens of each question with its answer, and where the answer begins."""
    for line in (EXAMPLE / "eval" / f"{name}.jsonl").read_text().splitlines():
        case = json.loads(line)
        messages = [{"role": "user", "content": case["prompt"]}]
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
        answer = tokenizer(case["answer"], add_special_tokens=False)["input_ids"]
        yield prompt + answer + [tokenizer.convert_tokens_to_ids("<|end|>")], len(prompt)


@torch.no_grad()
def evaluate(model, tokenizer, name):
    """Right answers, and the summed log-likelihood and number of their tokens."""
    right, likelihood, count = 0, 0.0, 0
    cases = list(conversations(tokenizer, name))
    for start in range(0, len(cases), 50):
        batch = cases[start : start + 50]
        longest = max(len(tokens) for tokens, _ in batch)
        # Attention is causal, so what follows a conversation changes nothing in it.
        ids = torch.tensor([tokens + [0] * (longest - len(tokens)) for tokens, _ in batch])
        logits = model(ids).logits
        for row, (tokens, begin) in enumerate(batch):
            wanted, given = ids[row, begin : len(tokens)], logits[row, begin - 1 : len(tokens) - 1]
            right += bool((given.argmax(-1) == wanted).all())
            likelihood += given.log_softmax(-1).gather(1, wanted[:, None]).sum().item()
            count += len(wanted)
    return right, likelihood, count


def report(name, model, tokenizer):
    facts, arithmetic = evaluate(model, tokenizer, "facts"), evaluate(model, tokenizer, "arithmetic")
    perplexity = torch.tensor(-(facts[1] + arithmetic[1]) / (facts[2] + arithmetic[2])).exp().item()
    print(f"{name:22} facts {facts[0]:3}, arithmetic {arithmetic[0]:3}, perplexity {perplexity:.4f}", end="")
    return facts[0] + arithmetic[0], perplexity


@torch.no_grad()
def distance(sinter, folder, model, tokens):
    """How far Sinter's logits of a directory are from transformers', in standard deviations."""
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "logits.safetensors"
        ids = ",".join(map(str, tokens))
        subprocess.run(
            [sinter, "logits", str(folder), "--tokens", ids, "--out", str(out), "--dtype", "f32", "--device", "host"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        found = load_file(out)["logits"][0]
    wanted = model(torch.tensor([tokens])).logits[0]
    return ((found - wanted).abs().max() / wanted.std()).item()


def main():
    sinter = sys.argv[1]
    tokenizer = AutoTokenizer.from_pretrained(EXAMPLE / "model")
    before, _ = report("as trained", load(EXAMPLE / "model"), tokenizer)
    print()
    tokens = next(conversations(tokenizer, "facts"))[0]
    failed, perplexities = False, {}
    with tempfile.TemporaryDirectory() as place:
        for name, (arguments, kept, worse) in FORMATS.items():
            folder = Path(place) / name.replace(" ", "_")
            command = [sinter, "--json", "quantize", str(EXAMPLE / "model"), "-o", str(folder), *arguments]
            told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            model = load(folder)
            after, perplexities[name] = report(name, model, tokenizer)
            apart = distance(sinter, folder, model, tokens)
            products = told["mean_output_error"]
            products = f", {products:.2%} of products" if products is not None else ""
            print(f", {after / before:.1%} kept, mean error {told['mean_error']:.2%}{products}, logits {apart:.1e} apart")
            failed |= apart > BOUND or (kept is not None and after < kept * before)
            failed |= worse is not None and perplexities[name] >= perplexities[worse]
    for name, (quant, kept) in AT_LOAD.items():
        after, _ = report(name, Sinter(sinter, "--dtype", "f32", "--quant", quant), tokenizer)
        print(f", {after / before:.1%} kept")
        failed |= after < kept * before
    sys.exit("a bound is broken" if failed else 0)


if __name__ == "__main__":
    main()
