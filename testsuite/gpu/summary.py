"""One page of what run.sh found.

    summary.py OUT_DIR
"""

import json
import sys
from pathlib import Path


def read(path: Path):
    """A JSON file; none if it is not there, or not whole because the time was up."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def checks(rows: list | None):
    if rows is None:
        return "no result"
    found = {"cases": len(rows), "good": sum(bool(row["good"]) for row in rows)}
    bad = [row for row in rows if not row["good"]]
    if bad:
        found["first_failures"] = bad[:5]
    return found


def speed(out: Path):
    found = read(out / "speed.json")
    if found is None:
        return "no result"
    keep = ("prefill", "decode", "decode_bytes_per_second", "chunked_equals_whole", "error")
    models = [
        {"command": " ".join(model["command"][2:]), **{key: model[key] for key in keep if key in model}}
        for model in found.get("models", [])
    ]
    rows = found["kernels"].get("rows", [])
    ratio = lambda row: [row.get("torch_over_sinter"), row["sinter"][:1], row["good"]]
    name = lambda row: f"{row['kind']} {row.get('n', '')}x{row.get('k', '')} {row.get('context', '')} T={row.get('tokens')}"
    kernels = {"torch over sinter, microseconds, right": {name(row): ratio(row) for row in rows}}
    return {"clocks": [found.get("clocks_before"), found.get("clocks_after")], "kernels": kernels, "models": models}


def main() -> None:
    out = Path(sys.argv[1])
    gpu = out / "gpu.csv"
    summary = {"run": read(out / "run.json"), "gpu": gpu.read_text().splitlines()[-1:] if gpu.exists() else None}
    summary["phases"] = read(out / "phases.json")
    for name in ("kernels", "torch_kernels", "models"):
        summary[name] = checks(read(out / f"{name}.json"))
    for log in sorted(out.glob("sanitizer_*.log")):
        summary[log.stem] = log.read_text().strip().splitlines()[-1:]
    summary["speed"] = speed(out)
    (out / "summary.json").write_text(json.dumps(summary, indent=1))
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
