"""Writes `gguf/`: GGUF files, and what transformers computes on the weights that they hold.

- `ARCHITECTURES` takes the weights of the goldens beside it and writes them as the converter of llama.cpp does: the names
  come from the `gguf` package, and so do the names of the metadata. The expected logits are those of the golden's model.
- `FORMATS` are tiny Llamas, and a GPT-2, whose matrices are stored in blocks, a format for each. Where the package can
  quantise, it does; the blocks of the others are random bytes. Expected are the logits on the numbers that the package reads from them.
- `TOKENIZERS` hold a vocabulary, and `tokenizers.json` what the original tokenizer makes of some texts.

Where transformers reads GGUF files of an architecture itself, its numbers must be the same; the script fails otherwise.

    pip install gguf==0.19.0 sentencepiece==0.2.3 accelerate
    python make_gguf.py                   # remake everything
    python make_gguf.py llama formats_32  # remake the named ones only
"""

import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import gguf
import numpy as np
import torch
import transformers
from gguf import GGMLQuantizationType as Type
from safetensors.torch import load_file, save_file

HERE = Path(__file__).resolve().parent
FOLDER = HERE / "gguf"
EXAMPLE = HERE.parent.parent / "examples" / "tiny_chat" / "model"

# The golden, the architecture's name in files, and fields that the file cannot say otherwise.
ARCHITECTURES = {
    "llama": ("llama", {}),
    "llama3_rope": ("llama", {}),
    "llama_yarn": ("llama", {}),
    "llama_linear_rope": ("llama", {}),
    "llama_tied_bias": ("llama", {}),
    "mixtral": ("llama", {}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {}),
    "qwen3_moe": ("qwen3moe", {"decoder_sparse_step": 1, "mlp_only_layers": []}),
    "gemma": ("gemma", {}),
    "gemma2": ("gemma2", {"query_pre_attn_scalar": 8}),
    "gemma3": ("gemma3", {"query_pre_attn_scalar": 8}),
    "phi3": ("phi3", {}),
    "phi": ("phi2", {"qk_layernorm": False}),
    "gpt2": ("gpt2", {}),
    "gpt_neox": ("gptneox", {}),
    "bloom": ("bloom", {}),
    "falcon_multi_query": ("falcon", {}),
    "falcon_grouped": ("falcon", {}),
    "gpt_bigcode": ("starcoder", {}),
    "starcoder2": ("starcoder2", {}),
    "olmo": ("olmo", {}),
    "olmo2": ("olmo2", {}),
    "granite": ("granite", {}),
    "smollm3": ("smollm3", {"no_rope_layers": [1, 1, 1]}),
    "stablelm": ("stablelm", {}),
    "cohere": ("command-r", {}),
    "nemotron": ("nemotron", {}),
    "glm4": ("glm4", {}),
    "ernie4_5": ("ernie4_5", {}),
    "seed_oss": ("seed_oss", {}),
    "hunyuan_dense": ("hunyuan-dense", {}),
    "exaone4": ("exaone4", {}),
}
# Which of them transformers reads itself; of others it ignores fields, such as the width of a head.
READ_BY_TRANSFORMERS = {"llama", "qwen2"}
ROWS_TAKE_TURNS = {"llama", "olmo", "granite", "smollm3"}
ONE_MORE = {"gemma", "gemma2", "gemma3", "nemotron"}


def first(config, *names, default=None):
    return next((getattr(config, name) for name in names if getattr(config, name, None) is not None), default)


def heads_of(config):
    heads = first(config, "num_attention_heads", "n_head")
    if config.model_type in ("gpt2", "gpt_neox", "bloom"):
        return heads, heads
    if config.model_type in ("falcon", "gpt_bigcode") and getattr(config, "multi_query", False):
        return heads, config.num_kv_heads if getattr(config, "new_decoder_architecture", False) else 1
    return heads, first(config, "num_key_value_heads", "num_kv_heads", default=heads)


