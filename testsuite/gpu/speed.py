"""Speed on the GPU beside torch, in one run: products against cuBLAS, attention against SDPA, models by `sinter bench`.

    speed.py FOLDER MODEL[:MODEL...] OUT.json

Each kernel is measured alone, by events, the second cache emptied before each launch, in rounds: ours, torch's, ours,
torch's. A time is the median of a round; the ratio is torch's over ours, above 1 where ours is faster. The models' figures
are `sinter bench`'s own, which checks its results first. FOLDER takes what is left over. Without models one is made.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DRY = bool(os.environ.get("SINTER_DRY"))
REPEATS = 3 if DRY else 40
ROUNDS = 1 if DRY else 2
# Heads of queries, of keys and values, and how wide they are: as gpu_check measures them.
HEADS = (32, 8, 128)


def times(run) -> dict:
    """The times of one call in microseconds; none on the CPU, where only the call is tried."""
    for _ in range(3):
        run()
    if DEVICE == "cpu":
        return {"median_us": None}
    flush = torch.empty(256 << 20, dtype=torch.uint8, device=DEVICE)
    found = []
    for _ in range(REPEATS):
        flush.zero_()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize()
        found.append(begin.elapsed_time(end) * 1e3)
    found.sort()
    last = len(found) - 1
    parts = {"fastest_tenth_us": 1, "median_us": 5, "slowest_tenth_us": 9}
    return {name: found[last * part // 10] for name, part in parts.items()}


def theirs(row: dict) -> dict:
    """torch's times for what a row of gpu_check says."""
    random = lambda *shape: torch.randn(*shape, device=DEVICE, dtype=torch.bfloat16)
    if row["kind"] == "product":
        x, weight = random(row["tokens"], row["k"]), random(row["n"], row["k"])
        return times(lambda: torch.nn.functional.linear(x, weight))
    (queries, cached, width), tokens = HEADS, row["tokens"]
    q = random(1, queries, tokens, width)
    k, v = (random(1, cached, row["context"], width) for _ in range(2))
    attend = torch.nn.functional.scaled_dot_product_attention
    return times(lambda: attend(q, k, v, is_causal=tokens > 1, enable_gqa=True))


def ours(folder: Path, number: int) -> dict:
    out = folder / f"speed_{number}.json"
    command = ["gpu_check", "speed", "--out", str(out)]
    if DRY:
        command += ["--virtual", "sm_90a"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150)
    if not out.exists():
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    found = json.loads(out.read_text())
    if "rows" not in found:
        raise RuntimeError(f"{' '.join(command)}: {found['error']}")
    return found


def kernels(folder: Path) -> dict:
    rounds = [ours(folder, 0)]
    rows = [{"sinter": [], "torch": [], **row} for row in rounds[0]["rows"]]
    for number in range(ROUNDS):
        if number > 0:
            rounds.append(ours(folder, number))
        for row, mine in zip(rows, rounds[number]["rows"], strict=True):
            row["sinter"].append(mine.get("median_us"))
            row["good"] = bool(row["good"] and mine["good"])
            if "tokens" in row:
                row["torch"].append(theirs(row))
    for row in rows:
        other = [time["median_us"] for time in row["torch"]]
        if row["good"] and all(row["sinter"]) and all(other):
            row["torch_over_sinter"] = sum(other) / sum(row["sinter"])
    good = all(part["good"] for part in rounds)
    return {"good": good, "repeats": REPEATS, "rounds": ROUNDS, "rows": rows}


def bench(model: str, what: list[str]) -> dict:
    device = os.environ.get("SINTER_DEVICE", "cuda")
    command = ["sinter", "bench", model, *what, "--device", device, "--json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    except subprocess.TimeoutExpired:
        return {"command": command, "error": "no answer in 90 s"}
    if done.returncode != 0:
        return {"command": command, "error": done.stderr.strip()}
    return {"command": command, **json.loads(done.stdout)}


def clocks() -> str | None:
    query = ["nvidia-smi", "--query-gpu=clocks.sm,clocks.mem,power.draw,temperature.gpu", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, timeout=20).stdout.strip() or None
    except (OSError, subprocess.TimeoutExpired):
        return None


def main() -> None:
    folder, models, out = Path(sys.argv[1]), [name for name in sys.argv[2].split(":") if name], Path(sys.argv[3])
    result = {"torch": torch.__version__, "gpu": torch.cuda.get_device_name() if DEVICE == "cuda" else None}
    # What is known so far stays if the time is up.
    keep = lambda: out.write_text(json.dumps(result, indent=1))
    result["clocks_before"] = clocks()
    try:
        result["kernels"] = kernels(folder)
    except (RuntimeError, subprocess.TimeoutExpired, OSError, ValueError) as error:
        result["kernels"] = {"good": False, "error": f"{type(error).__name__}: {error}"}
    keep()
    if not models:
        made = folder / "random_model"
        script = [sys.executable, str(Path(__file__).parent / "make_model.py"), str(made), *(["small"] if DRY else [])]
        subprocess.run(script, check=True, timeout=120)
        models = [str(made)]
    short = ["--prompt", "16", "--decode", "4"] if DRY else []
    whats = [short] if DRY else [[], ["kernels"], ["--prompt", "2048", "--decode", "32"]]
    result["models"] = []
    for model in models:
        for what in whats:
            result["models"].append(bench(model, what))
            keep()
    result["clocks_after"] = clocks()
    keep()
    bad = any("error" in model for model in result["models"])
    sys.exit(0 if result["kernels"]["good"] and not bad else 1)


if __name__ == "__main__":
    main()
