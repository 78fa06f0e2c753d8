"""Writes bf16.json: how far transformers' own bfloat16 run of each golden model is from its float32 run.

The distance is the root mean square difference of the logits (or hidden values, or scores), as a share of the float32 values'
standard deviation. It is the yardstick for our bfloat16 runs: a compiler may not lose more than the reference does.

Where the golden's one text gives too few numbers for that, it is the distance over many texts, which go into the golden's
`bf16.safetensors` with what float32 gives for them, and the mean square difference of each text (`squares`).
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForSequenceClassification

HERE = Path(__file__).parent
KINDS = {"logits": AutoModelForCausalLM, "scores": AutoModelForSequenceClassification, "hidden": AutoModel}
# A text has three scores. A compiler whose distance is 0.5 to 0.85 of this one over many texts is farther off than 1.1 times
# over every third to fifth text alone; over 64 it still is in 3 % of all choices of modernbert_scores.
SCORED_TEXTS = 128
# A few tokens of this model are off by 27 times the mean square; the distance over one text is 0.008 to 0.031.
TEXTS = {"opt_post_norm": 16}


def run(model, tokens: np.ndarray, result_name: str) -> np.ndarray:
    """The results of texts, one after another."""
    rows = []
    for text in torch.tensor(tokens):
        with torch.no_grad():
            result = model(text[None])
        rows.append((result.last_hidden_state if result_name == "hidden" else result.logits)[0].float().numpy())
    return np.stack(rows)


def texts(case: Path, expected: dict, result_name: str) -> np.ndarray:
    """The golden's own text, and as many more of its length as it takes."""
    count = TEXTS.get(case.name, SCORED_TEXTS if result_name == "scores" else 1)
    own = expected["tokens"]
    vocabulary = json.loads((case / "config.json").read_text()).get("vocab_size", 0)
    generator = torch.Generator().manual_seed(5000)
    more = [torch.randint(3, vocabulary, own.shape, generator=generator).numpy() for _ in range(count - 1)]
    return np.stack([own, *more])


def distance(case: Path) -> float:
    expected = load_file(case / "expected.safetensors")
    result_name = next(name for name in KINDS if name in expected)
    kind = KINDS[result_name]
    if "text_config" in json.loads((case / "config.json").read_text()):
        kind = AutoModelForImageTextToText
    load = lambda dtype: kind.from_pretrained(case, dtype=dtype, experts_implementation="eager").eval()
    tokens, wanted = texts(case, expected, result_name), expected[result_name][None]
    values = run(load(torch.bfloat16), tokens, result_name)
    (case / "bf16.safetensors").unlink(missing_ok=True)
    if len(tokens) > 1:
        wanted = run(load(torch.float32), tokens, result_name)
        squares = ((values - wanted) ** 2).reshape(len(tokens), -1).mean(1)
        save_file({"tokens": tokens, result_name: wanted, "squares": squares}, case / "bf16.safetensors")
    return float(np.sqrt(np.mean((values - wanted) ** 2)) / wanted.std())


def main() -> int:
    torch.set_num_threads(1)
    cases = sorted(path.parent for path in HERE.glob("*/expected.safetensors") if (path.parent / "config.json").exists())
    cases = [case for case in cases if not (case / "same_weights_as").exists()]
    # With names, only their distances are computed anew.
    table = json.loads((HERE / "bf16.json").read_text()) if sys.argv[1:] else {}
    table |= {case.name: round(distance(case), 6) for case in cases if case.name in sys.argv[1:] or not sys.argv[1:]}
    table = dict(sorted(table.items()))
    (HERE / "bf16.json").write_text(json.dumps(table, indent=1) + "\n")
    print(json.dumps(table, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
