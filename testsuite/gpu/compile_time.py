"""How long it takes to make the GPU kernels of a whole model, for all sizes of step: cold, and from the compile cache.

    compile_time.py SINTER [--rounds N]

The model has the shape of Llama-3.2-1B; its weights are zeros, which compilation never reads. A time is that of the whole
command `sinter inspect MODEL --target T`, from config.json to PTX. Two cold compilations must give the same bytes.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from make_model import LARGE, make

COLD, WARM = 5.0, 0.3


def inspect(sinter: str, model: Path, target: str, cache: Path) -> tuple[float, dict]:
    command = [sinter, "inspect", str(model), "--target", target, "--json"]
    begin = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "SINTER_CACHE": str(cache)})
    seconds = time.monotonic() - begin
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: {done.stderr.strip()}")
    return seconds, json.loads(done.stdout)


def compiled(cache: Path) -> str:
    """What was compiled, as one number: the cache keeps each kernel in a file of its own."""
    digest = hashlib.sha256()
    for file in sorted((cache / "kernels").iterdir()):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()


def measure(sinter: str, model: Path, target: str, rounds: int, folder: Path) -> dict:
    cold, warm, made, kernels = [], [], set(), 0
    for number in range(rounds):
        cache = folder / f"{target}-{number}"
        seconds, found = inspect(sinter, model, target, cache)
        cold.append(seconds)
        kernels = len(found["gpu"]["kernels"])
        made.add(compiled(cache))
        warm += [inspect(sinter, model, target, cache)[0] for _ in range(3)]
    return {
        "target": target,
        "kernels": kernels,
        "cold_seconds": statistics.median(cold),
        "cold_all": cold,
        "warm_seconds": statistics.median(warm),
        "warm_all": warm,
        "same_bytes": len(made) == 1,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sinter")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    bad = []
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        make(model, LARGE, empty=True)
        for target in ("sm_80", "sm_89", "sm_90a"):
            row = measure(args.sinter, model, target, args.rounds, Path(folder))
            print(json.dumps(row), flush=True)
            if row["cold_seconds"] > COLD or row["warm_seconds"] > WARM or not row["same_bytes"]:
                bad.append(target)
    sys.exit(f"{', '.join(bad)}: more than {COLD} s cold or {WARM} s warm, or other bytes" if bad else 0)


if __name__ == "__main__":
    main()
