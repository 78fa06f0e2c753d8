"""One page of what run.sh found.

    summary.py OUT_DIR
"""

import json
import sys
from pathlib import Path


def main() -> None:
    out = Path(sys.argv[1])
    read = lambda name: json.loads((out / name).read_text()) if (out / name).exists() else None
    summary = {"gpu": (out / "gpu.csv").read_text().splitlines()[-1]}
    for name in ("kernels", "torch_kernels", "models"):
        rows = read(f"{name}.json")
        if rows is None:
            summary[name] = "no result"
            continue
        summary[name] = {"cases": len(rows), "good": sum(bool(row["good"]) for row in rows)}
        bad = [row for row in rows if not row["good"]]
        if bad:
            summary[name]["first_failures"] = bad[:5]
    for log in sorted(out.glob("sanitizer_*.log")):
        summary[log.stem] = log.read_text().strip().splitlines()[-1:]
    speed = read("speed.json")
    if speed:
        keep = ("prefill", "decode", "decode_bytes_per_second", "chunked_equals_whole", "error")
        summary["speed"] = [
            {"command": " ".join(model["command"][2:]), **{key: model[key] for key in keep if key in model}}
            for model in speed["models"]
        ]
    (out / "summary.json").write_text(json.dumps(summary, indent=1))
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