def describe(writer, config, arch):
    """The metadata, as llama.cpp's converter writes it."""
    heads, kv_heads = heads_of(config)
    hidden = first(config, "hidden_size", "n_embd")
    width = first(config, "head_dim", default=hidden // heads)
    writer.add_context_length(first(config, "max_position_embeddings", "n_positions", "seq_length", default=64))
    writer.add_embedding_length(hidden)
    writer.add_vocab_size(config.vocab_size)
    writer.add_block_count(first(config, "num_hidden_layers", "n_layer"))
    inner = first(config, "ffn_hidden_size", "intermediate_size", "n_inner", default=4 * hidden)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    if getattr(config, "head_dim", None) and arch not in ("falcon",):
        writer.add_key_length(width)
        writer.add_value_length(width)
    rms = first(config, "rms_norm_eps")
    if rms is not None:
        writer.add_layer_norm_rms_eps(rms)
    else:
        eps = first(config, "layer_norm_epsilon", "layer_norm_eps", "norm_epsilon", "norm_eps", default=1e-5)
        writer.add_layer_norm_eps(eps)
    rope = getattr(config, "rope_parameters", None)
    if rope:
        describe_rope(writer, config, rope, width)
    for value, add in [
        (first(config, "sliding_window"), writer.add_sliding_window),
        (first(config, "attn_logit_softcapping"), writer.add_attn_logit_softcapping),
        (first(config, "final_logit_softcapping"), writer.add_final_logit_softcapping),
        (first(config, "clip_qkv"), writer.add_clamp_kqv),
        (first(config, "logits_scaling", "logit_scale"), writer.add_logit_scale),
        (first(config, "attention_multiplier"), writer.add_attention_scale),
        (first(config, "embedding_multiplier"), writer.add_embedding_scale),
        (first(config, "residual_multiplier"), writer.add_residual_scale),
        (first(config, "num_local_experts", "num_experts"), writer.add_expert_count),
        (first(config, "num_experts_per_tok"), writer.add_expert_used_count),
        (first(config, "moe_intermediate_size"), writer.add_expert_feed_forward_length),
        (first(config, "use_parallel_residual"), writer.add_parallel_residual),
    ]:
        if value is not None and not (add == writer.add_sliding_window and arch == "qwen2"):
            add(value)
    if arch in ("gemma3", "exaone4"):
        writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in config.layer_types])


def describe_rope(writer, config, rope, width):
    whole = rope.get("full_attention", rope)
    if "sliding_attention" in rope:
        writer.add_rope_freq_base_swa(rope["sliding_attention"]["rope_theta"])
    writer.add_rope_freq_base(whole["rope_theta"])
    writer.add_rope_dimension_count(int(width * whole.get("partial_rotary_factor", 1.0)))
    if whole["rope_type"] in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(whole["rope_type"]))
        writer.add_rope_scaling_factor(whole["factor"])
    if whole["rope_type"] == "yarn":
        writer.add_rope_scaling_orig_ctx_len(whole["original_max_position_embeddings"])
        writer.add_rope_scaling_yarn_beta_fast(whole["beta_fast"])
        writer.add_rope_scaling_yarn_beta_slow(whole["beta_slow"])
    if whole["rope_type"] == "llama3":
        # Each frequency's divisor, which the file keeps in place of the fields.
        plain = 1.0 / whole["rope_theta"] ** (torch.arange(0, width, 2).float() / width)
        rotary = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")[0]
        writer.add_tensor("rope_freqs.weight", (plain / rotary).numpy())


def take_turns(weight, heads):
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def part(weight, heads, kv_heads):
    """Queries, keys and values by key head, to all queries, all keys, all values."""
    width = weight.shape[0] // (heads + 2 * kv_heads)
    groups = weight.reshape(kv_heads, heads // kv_heads + 2, width, *weight.shape[1:])
    parts = [groups[:, :-2], groups[:, [-2]], groups[:, [-1]]]
    return torch.cat([p.reshape(-1, *weight.shape[1:]) for p in parts])


def converted(model, arch):
    """Every tensor under its name in the file."""
    config = model.config
    heads, kv_heads = heads_of(config)
    layers = first(config, "num_hidden_layers", "n_layer")
    number = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == arch)
    names = gguf.get_tensor_name_map(number, layers)
    experts = {}
    tied = config.tie_word_embeddings
    for name, tensor in model.state_dict().items():
        if name.endswith((".attn.bias", ".attn.masked_bias", ".inv_freq")) or (tied and name == "lm_head.weight"):
            continue
        if config.model_type in ("mixtral", "qwen3_moe") and ".experts." in name:
            # transformers joins gates and ups of all experts; the files have them apart.
            base = name.split(".mlp.")[0].split(".block_sparse_moe.")[0].replace("model.layers.", "blk.")
            if name.endswith("gate_up_proj"):
                gate, up = tensor.chunk(2, dim=1)
                experts |= {f"{base}.ffn_gate_exps.weight": gate, f"{base}.ffn_up_exps.weight": up}
            else:
                experts[f"{base}.ffn_down_exps.weight"] = tensor
            continue
        # The converter of llama.cpp knows routers under these names.
        known = name.replace(".mlp.gate.", ".block_sparse_moe.gate.") if config.model_type == "mixtral" else name
        known = known.removeprefix("transformer.") if arch == "bloom" else known
        new = names.get_name(known, try_suffixes=(".weight", ".bias"))
        assert new, name
        if arch in ROWS_TAKE_TURNS and ".attn_q." in new:
            tensor = take_turns(tensor, heads)
        if arch in ROWS_TAKE_TURNS and ".attn_k." in new:
            tensor = take_turns(tensor, kv_heads)
        if arch in ("bloom", "gptneox", "falcon") and ".attn_qkv." in new:
            tensor = part(tensor, heads, kv_heads)
        if arch in ONE_MORE and name.endswith("norm.weight"):
            tensor = tensor + 1
        if arch == "gpt2" and name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight")):
            tensor = tensor.T
        yield new, tensor.contiguous()
    yield from ((name, tensor.contiguous()) for name, tensor in experts.items())


