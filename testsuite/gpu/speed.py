"""Speed on the GPU beside torch, in one run: products against cuBLAS, attention against SDPA, models by `sinter bench`.

    speed.py MODEL[:MODEL...] OUT.json

torch's figures are those of the operations alone, with CUDA graphs and a warm cache of other data in between; the models'
figures are `sinter bench`'s own, which checks its results first.
"""

import json
import subprocess
import sys
from pathlib import Path

import torch

REPEATS = 50
# Shapes of products in models of 1B and 8B: rows of the weight, depth.
PRODUCTS = [(3072, 2048), (2048, 2048), (16384, 2048), (2048, 8192), (6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336)]
TOKENS = [1, 4, 16, 128, 512, 2048]
LENGTHS = [512, 2048, 8192]


def microseconds(run) -> float:
    """The median time of one call, measured by events, the L2 cache cleared before each."""
    flush = torch.empty(256 << 20, dtype=torch.uint8, device="cuda")
    for _ in range(3):
        run()
    times = []
    for _ in range(REPEATS):
        flush.zero_()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) * 1e3)
    return sorted(times)[len(times) // 2]


def products() -> list[dict]:
    rows = []
    for n, k in PRODUCTS:
        weight = torch.randn(n, k, device="cuda", dtype=torch.bfloat16)
        for tokens in TOKENS:
            x = torch.randn(tokens, k, device="cuda", dtype=torch.bfloat16)
            time = microseconds(lambda: torch.nn.functional.linear(x, weight))
            moved = 2 * (n * k + tokens * (n + k))
            rows.append(
                {
                    "n": n,
                    "k": k,
                    "tokens": tokens,
                    "cublas_microseconds": time,
                    "cublas_tflops": 2 * n * k * tokens / time / 1e6,
                    "cublas_gb_per_second": moved / time / 1e3,
                }
            )
    return rows


def attention() -> list[dict]:
    rows = []
    for length in LENGTHS:
        for tokens in (1, length):
            q = torch.randn(1, 32, tokens, 128, device="cuda", dtype=torch.bfloat16)
            k, v = (torch.randn(1, 8, length, 128, device="cuda", dtype=torch.bfloat16) for _ in range(2))
            causal = tokens > 1
            run = lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True)
            rows.append({"tokens": tokens, "context": length, "sdpa_microseconds": microseconds(run)})
    return rows


def bench(model: str, what: list[str]) -> dict:
    command = ["sinter", "bench", model, *what, "--device", "cuda", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        return {"command": command, "error": done.stderr.strip()}
    return {"command": command, **json.loads(done.stdout)}


def main() -> None:
    models, out = sys.argv[1].split(":"), Path(sys.argv[2])
    result = {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "products": products(),
        "attention": attention(),
        "models": [
            bench(model, what)
            for model in models
            for what in ([], ["kernels"], ["--prompt", "2048", "--decode", "32"])
        ],
    }
    out.write_text(json.dumps(result, indent=1))
    sys.exit(1 if any("error" in model for model in result["models"]) else 0)


if __name__ == "__main__":
    main()
