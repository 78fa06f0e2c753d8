"""Writes the golden models: tiny random checkpoints and what transformers computes with them.

Every case is one row of `CASES`. Dimensions are awkward on purpose (odd sizes, three query heads to a
key head, a vocabulary that is no multiple of eight), because a shape that fits a tile hides mistakes.

    python make.py                # remake every case
    python make.py llama gemma2   # remake the named cases only
"""

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from safetensors.torch import save_file

HERE = Path(__file__).resolve().parent
VOCABULARY = 101
GREEDY_STEPS = 16
# The runner-up of every greedy step stays this share of the logits' spread behind the winner.
TIE_MARGIN = 1e-2
# A continuation that repeats one token would tell little, so a seed must give at least this many.
DISTINCT_TOKENS = 6
SHARD_SIZE = "40KB"
# Of any token and layer, the last expert that is chosen stays this share of the routers' spread ahead of the next one: a
# choice that hangs on rounding would tell nothing about it.
CHOICE_MARGIN = 5e-2


@dataclass(frozen=True)
class Case:
    """One golden model: the transformers class names without suffix, and the fields of its config."""

    family: str
    config: dict
    n_tokens: int = 21
    head: str = "ForCausalLM"
    # The config's class without suffix where it has another name than the model's.
    config_class: str | None = None
    # Old checkpoints spell the rotary fields differently; this names the key they use for the type.
    old_type_key: str | None = None
    sharded: bool = False
    # Gemma adds one to its norm weights itself, so its stored weights lie around zero.
    norm_centre: float = 1.0
    # Tied embeddings that are too large make every model repeat its last token.
    embedding_spread: float = 0.6
    # How many seeds may be tried.
    seeds: int = 1000
    # Which of transformers' ways to compute attention is the reference.
    attention: str = "eager"
    # Models that make vectors of texts: the name that sentence-transformers has for the row that is taken.
    pooling: str | None = None


LLAMA = {
    "vocab_size": VOCABULARY,
    "hidden_size": 24,
    "intermediate_size": 37,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 1000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN_ROPE = {
    "rope_type": "yarn",
    "rope_theta": 20.0,
    "factor": 4.0,
    "beta_fast": 1.0,
    "beta_slow": 0.25,
    "original_max_position_embeddings": 16,
}
GEMMA2 = {
    **LLAMA,
    "hidden_size": 30,
    "head_dim": 8,
    "intermediate_size": 29,
    "query_pre_attn_scalar": 13,
    "sliding_window": 7,
    "attn_logit_softcapping": 2.0,
    "final_logit_softcapping": 1.5,
    "tie_word_embeddings": True,
}
PHI3 = {
    "vocab_size": VOCABULARY,
    "hidden_size": 36,
    "intermediate_size": 29,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "original_max_position_embeddings": 64,
    "sliding_window": 13,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.7},
}
GPT2 = {
    "vocab_size": VOCABULARY,
    "n_embd": 30,
    "n_inner": 47,
    "n_layer": 3,
    "n_head": 3,
    "n_positions": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
GPT_NEOX = {
    "vocab_size": VOCABULARY,
    "hidden_size": 30,
    "intermediate_size": 47,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "max_position_embeddings": 64,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.45},
}
BERT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 30,
    "intermediate_size": 47,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "max_position_embeddings": 64,
    "type_vocab_size": 2,
}
GEMMA3 = {
    **{name: value for name, value in GEMMA2.items() if not name.endswith("softcapping")},
    "num_hidden_layers": 4,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
    "rope_parameters": {
        "full_attention": {"rope_type": "linear", "rope_theta": 900.0, "factor": 3.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 40.0},
    },
}
BLOOM = {
    "vocab_size": VOCABULARY, "hidden_size": 30, "n_layer": 3, "n_head": 3, "seq_length": 64,
    "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
}
OPT = {
    "vocab_size": VOCABULARY, "hidden_size": 30, "ffn_dim": 47, "num_hidden_layers": 3, "num_attention_heads": 3,
    "max_position_embeddings": 64, "word_embed_proj_dim": 30,
}
GPTJ = {**GPT2, "n_embd": 36, "rotary_dim": 6}
FALCON = {
    "vocab_size": VOCABULARY, "hidden_size": 60, "ffn_hidden_size": 47, "num_hidden_layers": 3,
    "num_attention_heads": 6, "num_kv_heads": 2, "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 0,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}
MODERNBERT = {
    **{name: value for name, value in BERT.items() if name != "type_vocab_size"},
    "num_hidden_layers": 4, "local_attention": 10, "hidden_activation": "gelu", "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2,
    "layer_types": ["full_attention", "sliding_attention", "sliding_attention", "full_attention"],
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 900.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 40.0},
    },
}
# The tables of DistilBERT have other names.
DISTILBERT = {
    "vocab_size": VOCABULARY, "dim": 30, "hidden_dim": 47, "n_layers": 3, "n_heads": 3, "max_position_embeddings": 64,
}
# Qwen2 has no field for the size of a head.
QWEN2 = {name: value for name, value in LLAMA.items() if name != "head_dim"}
# As wide as its heads together.
SQUARE = {**QWEN2, "hidden_size": 60}
# Families whose norms subtract the mean have another field for the epsilon.
LAYER_NORM = {**{name: value for name, value in SQUARE.items() if name != "rms_norm_eps"}, "layer_norm_eps": 1e-5}
EVERY_SECOND = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]
WINDOWED = {"sliding_window": 7, "num_hidden_layers": 4, "layer_types": EVERY_SECOND}
EXPERTS = {"num_experts": 7, "num_experts_per_tok": 3}
QWEN_EXPERTS = {**EXPERTS, "moe_intermediate_size": 13}
GLM4_MOE = {
    **LLAMA, "moe_intermediate_size": 13, "n_routed_experts": 8, "num_experts_per_tok": 3, "n_shared_experts": 2,
    "routed_scaling_factor": 1.7, "first_k_dense_replace": 1, "attention_bias": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.6},
}
DEEPSEEK_V3 = {
    **{name: value for name, value in GLM4_MOE.items() if name not in ("head_dim", "rope_parameters")},
    "num_attention_heads": 3, "num_key_value_heads": 3, "q_lora_rank": 14, "kv_lora_rank": 9, "qk_nope_head_dim": 7,
    "qk_rope_head_dim": 6, "v_head_dim": 5, "n_group": 4, "topk_group": 2, "attention_bias": False,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}
