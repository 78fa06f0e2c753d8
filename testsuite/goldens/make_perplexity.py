"""Writes `perplexity.json`: the perplexity of the example model on a text, with windows that slide, by transformers.

The loop is the one of transformers' documentation ("Perplexity of fixed-length models"): each token but the first of the
text is scored once, with what its window holds before it.

    python make_perplexity.py
"""

import json
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers

HERE = Path(__file__).resolve().parent
EXAMPLE = HERE.parent.parent / "examples" / "tiny_chat"
TEXT = "eval/arithmetic.jsonl"
# Of the text so many lines.
LINES = 40
CASES = [(512, 256), (64, 16), (100, 100)]


@torch.no_grad()
def perplexity(model, ids, window, stride):
    sum_of_losses, scored, previous_end = 0.0, 0, 0
    for begin in range(0, len(ids), stride):
        end = min(begin + window, len(ids))
        part = torch.tensor([ids[begin:end]])
        labels = part.clone()
        labels[:, : previous_end - begin] = -100
        # The model compares each row with the next label, so the first label of a window counts for nothing.
        count = int((labels[:, 1:] != -100).sum())
        if count:
            sum_of_losses += float(model(part, labels=labels).loss.double()) * count
            scored += count
        previous_end = end
        if end == len(ids):
            break
    return float(torch.tensor(sum_of_losses / scored, dtype=torch.float64).exp()), scored


if __name__ == "__main__":
    tokenizer = transformers.AutoTokenizer.from_pretrained(EXAMPLE / "model")
    model = transformers.AutoModelForCausalLM.from_pretrained(EXAMPLE / "model", dtype=torch.float32).eval()
    ids = tokenizer.encode("\n".join((EXAMPLE / TEXT).read_text().splitlines()[:LINES]))
    rows = []
    for window, stride in CASES:
        value, scored = perplexity(model, ids, window, stride)
        rows.append({"window": window, "stride": stride, "perplexity": value, "scored": scored})
    (HERE / "perplexity.json").write_text(json.dumps({"text": TEXT, "lines": LINES, "cases": rows}, indent=1) + "\n")
    print(rows)
