"""Whole golden models on the GPU against the logits that transformers gave: run.sh calls it.

    models.py GOLDENS OUT.json
"""

import json
import math
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tensors import load

F32_BOUND = 1e-3
BF16_FACTOR = 1.1
DEVICE = os.environ.get("SINTER_DEVICE", "cuda")
# A command that takes longer hangs.
SECONDS = 60
# Models that are checked at a time: most of a command is compilation.
AT_ONCE = min(8, os.cpu_count() or 1)
# Each text is a command of its own. Over so many the host's distance is 0.54 to 0.87 of transformers', by model.
MOST_TEXTS = 32
# A dry run takes these alone, for the virtual GPU is slow.
DRY = ("bert", "llama")


def sinter_logits(model: Path, tokens: list[int], flags: list[str]) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.safetensors"
        ids = ",".join(map(str, tokens))
        command = ["sinter", "logits", str(model), "--tokens", ids, "--out", str(out), "--device", DEVICE, *flags]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"{' '.join(command)}: no answer in {SECONDS} s") from None
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
        return next(iter(load(out).values())).double().flatten().tolist()


def deviation(values: list[float]) -> float:
    mean = sum(values) / len(values)
    return (sum((x - mean) ** 2 for x in values) / len(values)) ** 0.5


def worst(found: list[float], wanted: list[float]) -> float:
    errors = [abs(a - b) for a, b in zip(found, wanted, strict=True)]
    # max() passes over what is no number.
    return (math.nan if any(map(math.isnan, errors)) else max(errors)) / deviation(wanted)


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


def results(tensors: dict) -> list[float]:
    """What transformers gave, whichever a model gives."""
    return next(tensors[name] for name in ("logits", "hidden", "scores") if name in tensors).double().flatten().tolist()


def bf16_distances(model: Path, tokens: list[int], wanted: list[float], theirs: float) -> tuple[float, float]:
    """Our distance and that of transformers, over several texts where they were measured so (goldens/make_bf16.py)."""
    texts = [tokens]
    if (model / "bf16.safetensors").exists():
        tensors = load(model / "bf16.safetensors")
        texts = tensors["tokens"].tolist()
        every = results(tensors)
        wanted = every[: len(every) // len(texts) * MOST_TEXTS]
        theirs = tensors["squares"][:MOST_TEXTS].double().mean().item() ** 0.5 / deviation(wanted)
    found = [value for text in texts[:MOST_TEXTS] for value in sinter_logits(model, text, ["--dtype", "bf16"])]
    return distance(found, wanted), theirs


def check(model: Path, theirs: float | None) -> dict:
    tensors = load(model / "expected.safetensors")
    tokens = tensors["tokens"].flatten().tolist()
    wanted = results(tensors)
    whole = sinter_logits(model, tokens, ["--dtype", "f32"])
    result = {"model": model.name, "f32_error": worst(whole, wanted)}
    result["good"] = result["f32_error"] <= F32_BOUND
    if "greedy" in tensors:
        result["greedy"] = greedy_agrees(model, tokens, tensors["greedy"].flatten().tolist())
        fed = [["--decode", str(min(4, len(tokens) - 1))], ["--chunk", "1"], ["--chunk", "3"]]
        result["same_bits"] = all(sinter_logits(model, tokens, ["--dtype", "f32", *flags]) == whole for flags in fed)
        result["good"] &= result["greedy"] and result["same_bits"]
    if theirs is not None:
        ours, theirs = bf16_distances(model, tokens, wanted, theirs)
        result["bf16_distance"], result["bf16_transformers"] = ours, theirs
        result["good"] &= ours <= BF16_FACTOR * theirs
    return result


def checked(model: Path, theirs: float | None) -> dict:
    try:
        result = check(model, theirs)
    except (RuntimeError, OSError, KeyError, ValueError) as error:
        result = {"model": model.name, "good": False, "error": f"{type(error).__name__}: {error}"}
    print(json.dumps(result), flush=True)
    return result


def main() -> None:
    goldens, out = Path(sys.argv[1]), Path(sys.argv[2])
    bf16 = json.loads((goldens / "bf16.json").read_text())
    # A golden that shares its sibling's weights is covered by the other tests.
    own = lambda folder: (folder / "config.json").exists() and (folder / "expected.safetensors").exists()
    models = [folder for folder in sorted(goldens.iterdir()) if own(folder)]
    if os.environ.get("SINTER_DRY"):
        models = [folder for folder in models if folder.name in DRY]
    results: list[dict] = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for result in pool.map(lambda folder: checked(folder, bf16.get(folder.name)), models):
            results.append(result)
            # What is known so far stays if the time is up.
            out.write_text(json.dumps(results, indent=1))
    sys.exit(0 if results and all(result["good"] for result in results) else 1)


if __name__ == "__main__":
    main()
