"""Writes bf16.json: how far transformers' own bfloat16 run of each golden model is from its float32 run.

The distance is the root mean square difference of the logits (or hidden values), as a share of the float32 values'
standard deviation. It is the yardstick for our bfloat16 runs: a compiler may not lose more than the reference does.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForSequenceClassification

HERE = Path(__file__).parent
KINDS = {"logits": AutoModelForCausalLM, "scores": AutoModelForSequenceClassification, "hidden": AutoModel}


def distance(case: Path) -> float:
    expected = load_file(case / "expected.safetensors")
    result_name = next(name for name in KINDS if name in expected)
    kind = KINDS[result_name]
    if "text_config" in json.loads((case / "config.json").read_text()):
        kind = AutoModelForImageTextToText
    model = kind.from_pretrained(case, dtype=torch.bfloat16, experts_implementation="eager").eval()
    tokens = torch.tensor(expected["tokens"]).reshape(1, -1)
    with torch.no_grad():
        result = model(tokens)
    values = (result.last_hidden_state if result_name == "hidden" else result.logits)[0].float().numpy()
    wanted = expected[result_name]
    return float(np.sqrt(np.mean((values - wanted) ** 2)) / wanted.std())


def main() -> int:
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