@torch.no_grad()
def save_architecture(name):
    arch, changes = ARCHITECTURES[name]
    config = transformers.AutoConfig.from_pretrained(HERE / name)
    for field, value in changes.items():
        setattr(config, field, value)
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_pretrained(HERE / name, config=config, dtype=torch.float32).eval()
    if name == "qwen3_moe":
        # Some of the golden's layers have no experts, which files of this architecture cannot say.
        torch.manual_seed(3)
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4 + (parameter.dim() == 1))
    path = FOLDER / f"{name}.gguf"
    writer = gguf.GGUFWriter(path, arch)
    describe(writer, config, arch)
    writer.add_file_type(0)
    for new, tensor in converted(model, arch):
        writer.add_tensor(new, tensor.float().numpy())
    finish(writer)
    tokens = load_file(HERE / name / "expected.safetensors")["tokens"]
    logits = model(tokens[None]).logits[0]
    if name in READ_BY_TRANSFORMERS:
        check_with_transformers(path, tokens, logits)
    save_file({"tokens": tokens, "logits": logits.contiguous()}, FOLDER / f"{name}.safetensors")


def check_with_transformers(path, tokens, logits, **options):
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, **options
    )
    difference = (theirs.eval()(tokens[None]).logits[0] - logits).abs().max() / logits.std()
    assert difference < 1e-3, f"{path.name}: transformers reads it as something else, {difference} deviations away"


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# The format of each matrix.
FORMATS = {
    "formats_32": {
        "hidden": 64,
        "attn_q": Type.Q4_0, "attn_k": Type.Q4_1, "attn_v": Type.Q5_0, "attn_output": Type.Q5_1,
        "ffn_gate": Type.Q8_0, "ffn_up": Type.IQ4_NL, "ffn_down": Type.Q4_0, "token_embd": Type.Q8_0,
        "output": Type.F16,
    },
    "formats_256": {
        "hidden": 256,
        "attn_q": Type.Q4_K, "attn_k": Type.Q5_K, "attn_v": Type.Q6_K, "attn_output": Type.Q3_K,
        "ffn_gate": Type.Q2_K, "ffn_up": Type.IQ4_XS, "ffn_down": Type.Q4_K, "token_embd": Type.Q6_K,
        "output": Type.BF16,
    },
    # The checkpoint has these inputs first, the file outputs first.
    "formats_turned": {
        "arch": "gpt2", "hidden": 32,
        "attn_qkv": Type.Q8_0, "attn_output": Type.Q4_0, "ffn_up": Type.Q5_1, "ffn_down": Type.Q4_1,
        "token_embd": Type.Q8_0,
    },
}  # fmt: skip
# Where the numbers of a block lie that every other one is multiplied by, and their size in random blocks.
SCALES = {
    Type.IQ4_NL: {0: 0.004}, Type.Q2_K: {80: 0.04, 82: 0.04}, Type.Q3_K: {108: 0.01}, Type.Q4_K: {0: 0.002, 2: 0.01},
    Type.Q5_K: {0: 0.001, 2: 0.01}, Type.Q6_K: {208: 0.0003}, Type.IQ4_XS: {0: 0.0004},
}  # fmt: skip


