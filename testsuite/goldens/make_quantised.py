"""Writes `quantised/`: one tiny random model for each way of storing quantised weights, and its logits.

Every case is one row of `CASES`: a function from the shape of a matrix to the tensors that a checkpoint stores and the
numbers that they stand for, by the format's published definition. The expected logits are those of transformers on the
dequantised weights in float32. `mxfp4` is a gpt-oss in place of a Llama, and transformers itself dequantises it.

    pip install compressed-tensors
    python make_quantised.py              # remake every case
    python make_quantised.py awq          # remake the named cases only
"""

import json
import os
import shutil
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from compressed_tensors.compressors import pack_to_int32
from safetensors.torch import save_file

FOLDER = Path(__file__).resolve().parent / "quantised"
CONFIG = {
    "vocab_size": 37,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}
# Where the scheme permits it: sizes that no tile, word or block divides.
AWKWARD = {**CONFIG, "hidden_size": 45, "intermediate_size": 61, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 14}
# Experts: one tensor for all of them, in runs of 32 inputs.
EXPERTS = {
    **CONFIG, "hidden_size": 96, "intermediate_size": 32, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 14,
    "num_local_experts": 5, "num_experts_per_tok": 2, "sliding_window": 7, "layer_types": ["full_attention"],
}
# Its matrices lie inputs first, but for quantised ones.
GPT2 = {"vocab_size": 37, "n_embd": 96, "n_inner": 64, "n_layer": 1, "n_head": 3, "n_positions": 64, "bos_token_id": 0, "eos_token_id": 0}
GROUP = 32
# The entries of NF4 (Dettmers et al. 2023, appendix E).
NF4 = [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
]  # fmt: skip
FP4 = [0.0, 0.005208333, 0.6666667, 1.0, 0.3333333, 0.5, 0.1666667, 0.25]


def codes(*shape, low=0, high=15):
    return torch.randint(low, high + 1, shape)


def scales(*shape, dtype=torch.float32, size=0.02):
    return (torch.rand(shape) + 0.5).mul(size).to(dtype)


def repeat(x, group):
    """What groups of columns share, for each column."""
    return x.repeat_interleave(group, 1)