DEEPSEEK_V2 = {
    **{name: value for name, value in DEEPSEEK_V3.items() if name not in ("n_group", "topk_group")},
    # Its complex rotation wants rows of even widths.
    "qk_nope_head_dim": 8, "kv_lora_rank": 10, "num_hidden_layers": 2,
    "rope_parameters": {**YARN_ROPE, "mscale": 1.3, "mscale_all_dim": 0.9},
}
MIXTRAL = {**LLAMA, "intermediate_size": 13, "num_local_experts": 5, "num_experts_per_tok": 2}
GPT_OSS = {
    **LLAMA, **EXPERTS, "num_local_experts": 7, "intermediate_size": 13, "num_hidden_layers": 2, "sliding_window": 7,
    "layer_types": EVERY_SECOND[:2], "attention_bias": True, "swiglu_limit": 0.6,
    "rope_parameters": {**YARN_ROPE, "truncate": False},
}
del GPT_OSS["num_experts"]
GEMMA4 = {
    **{name: value for name, value in GEMMA2.items() if name not in ("query_pre_attn_scalar", "attn_logit_softcapping")},
    "num_hidden_layers": 6, "head_dim": 10, "global_head_dim": 14, "num_kv_shared_layers": 2, "use_double_wide_mlp": True,
    "hidden_size_per_layer_input": 9, "vocab_size_per_layer_input": VOCABULARY,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"] + EVERY_SECOND[:2],
    "rope_parameters": {
        "full_attention": {"rope_type": "proportional", "rope_theta": 900.0, "partial_rotary_factor": 0.45},
        "sliding_attention": {"rope_type": "default", "rope_theta": 40.0},
    },
}
GEMMA4_EXPERTS = {
    **GEMMA4, "num_hidden_layers": 2, "layer_types": EVERY_SECOND[:2], "num_kv_shared_layers": 0,
    "use_double_wide_mlp": False, "hidden_size_per_layer_input": 0, "attention_k_eq_v": True,
    "num_global_key_value_heads": 3, "enable_moe_block": True, "num_experts": 7, "top_k_experts": 3, "moe_intermediate_size": 13,
}
GRANITE = {
    "hidden_size": 36, "embedding_multiplier": 3.0, "residual_multiplier": 0.7, "attention_multiplier": 0.4,
    "logits_scaling": 2.5,
}
# A text model with another for images beside it. Its own part has rotations in sections, which are alike where there is text alone.
WHOLE = "ForConditionalGeneration"
SECTIONS = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
# The scores of three labels.
SCORES = "ForSequenceClassification"
LABELS = {"id2label": {0: "a", 1: "b", 2: "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}

CASES = {
    "llama": Case("Llama", LLAMA),
    "llama_tied_bias": Case(
        "Llama", {**LLAMA, "tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}
    ),
    "llama3_rope": Case(
        "Llama",
        {**LLAMA, "max_position_embeddings": 256, "rope_parameters": LLAMA3_ROPE},
        n_tokens=33,
        old_type_key="rope_type",
    ),
    "llama_yarn": Case("Llama", {**LLAMA, "rope_parameters": YARN_ROPE}, n_tokens=45, old_type_key="type"),
    "llama_linear_rope": Case(
        "Llama", {**LLAMA, "rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.5}}
    ),
    "mistral_window": Case("Mistral", {**LLAMA, "sliding_window": 7}),
    "qwen2": Case("Qwen2", {**QWEN2, "hidden_size": 36, "intermediate_size": 33}),
    "qwen3": Case("Qwen3", LLAMA),
    "gemma2": Case("Gemma2", GEMMA2, norm_centre=0.0, embedding_spread=0.15),
    "phi3": Case("Phi3", PHI3),
    "gpt2": Case("GPT2", GPT2, head="LMHeadModel"),
    "gpt_neox": Case("GPTNeoX", GPT_NEOX),
    "gpt_neox_sequential": Case("GPTNeoX", {**GPT_NEOX, "use_parallel_residual": False}),
    "bert": Case("Bert", BERT, head="Model"),
    "llama_sharded": Case("Llama", LLAMA, sharded=True),
    "gemma": Case("Gemma", {**LLAMA, "tie_word_embeddings": True}, norm_centre=0.0, embedding_spread=0.15),
    "gemma3": Case("Gemma3", GEMMA3, norm_centre=0.0, embedding_spread=0.15, config_class="Gemma3Text"),
    "smollm3": Case("SmolLM3", {**LLAMA, "no_rope_layers": [1, 0, 1], "pad_token_id": 0}),
    "granite": Case(
        "Granite",
        {**QWEN2, **GRANITE},
    ),
    "ernie4_5": Case("Ernie4_5", {**LLAMA, "use_bias": True, "tie_word_embeddings": False}),
    "seed_oss": Case("SeedOss", {**LLAMA, "attention_out_bias": True, "mlp_bias": True}),
    "hunyuan_dense": Case("HunYuanDenseV1", {**LLAMA, "attention_bias": True}),
    "olmo": Case("Olmo", {
        **{name: value for name, value in SQUARE.items() if name != "rms_norm_eps"}, "clip_qkv": 1.5}),
    "olmo2": Case("Olmo2", SQUARE),
    "olmo3": Case("Olmo3", {**SQUARE, **WINDOWED, "rope_parameters": {
        "full_attention": {**YARN_ROPE},
        "sliding_attention": {"rope_type": "default", "rope_theta": 20.0},
    }}, n_tokens=45),
    "exaone4": Case("Exaone4", {**LLAMA, **WINDOWED}),
    "glm4": Case("Glm4", {**LLAMA, "pad_token_id": 0, "rope_parameters": {
        "rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.6}}),
    "nemotron": Case("Nemotron", {
        **{name: value for name, value in LLAMA.items() if name != "rms_norm_eps"},
        "norm_eps": 1e-5, "attention_bias": True, "mlp_bias": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.6},
    }, norm_centre=0.0),
    "starcoder2": Case("Starcoder2", {
        **{name: value for name, value in SQUARE.items() if name != "rms_norm_eps"},
        "norm_epsilon": 1e-5, "sliding_window": 9, "tie_word_embeddings": False}),
    "gpt_bigcode": Case("GPTBigCode", GPT2),
    "gpt_bigcode_multi_head": Case("GPTBigCode", {**GPT2, "multi_query": False}),
    "opt": Case("OPT", OPT),
    "bloom": Case("Bloom", BLOOM),
    "gptj": Case("GPTJ", GPTJ),
    "phi": Case("Phi", {**LAYER_NORM, "qk_layernorm": True, "partial_rotary_factor": 0.4}),
    "falcon_grouped": Case("Falcon", {**FALCON, "new_decoder_architecture": True}),
    "falcon_multi_query": Case("Falcon", {**FALCON, "bias": True}),
    "falcon_sequential": Case("Falcon", {**FALCON, "num_kv_heads": 6, "multi_query": False, "parallel_attn": False}),
    "stablelm": Case("StableLm", {**LAYER_NORM, "use_qkv_bias": True, "partial_rotary_factor": 0.4}),
    "stablelm_parallel": Case("StableLm", {**LAYER_NORM, "use_parallel_residual": True, "partial_rotary_factor": 0.4}),
    "cohere": Case("Cohere", {**LAYER_NORM, "use_qk_norm": True, "logit_scale": 0.3}),
    "cohere2": Case("Cohere2", {**LAYER_NORM, **WINDOWED, "logit_scale": 0.3}),
    "roberta": Case("Roberta", {**BERT, "type_vocab_size": 1, "pad_token_id": 1}, head="Model"),
    "xlm_roberta": Case("XLMRoberta", {**BERT, "type_vocab_size": 1, "pad_token_id": 1}, head="Model"),
    "distilbert": Case("DistilBert", DISTILBERT, head="Model"),
    "modernbert": Case("ModernBert", MODERNBERT, head="Model"),
    "nomic_bert": Case("NomicBert", {**BERT, "rope_parameters": {"rope_type": "default", "rope_theta": 100.0}}, head="Model"),
    "mixtral": Case("Mixtral", MIXTRAL),
    "qwen2_moe": Case("Qwen2Moe", {**QWEN2, **QWEN_EXPERTS, "hidden_size": 36, "shared_expert_intermediate_size": 19}),
    "qwen3_moe": Case("Qwen3Moe", {**LLAMA, **QWEN_EXPERTS, "norm_topk_prob": True, "mlp_only_layers": [1]}),
    "olmoe": Case("Olmoe", {**SQUARE, **EXPERTS, "intermediate_size": 13, "num_hidden_layers": 2}),
    "glm4_moe": Case("Glm4Moe", {**GLM4_MOE, "use_qk_norm": True}),
    "deepseek_v2": Case("DeepseekV2", {**DEEPSEEK_V2, "q_lora_rank": None}, n_tokens=33),
    "deepseek_v2_groups": Case("DeepseekV2", {
        **DEEPSEEK_V2, "topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 2}, n_tokens=33),
    "deepseek_v3": Case("DeepseekV3", DEEPSEEK_V3),
    "deepseek_v3_direct": Case("DeepseekV3", {**DEEPSEEK_V3, "q_lora_rank": None, "n_group": 1, "topk_group": 1}),
    "gpt_oss": Case("GptOss", GPT_OSS, seeds=4000),
    "qwen2_moe_window": Case("Qwen2Moe", {
        **QWEN2, **QWEN_EXPERTS, "hidden_size": 36, "shared_expert_intermediate_size": 19, "num_hidden_layers": 4,
        "use_sliding_window": True, "sliding_window": 7, "max_window_layers": 3}),
    "qwen3_moe_window": Case("Qwen3Moe", {
        **LLAMA, **QWEN_EXPERTS, "num_hidden_layers": 2, "use_sliding_window": True, "sliding_window": 7,
        "max_window_layers": 1}),
    "olmoe_clip": Case("Olmoe", {**SQUARE, **EXPERTS, "intermediate_size": 13, "num_hidden_layers": 2, "clip_qkv": 1.2}, seeds=5000),
    "falcon_alibi": Case("Falcon", {
        **{name: value for name, value in FALCON.items() if name != "rope_parameters"}, "num_kv_heads": 6, "bias": True,
        "multi_query": False, "parallel_attn": False, "alibi": True}, attention="sdpa"),
    "stablelm_head_norms": Case("StableLm", {**LAYER_NORM, "qk_layernorm": True, "partial_rotary_factor": 0.4}),
    "opt_post_norm": Case("OPT", {**OPT, "do_layer_norm_before": False, "word_embed_proj_dim": 18}),
    "hunyuan_dense_alpha": Case("HunYuanDenseV1", {**LLAMA, "rope_parameters": {
        "rope_type": "dynamic", "rope_theta": 20.0, "alpha": 30.0, "factor": 1.0, "beta_fast": 32, "beta_slow": 1,
        "mscale": 1.0, "mscale_all_dim": 1.0}}),
    "phi3_long": Case("Phi3", {**PHI3, "sliding_window": None, "max_position_embeddings": 256, "rope_parameters": {
        "rope_type": "longrope", "rope_theta": 20.0, "partial_rotary_factor": 0.7, "original_max_position_embeddings": 64,
        "short_factor": [1.3, 2.5], "long_factor": [4.0, 9.0]}}),
    "llama_dynamic_rope": Case("Llama", {**LLAMA, "rope_parameters": {
        "rope_type": "dynamic", "rope_theta": 500.0, "factor": 2.5}}),
    "bert_scores": Case("Bert", {**BERT, **LABELS}, head=SCORES),
    "roberta_scores": Case("Roberta", {**BERT, **LABELS, "type_vocab_size": 1, "pad_token_id": 1}, head=SCORES),
    "xlm_roberta_scores": Case("XLMRoberta", {**BERT, **LABELS, "type_vocab_size": 1, "pad_token_id": 1}, head=SCORES),
    "distilbert_scores": Case("DistilBert", {**DISTILBERT, **LABELS}, head=SCORES),
    "modernbert_scores": Case("ModernBert", {**MODERNBERT, **LABELS, "classifier_bias": True}, head=SCORES),
    "glm4_moe_groups": Case("Glm4Moe", {**GLM4_MOE, "n_group": 4, "topk_group": 2}),
    "modernbert_scores_mean": Case("ModernBert", {**MODERNBERT, **LABELS, "classifier_pooling": "mean"}, head=SCORES),
    "qwen3_embedding": Case("Qwen3", LLAMA, head="Model", pooling="lasttoken"),
    "gemma4": Case("Gemma4", GEMMA4, embedding_spread=0.15, config_class="Gemma4Text"),
    "arcee": Case("Arcee", {**LLAMA, "hidden_size": 42, "mlp_bias": True}),
    "helium": Case("Helium", {**SQUARE, "head_dim": 10}),
    "ministral": Case("Ministral", {**LLAMA, **WINDOWED}),
    "glm": Case("Glm", {**LLAMA, "pad_token_id": 0, "rope_parameters": {
        "rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.6}}),
    "camembert": Case("Camembert", {**BERT, "type_vocab_size": 1, "pad_token_id": 1}, head="Model"),
    "granitemoe": Case("GraniteMoe", {
        **QWEN2, **GRANITE, "intermediate_size": 13, "num_local_experts": 7, "num_experts_per_tok": 3, "num_hidden_layers": 2},
        n_tokens=13),
    "granitemoeshared": Case("GraniteMoeShared", {
        **QWEN2, **GRANITE, "intermediate_size": 13, "num_local_experts": 7, "num_experts_per_tok": 3,
        "shared_intermediate_size": 19, "num_hidden_layers": 2}),
    "minimax_m2": Case("MiniMaxM2", {
        **LLAMA, "intermediate_size": 13, "num_local_experts": 7, "num_experts_per_tok": 3, "num_hidden_layers": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.6}}, n_tokens=13),
    "flex_olmo": Case("FlexOlmo", {**SQUARE, **EXPERTS, "pad_token_id": 0, "intermediate_size": 13, "num_hidden_layers": 2}, n_tokens=13),
    "hunyuan_moe": Case("HunYuanMoEV1", {
        **LLAMA, "intermediate_size": 13, "num_experts": 7, "moe_topk": 3, "num_hidden_layers": 2}, n_tokens=13),
    "dots1": Case("Dots1", {
        **LLAMA, **WINDOWED, "moe_intermediate_size": 13, "n_routed_experts": 8, "num_experts_per_tok": 3, "n_shared_experts": 2,
        "routed_scaling_factor": 1.7, "first_k_dense_replace": 1, "n_group": 4, "topk_group": 2, "norm_topk_prob": True,
        "num_hidden_layers": 2, "layer_types": EVERY_SECOND[:2]}, n_tokens=13),
    "qwen2_vl": Case("Qwen2VL", {"text_config": {**QWEN2, "hidden_size": 48, "rope_parameters": SECTIONS}, "vision_config": {
        "depth": 1, "embed_dim": 8, "hidden_size": 48, "num_heads": 2, "mlp_ratio": 2, "patch_size": 2}}, head=WHOLE),
    "qwen2_5_vl": Case("Qwen2_5_VL", {"text_config": {**QWEN2, "hidden_size": 48, "rope_parameters": SECTIONS}, "vision_config": {
        "depth": 1, "hidden_size": 8, "out_hidden_size": 48, "intermediate_size": 8, "num_heads": 2, "patch_size": 2}}, head=WHOLE),
    "qwen3_vl": Case("Qwen3VL", {"text_config": {**LLAMA, "rope_parameters": SECTIONS}, "vision_config": {
        "depth": 1, "hidden_size": 8, "out_hidden_size": 24, "intermediate_size": 8, "num_heads": 2, "patch_size": 2,
        "num_position_embeddings": 4, "deepstack_visual_indexes": [0]}}, head=WHOLE),
    "gemma4_experts": Case("Gemma4", GEMMA4_EXPERTS, embedding_spread=0.15, config_class="Gemma4Text"),
}


def build(case, seed):
    """The model with every parameter drawn anew, so that no norm is the identity and no bias is zero."""
    fields = json.loads(json.dumps(case.config))
    config = getattr(transformers, (case.config_class or case.family) + "Config")(**fields)
    config._attn_implementation, config._experts_implementation = case.attention, "eager"
    model = getattr(transformers, case.family + case.head)(config).float().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            value = initial_value(case, name, noise)
            # What is stored is bf16, so the reference must run on the rounded weights. The model as a whole
            # must not be rounded: that would round the frequencies of the rotary embedding as well.
            parameter.copy_(value.bfloat16() if case.sharded else value)
        for name, buffer in sorted(model.named_buffers()):
            if name.endswith("e_score_correction_bias"):
                buffer.copy_(0.2 * torch.randn(buffer.shape, generator=generator))
            if name.endswith("layer_scalar"):
                buffer.copy_(0.8 + 0.1 * torch.randn(buffer.shape, generator=generator))
    return model


def initial_value(case, name, noise):
    """Random values of a size that makes the logits spread and a mistake in any parameter visible."""
    last = name.split(".")[-2]
    if name.endswith("bias"):
        return 0.2 * noise
    if name.endswith("sinks"):
        return 1.5 * noise
    if noise.dim() == 1 or "norm" in last:
        return case.norm_centre + 0.2 * noise
    if "embed" in name or last in ("wte", "wpe"):
        return case.embedding_spread * noise
    return 0.3 * noise


def draw_tokens(n_tokens, seed):
    generator = torch.Generator().manual_seed(1000 + seed)
    return torch.randint(3, VOCABULARY, (n_tokens,), generator=generator)


@torch.no_grad()
def greedy(model, tokens):
    """The greedy continuation and the smallest lead of a winner, as a share of the logits' spread."""
    sequence = tokens.clone()
    smallest_lead = float("inf")
    for _ in range(GREEDY_STEPS):
        logits = model(sequence[None], use_cache=False).logits[0, -1].double()
        best = logits.topk(2).values
        smallest_lead = min(smallest_lead, ((best[0] - best[1]) / logits.std()).item())
        sequence = torch.cat([sequence, logits.argmax()[None]])
    return sequence[len(tokens):], smallest_lead


@torch.no_grad()
def choice_lead(model, tokens):
    """The smallest lead of a chosen expert over the best of those left out, as a share of its router's spread."""
    leads = [float("inf")]

    def lead(scores, chosen):
        last = scores.masked_fill(~chosen, float("inf")).amin(1)
        next_best = scores.masked_fill(chosen, float("-inf")).amax(1)
        leads.append(((last - next_best) / scores[scores.isfinite()].std()).amin().item())

    def watch(router, inputs, output):
        scores = output[0].double()
        chosen = torch.zeros_like(scores, dtype=torch.bool).scatter(1, output[2], True)
        if hasattr(router, "e_score_correction_bias"):
            scores = scores.sigmoid() + router.e_score_correction_bias
        elif len(inputs) > 1:
            scores = scores.sigmoid() + inputs[1]
        if (getattr(router, "num_group", 1) or 1) > 1:
            by_group = scores.unflatten(1, (router.num_group, -1))
            corrected = hasattr(router, "e_score_correction_bias")
            best = by_group.topk(2).values.sum(2) if corrected else by_group.amax(2)
            open_groups = torch.zeros_like(best, dtype=torch.bool).scatter(1, best.topk(router.topk_group).indices, True)
            lead(best, open_groups)
            scores = by_group.masked_fill(~open_groups[..., None], float("-inf")).flatten(1)
        lead(scores, chosen)

    names = ("topkrouter", "textrouter", "v1gate")
    routers = [module for module in model.modules() if type(module).__name__.lower().endswith(names)]
    hooks = [router.register_forward_hook(watch) for router in routers]
    model(tokens[None], use_cache=False)
    for hook in hooks:
        hook.remove()
    return min(leads)


@torch.no_grad()
def expect_decoder(case):
    """The first seed whose greedy continuation is varied and free of near ties, with its results."""
    for seed in range(case.seeds):
        model, tokens = build(case, seed), draw_tokens(case.n_tokens, seed)
        if choice_lead(model, tokens) < CHOICE_MARGIN:
            continue
        continuation, lead = greedy(model, tokens)
        if lead > TIE_MARGIN and len(set(continuation.tolist())) >= DISTINCT_TOKENS:
            logits = model(tokens[None], use_cache=False).logits[0]
            print(f"  seed {seed}, logits spread {logits.std():.3f}, smallest lead {lead:.3f}")
            return model, {"tokens": tokens, "logits": logits.contiguous(), "greedy": continuation}
    raise SystemExit("no seed gives a greedy continuation without near ties")


@torch.no_grad()
def expect_encoder(case):
    """Hidden states of all tokens, and again with the last third masked as padding is."""
    model, tokens = build(case, 0), draw_tokens(case.n_tokens, 0)
    mask = (torch.arange(case.n_tokens) < case.n_tokens * 2 // 3).long()
    hidden = model(tokens[None]).last_hidden_state[0]
    masked = model(tokens[None], attention_mask=mask[None]).last_hidden_state[0]
    expected = {"tokens": tokens, "hidden": hidden, "mask": mask, "hidden_masked": masked}
    return model, {name: value.contiguous() for name, value in expected.items()}


@torch.no_grad()
def expect_scores(case):
    """The scores of a whole sequence."""
    model, tokens = build(case, 0), draw_tokens(case.n_tokens, 0)
    return model, {"tokens": tokens, "scores": model(tokens[None]).logits[0].contiguous()}


@torch.no_grad()
def expect_vector(case):
    """Hidden states of all tokens, and the last one at length one."""
    model, tokens = build(case, 0), draw_tokens(case.n_tokens, 0)
    hidden = model(tokens[None]).last_hidden_state[0]
    vector = torch.nn.functional.normalize(hidden[-1], dim=0)
    return model, {"tokens": tokens, "hidden": hidden.contiguous(), "vector": vector}


def save_modules(folder, case, width):
    """The files of sentence-transformers, as its models carry them."""
    kinds = ["Transformer", "Pooling", "Normalize"]
    paths = ["", "1_Pooling", "2_Normalize"]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(zip(kinds, paths))
    ]
    (folder / "modules.json").write_text(json.dumps(modules, indent=2) + "\n")
    (folder / "1_Pooling").mkdir()
    modes = ["cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken"]
    pooling = {f"pooling_mode_{mode}": mode == case.pooling for mode in modes}
    pooling |= {"word_embedding_dimension": width, "include_prompt": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling, indent=2) + "\n")


def save_case(name, case):
    """One folder: the checkpoint as transformers writes it, and `expected.safetensors`."""
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    expect = {"Model": expect_encoder, SCORES: expect_scores}.get(case.head, expect_decoder)
    if case.pooling:
        expect = expect_vector
    model, expected = expect(case)
    if case.sharded:
        model.bfloat16().save_pretrained(folder, max_shard_size=SHARD_SIZE)
    else:
        model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    save_file(expected, folder / "expected.safetensors")
    if case.pooling:
        save_modules(folder, case, model.config.hidden_size)
    check_reload(folder, case, expected)
    if case.old_type_key:
        save_old_spelling(name, case, expected)
    if name == "nomic_bert":
        save_old_nomic(name)


def save_old_spelling(name, case, expected):
    """The same config as checkpoints from before `rope_parameters` spell it; the weights stay where they are."""
    folder = HERE / f"{name}_oldspelling"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    config = json.loads((HERE / name / "config.json").read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    rope[case.old_type_key] = rope.pop("rope_type")
    config["rope_scaling"] = rope
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.44.0"
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    (folder / "same_weights_as").write_text(name + "\n")
    check_reload(HERE / name, case, expected, config=folder)


def save_old_nomic(name):
    """The config as the first files of nomic-embed-text have it; transformers itself no longer reads them."""
    folder = HERE / f"{name}_oldspelling"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    new = json.loads((HERE / name / "config.json").read_text())
    config = {
        "activation_function": "swiglu", "architectures": ["NomicBertModel"], "attn_pdrop": 0.0, "bos_token_id": None,
        "causal": False, "dense_seq_output": True, "embd_pdrop": 0.0, "eos_token_id": None, "fused_bias_fc": True,
        "fused_dropout_add_ln": True, "initializer_range": 0.02, "layer_norm_epsilon": new["layer_norm_eps"],
        "mlp_fc1_bias": False, "mlp_fc2_bias": False, "model_type": "nomic_bert", "n_embd": new["hidden_size"],
        "n_head": new["num_attention_heads"], "n_inner": new["intermediate_size"], "n_layer": new["num_hidden_layers"],
        "n_positions": new["max_position_embeddings"], "pad_vocab_size_multiple": 64, "parallel_block": False,
        "prenorm": False, "qkv_proj_bias": False, "reorder_and_upcast_attn": False, "resid_pdrop": 0.0,
        "rotary_emb_base": new["rope_parameters"]["rope_theta"], "rotary_emb_fraction": 1.0,
        "rotary_emb_interleaved": False, "rotary_emb_scale_base": None, "rotary_scaling_factor": None,
        "scale_attn_by_inverse_layer_idx": False, "scale_attn_weights": True, "summary_activation": None,
        "summary_first_dropout": 0.0, "summary_proj_to_labels": True, "summary_type": "cls_index",
        "summary_use_proj": True, "torch_dtype": "float32", "transformers_version": "4.34.0",
        "type_vocab_size": new["type_vocab_size"], "use_cache": True, "use_flash_attn": True, "use_rms_norm": False,
        "use_xentropy": True, "vocab_size": new["vocab_size"],
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    (folder / "same_weights_as").write_text(name + "\n")


@torch.no_grad()
def check_reload(folder, case, expected, config=None):
    """What was saved must give the expected values again, whichever spelling its config has."""
    loaded_config = transformers.AutoConfig.from_pretrained(config or folder)
    loaded_config._attn_implementation, loaded_config._experts_implementation = case.attention, "eager"
    model_class = getattr(transformers, case.family + case.head)
    model = model_class.from_pretrained(folder, config=loaded_config, dtype=torch.float32).eval()
    output = model(expected["tokens"][None])
    result = output.last_hidden_state if case.head == "Model" else output.logits
    reference = expected[{"Model": "hidden", SCORES: "scores"}.get(case.head, "logits")]
    worst = (result[0] - reference).abs().max().item()
    if worst > 1e-6:
        raise SystemExit(f"{config or folder}: reloaded checkpoint differs by {worst}")


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for name in sys.argv[1:] or CASES:
        print(name)
        save_case(name, CASES[name])


if __name__ == "__main__":
    main()
