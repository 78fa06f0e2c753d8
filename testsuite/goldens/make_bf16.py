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
from transformers import AutoModel, AutoModelForCausalLM

HERE = Path(__file__).parent


def distance(case: Path) -> float:
    expected = load_file(case / "expected.safetensors")
    decoder = "logits" in expected
    kind = AutoModelForCausalLM if decoder else AutoModel
    model = kind.from_pretrained(case, dtype=torch.bfloat16, experts_implementation="eager").eval()
    tokens = torch.tensor(expected["tokens"]).reshape(1, -1)
    with torch.no_grad():
        result = model(tokens)
    values = (result.logits if decoder else result.last_hidden_state)[0].float().numpy()
    wanted = expected["logits" if decoder else "hidden"]
    return float(np.sqrt(np.mean((values - wanted) ** 2)) / wanted.std())


def main() -> int:
    cases = sorted(path.parent for path in HERE.glob("*/expected.safetensors") if (path.parent / "config.json").exists())
    cases = [case for case in cases if not (case / "same_weights_as").exists()]
    table = {case.name: round(distance(case), 6) for case in cases}
    (HERE / "bf16.json").write_text(json.dumps(table, indent=1) + "\n")
    print(json.dumps(table, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