def words(q, bits):
    """Unsigned codes along the first axis as little-endian bits of int32 words."""
    per = 32 // bits
    q = q.reshape(q.shape[0] // per, per, *q.shape[1:]).to(torch.int64)
    shifts = (torch.arange(per) * bits).reshape(1, per, *[1] * (q.dim() - 2))
    packed = (q << shifts).sum(1)
    return torch.where(packed >= 2**31, packed - 2**32, packed).to(torch.int32)


def packed(bits, symmetric, group, ordered=False, dtype=torch.float32):
    def make(n, k):
        half = 2 ** (bits - 1)
        groups = 1 if group is None else k // group
        q, z = codes(n, k, low=-half, high=half - 1), codes(n, groups, low=-half // 4, high=half // 4)
        s = scales(n, groups, dtype=dtype, size=0.3 / half)
        tensors = {"weight_packed": pack_to_int32(q.to(torch.int8), bits), "weight_scale": s}
        tensors["weight_shape"] = torch.tensor([n, k])
        place = torch.arange(k) // (group or k)
        if ordered:
            place = place[torch.randperm(k)]
            tensors["weight_g_idx"] = place.to(torch.int32)
        if symmetric:
            z = torch.zeros_like(z)
        else:
            tensors["weight_zero_point"] = pack_to_int32(z.to(torch.int8), bits, packed_dim=0)
        return tensors, (q - z[:, place]) * s.float()[:, place]

    kind = {"num_bits": bits, "type": "int", "symmetric": symmetric, "dynamic": False, "observer": "minmax"}
    kind |= {"strategy": "channel", "group_size": None} if group is None else {"strategy": "group", "group_size": group}
    kind |= {"actorder": "group" if ordered else None, "observer_kwargs": {}, "block_structure": None}
    return compressed("pack-quantized", kind), make


def compressed(form, weights, activations=None):
    group = {"targets": ["Linear"], "weights": weights, "input_activations": activations, "output_activations": None}
    return {
        "quant_method": "compressed-tensors",
        "format": form,
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
        "kv_cache_scheme": None,
        "quantization_status": "compressed",
        "global_compression_ratio": 1.5,
    }


def bytes_of_rows(form, dtype, strategy, symmetric=True, dynamic=True):
    def make(n, k):
        s = scales(*{"channel": (n, 1), "tensor": (1,)}[strategy], size=0.003)
        if dtype == torch.int8:
            q = codes(n, k, low=-127, high=127).to(dtype)
        else:
            q = (torch.randn(n, k) * 80).clamp(-448, 448).to(dtype)
        tensors = {"weight": q, "weight_scale": s}
        z = torch.zeros(1)
        if not symmetric:
            z = codes(n, 1, low=-20, high=20)
            tensors["weight_zero_point"] = z.to(torch.int8)
        return tensors, (q.float() - z.float()) * s

    weights = {"num_bits": 8, "type": "int" if dtype == torch.int8 else "float", "symmetric": symmetric}
    weights |= {"strategy": strategy, "dynamic": False}
    activations = {"num_bits": 8, "type": weights["type"], "strategy": "token", "dynamic": dynamic, "symmetric": True}
    return compressed(form, weights, activations), make


def gptq(bits, ordered=False, version="gptq"):
    def make(n, k):
        most = 2**bits - 1
        groups = k // GROUP
        # A zero of 0 is stored as what wraps around.
        q, z = codes(k, n, high=most), codes(groups, n, high=most)
        s = scales(groups, n, dtype=torch.float16, size=0.3 / most)
        place = torch.arange(k) // GROUP
        if ordered:
            place = place[torch.randperm(k)]
        stored = (z - int(version == "gptq")) & most
        tensors = {"qweight": words(q, bits), "qzeros": words(stored.T.contiguous(), bits).T.contiguous()}
        tensors |= {"scales": s, "g_idx": place.to(torch.int32)}
        return tensors, ((q - z[place]) * s.float()[place]).T

    config = {"quant_method": "gptq", "bits": bits, "group_size": GROUP, "desc_act": ordered, "sym": False}
    return config | {"checkpoint_format": version, "damp_percent": 0.01, "true_sequential": True}, make


def awq():
    order = [0, 2, 4, 6, 1, 3, 5, 7]

    def interleaved(q):
        q = q.reshape(q.shape[0], q.shape[1] // 8, 8)[:, :, order]
        return words(q.permute(2, 0, 1).contiguous(), 4)[0]

    def make(n, k):
        q, z, s = codes(k, n), codes(k // GROUP, n), scales(k // GROUP, n, dtype=torch.float16)
        tensors = {"qweight": interleaved(q), "qzeros": interleaved(z), "scales": s}
        place = torch.arange(k) // GROUP
        return tensors, ((q - z[place]) * s.float()[place]).T

    config = {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"}
    return config | {"modules_to_not_convert": None}, make


def bnb_int8():
    def make(n, k):
        q, s = codes(n, k, low=-127, high=127).to(torch.int8), scales(n, size=0.4)
        tensors = {"weight": q, "SCB": s, "weight_format": torch.tensor(0, dtype=torch.uint8)}
        return tensors, q.float() * s[:, None] / 127

    config = {"quant_method": "bitsandbytes", "load_in_8bit": True, "load_in_4bit": False, "llm_int8_threshold": 6.0}
    return config, make


def bnb_4bit(kind, nested):
    table = torch.tensor(NF4 if kind == "nf4" else FP4 + [-x for x in FP4])
    run = 64

    def make(n, k):
        q = codes(n * k)
        tensors = {"weight": (q[0::2] * 16 + q[1::2]).to(torch.uint8)[:, None], "weight.quant_map": table}
        state = {"quant_type": kind, "blocksize": run, "dtype": "float32", "shape": [n, k]}
        s = scales(n * k // run, size=0.3)
        tensors["weight.absmax"] = s
        if nested:
            outer, place = torch.rand(256) * 2 - 1, torch.arange(n * k // run) // 16
            entries, factors = codes(n * k // run, high=255), scales(n * k // run // 16, size=0.1)
            tensors |= {"weight.absmax": entries.to(torch.uint8), "weight.nested_quant_map": outer}
            tensors["weight.nested_absmax"] = factors
            state |= {"nested_blocksize": 16, "nested_dtype": "float32", "nested_offset": 0.2}
            s = outer[entries] * factors[place] + 0.2
        data = torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)
        tensors[f"weight.quant_state.bitsandbytes__{kind}"] = data
        return tensors, (table[q].reshape(-1, run) * s[:, None]).reshape(n, k)

    config = {"quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False, "bnb_4bit_quant_type": kind}
    return config | {"bnb_4bit_use_double_quant": nested, "bnb_4bit_compute_dtype": "bfloat16"}, make


def fp8_blocks(rows, columns):
    def make(n, k):
        q = (torch.randn(n, k) * 80).clamp(-448, 448).to(torch.float8_e4m3fn)
        s = scales(-(-n // rows), -(-k // columns), size=0.003)
        whole = s.repeat_interleave(rows, 0).repeat_interleave(columns, 1)[:n, :k]
        return {"weight": q, "weight_scale_inv": s}, q.float() * whole

    config = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic"}
    return config | {"weight_block_size": [rows, columns]}, make


def mxfp4(model):
    """The tensors of each layer's experts as gpt-oss has them: half bytes in runs of 32 inputs with an exponent each."""
    tensors = {}
    for number, layer in enumerate(model.model.layers):
        for name in ["gate_up_proj", "down_proj"]:
            experts, n_in, n_out = getattr(layer.mlp.experts, name).shape
            q = codes(experts, n_out, n_in // 32, 32)
            stem = f"model.layers.{number}.mlp.experts.{name}"
            tensors[f"{stem}_blocks"] = (q[..., 0::2] + 16 * q[..., 1::2]).to(torch.uint8)
            tensors[f"{stem}_scales"] = codes(experts, n_out, n_in // 32, low=120, high=123).to(torch.uint8)
    return tensors


def save_experts(name, number):
    """A gpt-oss whose experts are stored as MXFP4; the expected logits are those of transformers' own dequantised run."""
    folder = FOLDER / name
    torch.manual_seed(number)
    config = transformers.GptOssConfig(**EXPERTS)
    model = drawn(transformers.GptOssForCausalLM(config))
    tensors = {key: value for key, value in model.state_dict().items() if not key.endswith(("experts.gate_up_proj", "experts.down_proj"))}
    tensors |= mxfp4(model)
    kept = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    write(folder, (config, "GptOssForCausalLM"), {"quant_method": "mxfp4", "modules_to_not_convert": kept}, tensors)
    options = transformers.Mxfp4Config(dequantize=True)
    load = transformers.GptOssForCausalLM.from_pretrained
    model = load(folder, quantization_config=options, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager")
    tokens = torch.randint(0, CONFIG["vocab_size"], (13,))
    save_file({"tokens": tokens, "logits": model.eval()(tokens[None]).logits[0].contiguous()}, folder / "expected.safetensors")


CASES = {
    "ct_w4_group": packed(4, True, GROUP, dtype=torch.bfloat16),
    "ct_w4_group_asymmetric": packed(4, False, GROUP),
    "ct_w4_ordered": packed(4, True, GROUP, ordered=True),
    "ct_w4_ordered_asymmetric": packed(4, False, GROUP, ordered=True),
    "ct_w8_channel": (*packed(8, True, None), AWKWARD),
    "ct_w8_group_asymmetric": packed(8, False, GROUP),
    "ct_int8": (*bytes_of_rows("int-quantized", torch.int8, "channel"), AWKWARD),
    "ct_int8_static_asymmetric": (*bytes_of_rows("int-quantized", torch.int8, "channel", symmetric=False, dynamic=False), AWKWARD),
    "ct_fp8": (*bytes_of_rows("float-quantized", torch.float8_e4m3fn, "channel"), AWKWARD),
    "ct_fp8_tensor": (*bytes_of_rows("float-quantized", torch.float8_e4m3fn, "tensor"), AWKWARD),
    "gptq_4": gptq(4),
    "gptq_4_ordered": gptq(4, ordered=True),
    "gptq_8_v2": gptq(8, version="gptq_v2"),
    "gptq_2": gptq(2),
    "gptq_conv1d": (*gptq(4), GPT2),
    "awq": awq(),
    "bnb_int8": (*bnb_int8(), AWKWARD),
    "bnb_nf4": bnb_4bit("nf4", False),
    "bnb_nf4_nested": bnb_4bit("nf4", True),
    "bnb_fp4": bnb_4bit("fp4", False),
    "fp8_blocks": fp8_blocks(32, 16),
    "fp8_uneven_blocks": (*fp8_blocks(40, 48), AWKWARD),
}


def drawn(model):
    """Every parameter drawn anew, so that no norm is the identity and no bias is zero."""
    for parameter in model.float().eval().parameters():
        parameter.copy_(torch.randn_like(parameter) * 0.3 + (parameter.dim() == 1))
    return model


def write(folder, named, quantisation, tensors):
    config, architecture = named
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    described = {key: value for key, value in json.loads(config.to_json_string()).items() if not key.startswith("_")}
    described |= {"architectures": [architecture], "quantization_config": quantisation}
    (folder / "config.json").write_text(json.dumps(described, indent=2, sort_keys=True) + "\n")
    tensors = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def save_case(name, number):
    (quantisation, make, *dimensions), folder = CASES[name], FOLDER / name
    torch.manual_seed(number)
    if dimensions == [GPT2]:
        config = transformers.GPT2Config(**GPT2)
        model = transformers.GPT2LMHeadModel(config)
    else:
        config = transformers.LlamaConfig(**(dimensions or [CONFIG])[0])
        model = transformers.LlamaForCausalLM(config)
    model.set_attn_implementation("eager")
    drawn(model)
    tensors = dict(model.state_dict())
    for module_name, module in model.named_modules():
        is_turned = isinstance(module, transformers.pytorch_utils.Conv1D)
        if (isinstance(module, torch.nn.Linear) or is_turned) and module_name != "lm_head":
            n, k = reversed(module.weight.shape) if is_turned else module.weight.shape
            stored, numbers = make(n, k)
            del tensors[f"{module_name}.weight"]
            tensors |= {f"{module_name}.{end}": tensor for end, tensor in stored.items()}
            module.weight.copy_(numbers.T if is_turned else numbers)
    tensors.pop("lm_head.weight") if config.tie_word_embeddings else None
    tokens = torch.randint(0, CONFIG["vocab_size"], (13,))
    logits = model(tokens[None]).logits[0]
    write(folder, (config, type(model).__name__), quantisation, tensors)
    save_file({"tokens": tokens, "logits": logits.contiguous()}, folder / "expected.safetensors")


@torch.no_grad()
def main():
    names = [*CASES, "mxfp4"]
    for name in sys.argv[1:] or names:
        save = save_experts if name == "mxfp4" else save_case
        save(name, names.index(name))
        print(name)


if __name__ == "__main__":
    main()