def stored(weight, kind):
    """The bytes of a matrix in a format, and the numbers that they stand for."""
    if kind in (Type.F16, Type.BF16):
        half = weight.half() if kind == Type.F16 else weight.bfloat16()
        return half.view(torch.uint8).numpy() if kind == Type.BF16 else half.numpy(), half.float()
    if kind not in SCALES:
        raw = gguf.quants.quantize(weight.numpy(), kind)
    else:
        elements, size = gguf.GGML_QUANT_SIZES[kind]
        raw = np.random.randint(0, 256, (weight.shape[0], weight.shape[1] // elements, size), dtype=np.uint8)
        for at, scale in SCALES[kind].items():
            numbers = (scale * (0.5 + np.random.rand(*raw.shape[:2], 1))).astype(np.float16)
            raw[:, :, at : at + 2] = numbers.view(np.uint8)
        raw = raw.reshape(weight.shape[0], -1)
    return raw, torch.from_numpy(gguf.quants.dequantize(raw, kind).copy())


def tiny(arch, hidden):
    if arch == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=101, n_embd=hidden, n_inner=2 * hidden, n_layer=2, n_head=2, n_positions=64,
            attn_implementation="eager",
        )  # fmt: skip
        return transformers.GPT2LMHeadModel(config).float().eval()
    config = transformers.LlamaConfig(
        vocab_size=101, hidden_size=hidden, intermediate_size=hidden, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, head_dim=hidden // 4, max_position_embeddings=64, attn_implementation="eager",
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).float().eval()


@torch.no_grad()
def save_formats(name):
    kinds = dict(FORMATS[name])
    hidden, arch = kinds.pop("hidden"), kinds.pop("arch", "llama")
    np.random.seed(hidden)
    torch.manual_seed(hidden)
    model = tiny(arch, hidden)
    for parameter in model.parameters():
        parameter.copy_(torch.randn_like(parameter) * 0.08 + (parameter.dim() == 1))
    path = FOLDER / f"{name}.gguf"
    writer = gguf.GGUFWriter(path, arch)
    describe(writer, model.config, arch)
    parameters = dict(model.named_parameters())
    map_back = gguf.get_tensor_name_map(gguf.MODEL_ARCH[arch.upper()], model.config.num_hidden_layers)
    for old, parameter in parameters.items():
        new = map_back.get_name(old, try_suffixes=(".weight", ".bias"))
        kind = kinds.get(new.removesuffix(".weight").split(".")[-1], Type.F32)
        heads = {"attn_q": 4, "attn_k": 2}.get(new.split(".")[-2])
        if kind == Type.F32:
            writer.add_tensor(new, parameter.numpy())
            continue
        if arch == "gpt2" and "token_embd" not in new:
            raw, numbers = stored(parameter.T.contiguous(), kind)
            writer.add_tensor(new, raw, raw_dtype=kind)
            parameter.copy_(numbers.T)
            continue
        raw, numbers = stored(take_turns(parameter, heads) if heads else parameter, kind)
        writer.add_tensor(new, raw, raw_dtype=kind)
        # Back to the order of the model.
        rows = take_turns(torch.arange(parameter.shape[0])[:, None], heads)[:, 0] if heads else None
        parameter.copy_(numbers if rows is None else torch.empty_like(numbers).index_copy_(0, rows, numbers))
    finish(writer)
    tokens = torch.randint(0, 101, (13,))
    logits = model(tokens[None]).logits[0]
    # Of a GPT-2 it reads the tensors, and not how many rows its tables have.
    check_with_transformers(path, tokens, logits, **({"config": model.config} if arch == "gpt2" else {}))
    save_file({"tokens": tokens, "logits": logits.contiguous()}, FOLDER / f"{name}.safetensors")


# None begins with a special token: SentencePiece itself puts its blank before one, and no other reader does.
TEXTS = [
    "", " ", "Hello", " Hello", "Hello, world! It's 2026.", "How much is 12 + 3450?", "a  b   c", "line\nline\n\n\tend ",
    "Grüße aus Köln — naïve café", "日本語 テキスト", "emoji 🙂🙂", "ABCdefGHI jkl'll don't",
    "x<|bos|> y", "tail   ",
]  # fmt: skip


@torch.no_grad()
def save_tiny(name, vocabulary, add):
    """A tiny Llama with a vocabulary."""
    torch.manual_seed(5)
    config = transformers.LlamaConfig(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, tie_word_embeddings=True,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    writer = gguf.GGUFWriter(FOLDER / f"{name}.gguf", "llama")
    describe(writer, config, "llama")
    add(writer)
    for new, tensor in converted(model, "llama"):
        if tensor.dim() == 2:
            writer.add_tensor(new, gguf.quants.quantize(tensor.numpy(), Type.Q4_0), raw_dtype=Type.Q4_0)
        else:
            writer.add_tensor(new, tensor.numpy())
    finish(writer)


def save_pairs(name):
    """Byte pairs: the vocabulary of the example model."""
    whole = json.loads((EXAMPLE / "tokenizer.json").read_text())
    config = json.loads((EXAMPLE / "tokenizer_config.json").read_text())
    ids = whole["model"]["vocab"]
    added = {token["content"] for token in whole["added_tokens"]}
    tokens = sorted(ids, key=ids.get)

    def add(writer):
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("smollm")
        writer.add_token_list(tokens)
        writer.add_token_types([3 if token in added else 1 for token in tokens])
        writer.add_token_merges([" ".join(pair) for pair in whole["model"]["merges"]])
        writer.add_bos_token_id(ids[config["bos_token"]])
        writer.add_eos_token_id(ids[config["eos_token"]])
        writer.add_pad_token_id(ids[config["pad_token"]])
        writer.add_add_bos_token(False)
        writer.add_chat_template(config["chat_template"])

    save_tiny(name, len(tokens), add)
    original = transformers.AutoTokenizer.from_pretrained(EXAMPLE)
    messages = [{"role": "user", "content": "How much is 2 + 3?"}]
    prompt = original.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return {
        "ids": [original.encode(text, add_special_tokens=False) for text in TEXTS],
        "decoded": [original.decode(original.encode(text, add_special_tokens=False)) for text in TEXTS],
        "prompt": prompt,
    }


def save_pieces(name):
    """Pieces with scores, as SentencePiece makes them, from the questions of the example model."""
    import sentencepiece

    with tempfile.TemporaryDirectory() as place:
        questions = [(EXAMPLE.parent / "eval" / f"{kind}.jsonl").read_text() for kind in ("facts", "arithmetic")]
        (Path(place) / "text").write_text("".join(questions) + "Grüße aus Köln\n")
        sentencepiece.SentencePieceTrainer.train(
            input=f"{place}/text", model_prefix=f"{place}/m", vocab_size=520, model_type="bpe", byte_fallback=True,
            normalization_rule_name="identity", remove_extra_whitespaces=False, character_coverage=0.9995,
            minloglevel=2, num_threads=1, user_defined_symbols=["<|user|>", "<|end|>"],
        )  # fmt: skip
        original = sentencepiece.SentencePieceProcessor(f"{place}/m.model")
    count = original.vocab_size()

    def kind(token):
        checks = [original.is_unknown, original.is_control, original.is_unused, original.is_byte]
        for check, number in zip(checks, [2, 3, 5, 6]):
            if check(token):
                return number
        return 4 if original.id_to_piece(token) in ("<|user|>", "<|end|>") else 1

    def add(writer):
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_list([original.id_to_piece(token).encode() for token in range(count)])
        writer.add_token_scores([original.get_score(token) for token in range(count)])
        writer.add_token_types([kind(token) for token in range(count)])
        writer.add_bos_token_id(original.bos_id())
        writer.add_eos_token_id(original.eos_id())
        writer.add_unk_token_id(original.unk_id())

    save_tiny(name, count, add)
    return {
        "ids": [original.encode(text) for text in TEXTS],
        "decoded": [original.decode(original.encode(text)) for text in TEXTS],
        "prompt": None,
    }


TOKENIZERS = {"pairs": save_pairs, "pieces": save_pieces}

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    wanted = sys.argv[1:] or [*ARCHITECTURES, *FORMATS, *TOKENIZERS]
    texts = FOLDER / "tokenizers.json"
    known = json.loads(texts.read_text()) if texts.exists() else {"texts": TEXTS}
    for case in wanted:
        if case in TOKENIZERS:
            known[case] = TOKENIZERS[case](case)
        elif case in FORMATS:
            save_formats(case)
        else:
            save_architecture(case)
        print(case, flush=True)
    texts.write_text(json.dumps(known, ensure_ascii=False, indent=1, sort_keys=True) + "\n")
