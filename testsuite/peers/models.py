"""Random-weight models of real shapes, once as a Hugging Face directory and as GGUF files.

Speed does not depend on the values of the weights, so no download is needed. The directory and the first GGUF file hold the
same bfloat16 bits; the files of a format hold them rounded, every matrix in that format.
"""

import json
from pathlib import Path

import gguf
import gguf.quants
import numpy as np

SHAPES = {
    "llama-3.2-1b": dict(hidden=2048, inner=8192, layers=16, heads=32, kv_heads=8, head_dim=64, vocab=128256),
    "qwen3-0.6b": dict(family="qwen3", hidden=1024, inner=3072, layers=28, heads=16, kv_heads=8, head_dim=128, vocab=151936),
    "smollm2-135m": dict(hidden=576, inner=1536, layers=30, heads=9, kv_heads=3, head_dim=64, vocab=49152),
}

# What `sinter --quant` takes, and the format of llama.cpp beside it.
FORMATS = {"bf16": "BF16", "int8": "Q8_0", "int4": "Q4_0"}

# Hugging Face name, GGUF name, and the two extents of each matrix of a layer.
MATRICES = [
    ("self_attn.q_proj", "attn_q", "q", "hidden"),
    ("self_attn.k_proj", "attn_k", "kv", "hidden"),
    ("self_attn.v_proj", "attn_v", "kv", "hidden"),
    ("self_attn.o_proj", "attn_output", "hidden", "q"),
    ("mlp.gate_proj", "ffn_gate", "inner", "hidden"),
    ("mlp.up_proj", "ffn_up", "inner", "hidden"),
    ("mlp.down_proj", "ffn_down", "hidden", "inner"),
]
NORMS = [("input_layernorm", "attn_norm"), ("post_attention_layernorm", "ffn_norm")]


def family(shape):
    """The name of the architecture, the same in both worlds."""
    return shape.get("family", "llama")


def bf16(values):
    """Round-to-nearest-even bfloat16 bits of float32 values."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def tensors(shape):
    """Yields (Hugging Face name, GGUF name, float32 norm or bfloat16 matrix bits)."""
    random = np.random.default_rng(0)
    size = dict(shape, q=shape["heads"] * shape["head_dim"], kv=shape["kv_heads"] * shape["head_dim"])

    def matrix(rows, columns):
        return bf16(random.standard_normal((rows, columns), dtype=np.float32) * 0.02)

    yield "model.embed_tokens.weight", "token_embd.weight", matrix(size["vocab"], size["hidden"])
    yield "model.norm.weight", "output_norm.weight", np.ones(size["hidden"], np.float32)
    head_norms = [(f"self_attn.{at}_norm", f"attn_{at}_norm") for at in "qk"] if family(shape) == "qwen3" else []
    for layer in range(shape["layers"]):
        for ours, theirs in NORMS:
            yield f"model.layers.{layer}.{ours}.weight", f"blk.{layer}.{theirs}.weight", np.ones(size["hidden"], np.float32)
        for ours, theirs in head_norms:
            yield f"model.layers.{layer}.{ours}.weight", f"blk.{layer}.{theirs}.weight", np.ones(size["head_dim"], np.float32)
        for ours, theirs, rows, columns in MATRICES:
            weight = matrix(size[rows], size[columns])
            yield f"model.layers.{layer}.{ours}.weight", f"blk.{layer}.{theirs}.weight", weight


def config(shape):
    return {
        "architectures": [f"{family(shape).capitalize()}ForCausalLM"], "model_type": family(shape), "hidden_act": "silu",
        "dtype": "bfloat16",
        "hidden_size": shape["hidden"], "intermediate_size": shape["inner"], "num_hidden_layers": shape["layers"],
        "num_attention_heads": shape["heads"], "num_key_value_heads": shape["kv_heads"], "head_dim": shape["head_dim"],
        "vocab_size": shape["vocab"], "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
        "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2,
    }


def write_safetensors(path, named):
    """The format by hand: bfloat16 has no numpy type."""
    header, offset = {}, 0
    for name, values in named:
        dtype = "BF16" if values.dtype == np.uint16 else "F32"
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": [offset, offset + values.nbytes]}
        offset += values.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, values in named:
            file.write(values.tobytes())


def write_gguf(path, shape, named, peer="BF16"):
    writer = gguf.GGUFWriter(path, family(shape))
    writer.add_context_length(8192)
    writer.add_embedding_length(shape["hidden"])
    writer.add_block_count(shape["layers"])
    writer.add_feed_forward_length(shape["inner"])
    writer.add_head_count(shape["heads"])
    writer.add_head_count_kv(shape["kv_heads"])
    writer.add_key_length(shape["head_dim"])
    writer.add_value_length(shape["head_dim"])
    writer.add_rope_dimension_count(shape["head_dim"])
    writer.add_rope_freq_base(500000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(shape["vocab"])
    writer.add_tokenizer_model("none")
    for name, values in named:
        if values.dtype == np.uint16:
            kind = gguf.GGMLQuantizationType[peer]
            if peer == "BF16":
                raw = values.view(np.uint8)
            else:
                raw = gguf.quants.quantize((values.astype(np.uint32) << 16).view(np.float32), kind)
            writer.add_tensor(name, raw, raw_dtype=kind)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make(name, folder):
    """Writes both forms of a model below `folder` unless they are there; returns their paths."""
    shape, place = SHAPES[name], Path(folder) / name
    ours, theirs = place / "hf", place / "model.gguf"
    if not (place / "complete").exists():
        ours.mkdir(parents=True, exist_ok=True)
        everything = list(tensors(shape))
        (ours / "config.json").write_text(json.dumps(config(shape), indent=1))
        write_safetensors(ours / "model.safetensors", [(name, values) for name, _, values in everything])
        write_gguf(theirs, shape, [(name, values) for _, name, values in everything])
        (place / "complete").touch()
    return ours, theirs


def make_as(name, folder, form):
    """As `make`, with the peer's file in its format of that name; matrices are rounded by the gguf package."""
    ours, theirs = make(name, folder)
    if form == "bf16":
        return ours, theirs
    file = theirs.with_name(f"model-{FORMATS[form]}.gguf")
    if not file.exists():
        half = file.with_suffix(".half")
        write_gguf(half, SHAPES[name], [(name, values) for _, name, values in tensors(SHAPES[name])], FORMATS[form])
        half.rename(file)
    return ours, file
