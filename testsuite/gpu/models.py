"""Whole golden models on the GPU against the logits that transformers gave: run.sh calls it.

    models.py GOLDENS OUT.json
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tensors import load

F32_BOUND = 1e-3
BF16_FACTOR = 1.1


def sinter_logits(model: Path, tokens: list[int], flags: list[str]) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.safetensors"
        ids = ",".join(map(str, tokens))
        command = ["sinter", "logits", str(model), "--tokens", ids, "--out", str(out), "--device", "cuda", *flags]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
        return next(iter(load(out).values())).double().flatten().tolist()


def deviation(values: list[float]) -> float:
    mean = sum(values) / len(values)
    return (sum((x - mean) ** 2 for x in values) / len(values)) ** 0.5


def worst(found: list[float], wanted: list[float]) -> float:
    return max(abs(a - b) for a, b in zip(found, wanted, strict=True)) / deviation(wanted)


def distance(found: list[float], wanted: list[float]) -> float:
    mean = sum((a - b) ** 2 for a, b in zip(found, wanted, strict=True)) / len(wanted)
    return mean**0.5 / deviation(wanted)


def greedy_agrees(model: Path, tokens: list[int], greedy: list[int]) -> bool:
    values = sinter_logits(model, tokens + greedy, ["--dtype", "f32", "--decode", str(len(greedy))])
    width = len(values) // (len(tokens) + len(greedy))
    for at, wanted in enumerate(greedy):
        row = values[(len(tokens) + at - 1) * width : (len(tokens) + at) * width]
        if max(range(width), key=row.__getitem__) != wanted:
            return False
    return True


def check(model: Path, theirs: float | None) -> dict:
    tensors = load(model / "expected.safetensors")
    tokens = tensors["tokens"].flatten().tolist()
    wanted = tensors.get("logits", tensors.get("hidden")).double().flatten().tolist()
    whole = sinter_logits(model, tokens, ["--dtype", "f32"])
    result = {"model": model.name, "f32_error": worst(whole, wanted)}
    result["good"] = result["f32_error"] <= F32_BOUND
    if "greedy" in tensors:
        result["greedy"] = greedy_agrees(model, tokens, tensors["greedy"].flatten().tolist())
        fed = [["--decode", str(min(4, len(tokens) - 1))], ["--chunk", "1"], ["--chunk", "3"]]
        result["same_bits"] = all(sinter_logits(model, tokens, ["--dtype", "f32", *flags]) == whole for flags in fed)
        result["good"] &= result["greedy"] and result["same_bits"]
    if theirs is not None:
        result["bf16_distance"] = distance(sinter_logits(model, tokens, ["--dtype", "bf16"]), wanted)
        result["bf16_transformers"] = theirs
        result["good"] &= result["bf16_distance"] <= BF16_FACTOR * theirs
    return result


def main() -> None:
    goldens, out = Path(sys.argv[1]), Path(sys.argv[2])
    bf16 = json.loads((goldens / "bf16.json").read_text())
    results = []
    for model in sorted(goldens.iterdir()):
        # A golden that shares its sibling's weights is covered by the other tests.
        if not (model / "config.json").exists() or not (model / "expected.safetensors").exists():
            continue
        try:
            results.append(check(model, bf16.get(model.name)))
        except RuntimeError as error:
            results.append({"model": model.name, "good": False, "error": str(error)})
        print(json.dumps(results[-1]), flush=True)
    out.write_text(json.dumps(results, indent=1))
    sys.exit(0 if results and all(result["good"] for result in results) else 1)


if __name__ == "__main__":
    main()
