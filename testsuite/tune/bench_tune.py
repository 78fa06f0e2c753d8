"""How near the cost model's choices come to the best measured: `make bench-tune`.

Every schedule that the model does not think hopeless is measured, for the chat model of this repository and for shapes of real
models, whose weights are made where they are measured. The model's choices must reach 0.95 of the best (geometric mean over
kernels). Beside it: all schedules gave the same bits, which `sinter tune` checks in every turn and fails otherwise.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

SHAPES = {
    "smollm2-135m": dict(hidden=576, inner=1536, layers=30, heads=9, kv_heads=3, head_dim=64, vocab=49152),
    "llama-3.2-1b": dict(hidden=2048, inner=8192, layers=16, heads=32, kv_heads=8, head_dim=64, vocab=128256),
}
LEAST = 0.95


def config(shape):
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "dtype": "bfloat16",
        "hidden_size": shape["hidden"], "intermediate_size": shape["inner"], "num_hidden_layers": shape["layers"],
        "num_attention_heads": shape["heads"], "num_key_value_heads": shape["kv_heads"], "head_dim": shape["head_dim"],
        "vocab_size": shape["vocab"], "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
        "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2,
    }


def tensors(shape):
    """Names and shapes of a llama checkpoint."""
    hidden, inner = shape["hidden"], shape["inner"]
    q, kv = shape["heads"] * shape["head_dim"], shape["kv_heads"] * shape["head_dim"]
    yield "model.embed_tokens.weight", [shape["vocab"], hidden]
    yield "model.norm.weight", [hidden]
    for layer in range(shape["layers"]):
        at = f"model.layers.{layer}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield f"{at}.{norm}.weight", [hidden]
        for name, rows in (("q", q), ("k", kv), ("v", kv)):
            yield f"{at}.self_attn.{name}_proj.weight", [rows, hidden]
        yield f"{at}.self_attn.o_proj.weight", [hidden, q]
        for name in ("gate", "up"):
            yield f"{at}.mlp.{name}_proj.weight", [inner, hidden]
        yield f"{at}.mlp.down_proj.weight", [hidden, inner]


def write_model(folder, shape):
    """A checkpoint of zeros: the file has a hole where its tensors are, and nobody reads them."""
    header, offset = {}, 0
    for name, extents in tensors(shape):
        size = 2
        for extent in extents:
            size *= extent
        header[name] = {"dtype": "BF16", "shape": extents, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config(shape)))
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + offset)


def run(command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr}")
    return json.loads(done.stdout)


def measured(args, name, folder):
    """The report of one model; one that was exported is measured with weights made there."""
    common = ["--budget", args.budget, "--rounds", args.rounds, "--threads", args.threads, "--json"]
    common += ["--candidates", args.candidates, "--db", folder / "db.json", "--plot", args.plots / f"{name}.svg"]
    if name == "tiny_chat":
        return run([args.sinter, "tune", ROOT / "examples/tiny_chat/model", *common])
    write_model(folder / "model", SHAPES[name])
    run([args.sinter, "tune", folder / "model", "--export", folder / "parcel", "--dtype", args.dtype, "--json"])
    return run([args.sinter, "tune", "--measure", folder / "parcel", *common])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sinter", default=ROOT / "target/release/sinter")
    parser.add_argument("--models", default="tiny_chat,smollm2-135m,llama-3.2-1b")
    parser.add_argument("--budget", default="240s")
    parser.add_argument("--rounds", default="9")
    parser.add_argument("--candidates", default="36")
    parser.add_argument("--threads", default="2")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--plots", type=Path, default=ROOT / "target")
    args = parser.parse_args()
    shares = {}
    for name in args.models.split(","):
        with tempfile.TemporaryDirectory() as folder:
            report = measured(args, name, Path(folder))["report"]
        certain = [kernel for kernel in report["kernels"] if kernel["rounds"] >= 6]
        shares[name] = report["model_share"]
        print(f"{name}: {report['model_share']:.3f} of the best measured, {len(certain)} kernels, {report['seconds']:.0f} s")
        for kernel in sorted(certain, key=lambda kernel: kernel["model_share"])[:4]:
            best = min(kernel["candidates"], key=lambda candidate: candidate["ratio"]["median"])
            print(f"    {kernel['name']:<24} {kernel['rows']:<5} {kernel['model_share']:.3f}  {kernel['model']}; best {best['schedule']}")
        if not certain:
            sys.exit(f"{name}: nothing was measured")
    print("check: all schedules gave the same bits")
    if min(shares.values()) < LEAST:
        sys.exit(f"the cost model's choices reach less than {LEAST} of the best measured")


if __name__ == "__main__":
    main()
