"""A model of the shape of Llama-3.2-1B with random weights, in bf16: speed does not depend on their values.

    make_model.py FOLDER [small]
"""

import json
import math
import sys
from pathlib import Path

LARGE = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "vocab_size": 128256,
}
SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 256,
}


def shapes(config: dict) -> dict[str, list[int]]:
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    cached = config["num_key_value_heads"] * config["head_dim"]
    found = {"model.embed_tokens.weight": [config["vocab_size"], hidden], "model.norm.weight": [hidden]}
    for layer in range(config["num_hidden_layers"]):
        for name, shape in {
            "input_layernorm": [hidden],
            "post_attention_layernorm": [hidden],
            "self_attn.q_proj": [queries, hidden],
            "self_attn.k_proj": [cached, hidden],
            "self_attn.v_proj": [cached, hidden],
            "self_attn.o_proj": [hidden, queries],
            "mlp.gate_proj": [inner, hidden],
            "mlp.up_proj": [inner, hidden],
            "mlp.down_proj": [hidden, inner],
        }.items():
            found[f"model.layers.{layer}.{name}.weight"] = shape
    return found


def header(tensors: dict[str, list[int]]) -> tuple[bytes, int]:
    """The head of the file, and the bytes of all tensors (https://github.com/huggingface/safetensors, format)."""
    entries, offset = {}, 0
    for name, shape in tensors.items():
        count = 2 * math.prod(shape)
        entries[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + count]}
        offset += count
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, offset


def random(tensors: dict[str, list[int]]):
    """The bytes of each tensor."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device).manual_seed(0)
    for shape in tensors.values():
        if len(shape) == 1:
            values = torch.ones(shape)
        else:
            values = 0.02 * torch.randn(shape, generator=generator, device=device)
        yield values.to(torch.bfloat16).cpu().view(torch.uint8).numpy().tobytes()


def make(folder: Path, shape: dict, empty: bool = False) -> None:
    """Writes the model. An empty one has zeros for weights, which take no room on the disk."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "dtype": "bfloat16",
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        **shape,
    }
    folder.mkdir(parents=True, exist_ok=True)
    head, total = header(shapes(shape))
    with (folder / "model.safetensors").open("wb") as file:
        file.write(head)
        if empty:
            file.truncate(len(head) + total)
        else:
            file.writelines(random(shapes(shape)))
    (folder / "config.json").write_text(json.dumps(config, indent=1))


if __name__ == "__main__":
    make(Path(sys.argv[1]), SMALL if "small" in sys.argv[2:] else LARGE)
