//! From config.json to a spec: published files are understood, doubtful ones refused, windows resolved.

mod support;

use sinter_frontend::build::{BuildOptions, build};
use sinter_frontend::config::{ConfigError, RawConfig};
use sinter_frontend::model::{Model as Opened, ModelError};
use sinter_frontend::resolve::{known_families, resolve};
use sinter_frontend::spec::{Activation, FeedForward, ModelSpec, Residual};
use sinter_ir::DType;
use support::{Model, safetensors, says};

fn spec(text: &str) -> Result<ModelSpec, ConfigError> {
    resolve(&RawConfig::parse(text.as_bytes()).unwrap(), &|_| false)
}

/// A small sound llama with these fields set, added or, with `null`, removed.
fn llama(changes: &[(&str, &str)]) -> String {
    let mut fields = vec![
        ("model_type", "\"llama\""),
        ("vocab_size", "11"),
        ("hidden_size", "8"),
        ("intermediate_size", "12"),
        ("num_hidden_layers", "4"),
        ("num_attention_heads", "4"),
        ("num_key_value_heads", "2"),
        ("max_position_embeddings", "64"),
        ("rms_norm_eps", "1e-6"),
        ("hidden_act", "\"silu\""),
    ];
    fields.retain(|(key, _)| changes.iter().all(|(changed, _)| changed != key));
    fields.extend(changes);
    let fields: Vec<String> = fields.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
    format!("{{{}}}", fields.join(","))
}

fn windows(changes: &[(&str, &str)]) -> Vec<Option<usize>> {
    let spec = spec(&llama(changes)).unwrap();
    spec.layers.iter().map(|layer| layer.attention.window).collect()
}

#[test]
fn an_unknown_family_is_named_beside_the_known_ones() {
    let error = spec(&llama(&[("model_type", "\"mamba\"")])).unwrap_err();
    says(error, &["unknown model_type `mamba`", "llama, mistral, ministral", "bert"]);
    says(spec("{}").unwrap_err(), &["`model_type` is missing"]);
    assert!(known_families().contains(&"gpt_neox"));
}

#[test]
fn a_field_that_no_row_reads_is_refused() {
    let error = spec(&llama(&[("attention_multiplier", "0.5")])).unwrap_err();
    says(error, &["unsupported field `attention_multiplier` = 0.5"]);
    says(spec(&llama(&[("sliding_window", "7")])).unwrap_err(), &["`sliding_window` = 7"]);
    // A field that is read as a constant must have that value.
    says(spec(&llama(&[("rope_interleaved", "true")])).unwrap_err(), &["`rope_interleaved` = true"]);
    assert!(spec(&llama(&[("rope_interleaved", "false")])).is_ok());
    says(spec(&llama(&[("hidden_act", "\"zelu\"")])).unwrap_err(), &["one of silu", "zelu"]);
}

#[test]
fn heads_must_divide() {
    let error = spec(&llama(&[("num_key_value_heads", "3")])).unwrap_err();
    says(error, &["`num_key_value_heads`", "a divisor of num_attention_heads, which is 4", "found 3"]);
    let error = spec(&llama(&[("num_attention_heads", "3"), ("num_key_value_heads", "null")])).unwrap_err();
    says(error, &["`num_attention_heads`", "a divisor of hidden_size, which is 8"]);
    assert!(spec(&llama(&[("num_attention_heads", "6"), ("head_dim", "10")])).is_ok());
    let odd = [("num_attention_heads", "8"), ("head_dim", "5")];
    says(spec(&llama(&odd)).unwrap_err(), &["not pairs"]);
}

#[test]
fn windows_follow_each_familys_rule() {
    let mistral = ("model_type", "\"mistral\"");
    assert_eq!(windows(&[mistral, ("sliding_window", "7")]), [Some(7); 4]);
    assert_eq!(windows(&[mistral, ("sliding_window", "null")]), [None; 4]);
    assert_eq!(windows(&[mistral]), [Some(4096); 4]);
    let phi3 = ("model_type", "\"phi3\"");
    assert_eq!(windows(&[phi3]), [None; 4]);

    let qwen = ("model_type", "\"qwen2\"");
    let on = ("use_sliding_window", "true");
    let from = ("max_window_layers", "3");
    assert_eq!(windows(&[qwen, from, ("sliding_window", "9")]), [None; 4]);
    assert_eq!(windows(&[qwen, on, from, ("sliding_window", "9")]), [None, None, None, Some(9)]);
    let types =
        ("layer_types", r#"["sliding_attention","full_attention","full_attention","sliding_attention"]"#);
    assert_eq!(windows(&[qwen, on, types, ("sliding_window", "9")]), [Some(9), None, None, Some(9)]);
    says(spec(&llama(&[qwen, types])).unwrap_err(), &["`layer_types`", "no sliding window is in use"]);
    let short = ("layer_types", r#"["full_attention"]"#);
    says(spec(&llama(&[qwen, short])).unwrap_err(), &["a list of 4 words"]);
    let other = ("layer_types", r#"["chunked_attention","x","x","x"]"#);
    says(spec(&llama(&[qwen, other])).unwrap_err(), &["chunked_attention"]);

    let gemma = [
        ("model_type", "\"gemma2\""),
        ("hidden_act", "null"),
        ("hidden_activation", "\"gelu_pytorch_tanh\""),
        ("query_pre_attn_scalar", "16"),
        ("sliding_window", "5"),
    ];
    assert_eq!(windows(&gemma), [Some(5), None, Some(5), None]);
    let gemma = spec(&llama(&gemma)).unwrap();
    assert_eq!((gemma.layers[0].attention.scale, gemma.embedding.scale), (0.25, 8f64.sqrt()));
    assert!(gemma.head.unwrap().linear.weight.contains("embed_tokens"), "gemma ties unless told otherwise");
}

#[test]
fn prefixes_and_old_names_of_norms_are_found_in_the_checkpoint() {
    let config = include_str!("../../testsuite/goldens/bert/config.json");
    let config = RawConfig::parse(config.as_bytes()).unwrap();
    let names = |tensors: &[&str]| {
        let spec = resolve(&config, &|name| tensors.contains(&name)).unwrap();
        let norm = spec.layers[1].attention_norms.after_sum.clone().unwrap();
        (spec.embedding.tokens, norm.weight.unwrap(), norm.bias.unwrap())
    };
    let (tokens, weight, _) = names(&[]);
    assert_eq!(tokens, "embeddings.word_embeddings.weight");
    assert_eq!(weight, "encoder.layer.1.attention.output.LayerNorm.weight");
    let (tokens, weight, bias) = names(&[
        "bert.embeddings.word_embeddings.weight",
        "bert.encoder.layer.0.attention.output.LayerNorm.gamma",
    ]);
    assert_eq!(tokens, "bert.embeddings.word_embeddings.weight");
    assert_eq!(weight, "bert.encoder.layer.1.attention.output.LayerNorm.gamma");
    assert_eq!(bias, "bert.encoder.layer.1.attention.output.LayerNorm.beta");
}

#[test]
fn weights_are_held_against_the_graph() {
    let tensors = |head: &'static [usize], dtype: &'static str| {
        vec![
            ("model.embed_tokens.weight", "F32", &[11, 8][..]),
            ("model.norm.weight", "F32", &[8]),
            ("lm_head.weight", dtype, head),
            ("model.layers.0.input_layernorm.weight", "F32", &[8]),
            ("model.layers.0.post_attention_layernorm.weight", "BF16", &[8]),
            ("model.layers.0.self_attn.q_proj.weight", "F32", &[8, 8]),
            ("model.layers.0.self_attn.k_proj.weight", "F16", &[4, 8]),
            ("model.layers.0.self_attn.v_proj.weight", "F32", &[4, 8]),
            ("model.layers.0.self_attn.o_proj.weight", "F32", &[8, 8]),
            ("model.layers.0.mlp.gate_proj.weight", "F32", &[12, 8]),
            ("model.layers.0.mlp.up_proj.weight", "F32", &[12, 8]),
            ("model.layers.0.mlp.down_proj.weight", "F32", &[8, 12]),
        ]
    };
    let open = |tensors: &[(&str, &str, &[usize])]| {
        let model = Model::new()
            .file("config.json", llama(&[("num_hidden_layers", "1")]))
            .file("model.safetensors", safetensors(tensors));
        Opened::open(model.open())
    };
    let refused = |tensors: &[(&str, &str, &[usize])]| match open(tensors) {
        Err(error @ ModelError::Weights(_)) => error,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("accepted"),
    };
    let sound = tensors(&[11, 8], "F32");
    let model = open(&sound).unwrap_or_else(|error| panic!("{error}"));
    assert!(model.notes.is_empty() && model.tokenizer.is_none() && model.chat.is_none());
    assert_eq!(model.tensor("const.rope_inv_freq.0").unwrap().1, [1]);
    assert!(model.tensor("nothing").is_none());

    says(refused(&tensors(&[8, 11], "F32")), &["`lm_head.weight`", "[11, 8]", "[8, 11]"]);
    says(refused(&tensors(&[11, 8], "I64")), &["`lm_head.weight`", "BF16, F16 or F32", "I64"]);
    let without: Vec<_> = sound.iter().copied().filter(|(name, ..)| !name.contains("up_proj")).collect();
    says(refused(&without), &["mlp.up_proj.weight`: not in", "mlp.gate_proj.weight"]);

    let mut more = sound.clone();
    more.push(("model.layers.0.self_attn.q_proj.bias", "F32", &[8]));
    let notes = open(&more).map(|model| model.notes).unwrap_or_default();
    assert_eq!(notes, ["the checkpoint's tensor `model.layers.0.self_attn.q_proj.bias` is not used"]);
}

/// Configurations written after those of published models, with the fields and spellings that they use.
const PUBLISHED: &[&str] = &[
    // SmolLM2-135M-Instruct
    r#"{"architectures":["LlamaForCausalLM"],"attention_bias":false,"attention_dropout":0.0,"bos_token_id":1,
    "eos_token_id":2,"hidden_act":"silu","hidden_size":576,"initializer_range":0.041666666666666664,
    "intermediate_size":1536,"is_llama_config":true,"max_position_embeddings":8192,"mlp_bias":false,
    "model_type":"llama","num_attention_heads":9,"num_hidden_layers":30,"num_key_value_heads":3,"pad_token_id":2,
    "pretraining_tp":1,"rms_norm_eps":1e-05,"rope_interleaved":false,"rope_scaling":null,"rope_theta":100000,
    "tie_word_embeddings":true,"torch_dtype":"bfloat16","transformers.js_config":{"kv_cache_dtype":{"fp16":"float16"}},
    "transformers_version":"4.42.3","use_cache":true,"vocab_size":49152}"#,
    // Llama-3.2-1B
    r#"{"architectures":["LlamaForCausalLM"],"attention_bias":false,"attention_dropout":0.0,"bos_token_id":128000,
    "eos_token_id":[128001,128008,128009],"head_dim":64,"hidden_act":"silu","hidden_size":2048,"initializer_range":0.02,
    "intermediate_size":8192,"max_position_embeddings":131072,"mlp_bias":false,"model_type":"llama",
    "num_attention_heads":32,"num_hidden_layers":16,"num_key_value_heads":8,"pretraining_tp":1,"rms_norm_eps":1e-05,
    "rope_scaling":{"factor":32.0,"high_freq_factor":4.0,"low_freq_factor":1.0,
    "original_max_position_embeddings":8192,"rope_type":"llama3"},"rope_theta":500000.0,"tie_word_embeddings":true,
    "torch_dtype":"bfloat16","transformers_version":"4.45.0.dev0","use_cache":true,"vocab_size":128256}"#,
    // Qwen2.5-0.5B
    r#"{"architectures":["Qwen2ForCausalLM"],"attention_dropout":0.0,"bos_token_id":151643,"eos_token_id":151643,
    "hidden_act":"silu","hidden_size":896,"initializer_range":0.02,"intermediate_size":4864,
    "max_position_embeddings":32768,"max_window_layers":24,"model_type":"qwen2","num_attention_heads":14,
    "num_hidden_layers":24,"num_key_value_heads":2,"rms_norm_eps":1e-06,"rope_theta":1000000.0,"sliding_window":32768,
    "tie_word_embeddings":true,"torch_dtype":"bfloat16","transformers_version":"4.40.1","use_cache":true,
    "use_mrope":false,"use_sliding_window":false,"vocab_size":151936}"#,
    // Qwen3-0.6B
    r#"{"architectures":["Qwen3ForCausalLM"],"attention_bias":false,"attention_dropout":0.0,"bos_token_id":151643,
    "eos_token_id":151645,"head_dim":128,"hidden_act":"silu","hidden_size":1024,"initializer_range":0.02,
    "intermediate_size":3072,"max_position_embeddings":40960,"max_window_layers":28,"model_type":"qwen3",
    "num_attention_heads":16,"num_hidden_layers":28,"num_key_value_heads":8,"rms_norm_eps":1e-06,"rope_scaling":null,
    "rope_theta":1000000,"sliding_window":null,"tie_word_embeddings":true,"torch_dtype":"bfloat16",
    "transformers_version":"4.51.0","use_cache":true,"use_sliding_window":false,"vocab_size":151936}"#,
    // Mistral-7B-v0.1
    r#"{"architectures":["MistralForCausalLM"],"bos_token_id":1,"eos_token_id":2,"hidden_act":"silu","hidden_size":4096,
    "initializer_range":0.02,"intermediate_size":14336,"max_position_embeddings":32768,"model_type":"mistral",
    "num_attention_heads":32,"num_hidden_layers":32,"num_key_value_heads":8,"rms_norm_eps":1e-05,"rope_theta":10000.0,
    "sliding_window":4096,"tie_word_embeddings":false,"torch_dtype":"bfloat16","transformers_version":"4.34.0.dev0",
    "use_cache":true,"vocab_size":32000}"#,
    // gemma-2-2b
    r#"{"architectures":["Gemma2ForCausalLM"],"attention_bias":false,"attention_dropout":0.0,
    "attn_logit_softcapping":50.0,"bos_token_id":2,"cache_implementation":"hybrid","eos_token_id":1,
    "final_logit_softcapping":30.0,"head_dim":256,"hidden_act":"gelu_pytorch_tanh",
    "hidden_activation":"gelu_pytorch_tanh","hidden_size":2304,"initializer_range":0.02,"intermediate_size":9216,
    "max_position_embeddings":8192,"model_type":"gemma2","num_attention_heads":8,"num_hidden_layers":26,
    "num_key_value_heads":4,"pad_token_id":0,"query_pre_attn_scalar":256,"rms_norm_eps":1e-06,"rope_theta":10000.0,
    "sliding_window":4096,"torch_dtype":"float32","transformers_version":"4.42.4","use_cache":true,
    "vocab_size":256000}"#,
    // Phi-3-mini-4k-instruct
    r#"{"_name_or_path":"Phi-3-mini-4k-instruct","architectures":["Phi3ForCausalLM"],"attention_bias":false,
    "attention_dropout":0.0,"auto_map":{"AutoConfig":"configuration_phi3.Phi3Config"},"bos_token_id":1,"embd_pdrop":0.0,
    "eos_token_id":32000,"hidden_act":"silu","hidden_size":3072,"initializer_range":0.02,"intermediate_size":8192,
    "max_position_embeddings":4096,"model_type":"phi3","num_attention_heads":32,"num_hidden_layers":32,
    "num_key_value_heads":32,"original_max_position_embeddings":4096,"pad_token_id":32000,"resid_pdrop":0.0,
    "rms_norm_eps":1e-05,"rope_scaling":null,"rope_theta":10000.0,"sliding_window":2047,"tie_word_embeddings":false,
    "torch_dtype":"bfloat16","transformers_version":"4.40.2","use_cache":true,"vocab_size":32064}"#,
    // gpt2
    r#"{"activation_function":"gelu_new","architectures":["GPT2LMHeadModel"],"attn_pdrop":0.1,"bos_token_id":50256,
    "embd_pdrop":0.1,"eos_token_id":50256,"initializer_range":0.02,"layer_norm_epsilon":1e-05,"model_type":"gpt2",
    "n_ctx":1024,"n_embd":768,"n_head":12,"n_layer":12,"n_positions":1024,"resid_pdrop":0.1,"summary_activation":null,
    "summary_first_dropout":0.1,"summary_proj_to_labels":true,"summary_type":"cls_index","summary_use_proj":true,
    "task_specific_params":{"text-generation":{"do_sample":true,"max_length":50}},"vocab_size":50257}"#,
    // pythia-160m
    r#"{"architectures":["GPTNeoXForCausalLM"],"bos_token_id":0,"eos_token_id":0,"hidden_act":"gelu","hidden_size":768,
    "initializer_range":0.02,"intermediate_size":3072,"layer_norm_eps":1e-05,"max_position_embeddings":2048,
    "model_type":"gpt_neox","num_attention_heads":12,"num_hidden_layers":12,"rotary_emb_base":10000,"rotary_pct":0.25,
    "tie_word_embeddings":false,"torch_dtype":"float16","transformers_version":"4.24.0","use_cache":true,
    "use_parallel_residual":true,"vocab_size":50304}"#,
    // Mixtral-8x7B-v0.1
    r#"{"architectures":["MixtralForCausalLM"],"attention_dropout":0.0,"bos_token_id":1,"eos_token_id":2,
    "hidden_act":"silu","hidden_size":4096,"initializer_range":0.02,"intermediate_size":14336,
    "max_position_embeddings":32768,"model_type":"mixtral","num_attention_heads":32,"num_experts_per_tok":2,
    "num_hidden_layers":32,"num_key_value_heads":8,"num_local_experts":8,"output_router_logits":false,
    "rms_norm_eps":1e-05,"rope_theta":1000000.0,"router_aux_loss_coef":0.02,"sliding_window":null,
    "tie_word_embeddings":false,"torch_dtype":"bfloat16","transformers_version":"4.36.0.dev0","use_cache":true,
    "vocab_size":32000}"#,
    // Qwen3-30B-A3B
    r#"{"architectures":["Qwen3MoeForCausalLM"],"attention_bias":false,"attention_dropout":0.0,"bos_token_id":151643,
    "decoder_sparse_step":1,"eos_token_id":151645,"head_dim":128,"hidden_act":"silu","hidden_size":2048,
    "initializer_range":0.02,"intermediate_size":6144,"max_position_embeddings":40960,"max_window_layers":48,
    "mlp_only_layers":[],"model_type":"qwen3_moe","moe_intermediate_size":768,"norm_topk_prob":true,
    "num_attention_heads":32,"num_experts":128,"num_experts_per_tok":8,"num_hidden_layers":48,"num_key_value_heads":4,
    "output_router_logits":false,"rms_norm_eps":1e-06,"rope_scaling":null,"rope_theta":1000000.0,
    "router_aux_loss_coef":0.001,"sliding_window":null,"tie_word_embeddings":false,"torch_dtype":"bfloat16",
    "transformers_version":"4.51.0","use_cache":true,"use_sliding_window":false,"vocab_size":151936}"#,
    // DeepSeek-V2-Lite
    r#"{"architectures":["DeepseekV2ForCausalLM"],"attention_bias":false,"attention_dropout":0.0,"aux_loss_alpha":0.001,
    "bos_token_id":100000,"eos_token_id":100001,"first_k_dense_replace":1,"hidden_act":"silu","hidden_size":2048,
    "initializer_range":0.02,"intermediate_size":10944,"kv_lora_rank":512,"max_position_embeddings":163840,
    "model_type":"deepseek_v2","moe_intermediate_size":1408,"moe_layer_freq":1,"n_group":1,"n_routed_experts":64,
    "n_shared_experts":2,"norm_topk_prob":false,"num_attention_heads":16,"num_experts_per_tok":6,
    "num_hidden_layers":27,"num_key_value_heads":16,"pretraining_tp":1,"q_lora_rank":null,"qk_nope_head_dim":128,
    "qk_rope_head_dim":64,"rms_norm_eps":1e-06,"rope_scaling":{"beta_fast":32,"beta_slow":1,"factor":40,"mscale":0.707,
    "mscale_all_dim":0.707,"original_max_position_embeddings":4096,"type":"yarn"},"rope_theta":10000,
    "routed_scaling_factor":1.0,"scoring_func":"softmax","seq_aux":true,"tie_word_embeddings":false,"topk_group":1,
    "topk_method":"greedy","torch_dtype":"bfloat16","transformers_version":"4.33.1","use_cache":true,"v_head_dim":128,
    "vocab_size":102400}"#,
    // all-MiniLM-L6-v2
    r#"{"_name_or_path":"nreimers/MiniLM-L6-H384-uncased","architectures":["BertModel"],
    "attention_probs_dropout_prob":0.1,"gradient_checkpointing":false,"hidden_act":"gelu","hidden_dropout_prob":0.1,
    "hidden_size":384,"initializer_range":0.02,"intermediate_size":1536,"layer_norm_eps":1e-12,
    "max_position_embeddings":512,"model_type":"bert","num_attention_heads":12,"num_hidden_layers":6,"pad_token_id":0,
    "position_embedding_type":"absolute","transformers_version":"4.8.2","type_vocab_size":2,"use_cache":true,
    "vocab_size":30522}"#,
];

#[test]
fn products_are_computed_in_f32_or_bf16_only() {
    let spec = spec(&llama(&[])).unwrap();
    says(build(&spec, BuildOptions::new(DType::U32)).unwrap_err(), &["weights of type u32", "f32 or bf16"]);
}

#[test]
fn published_configurations_are_understood() {
    let specs: Vec<ModelSpec> =
        PUBLISHED.iter().map(|text| spec(text).unwrap_or_else(|error| panic!("{error}\n{text}"))).collect();
    let of = |family| specs.iter().find(|spec| spec.family == family).unwrap();
    let FeedForward::Dense(mlp) = &of("gpt2").layers[0].mlp else { panic!("gpt2 has no experts") };
    assert_eq!((mlp.inner, mlp.activation), (3072, Activation::GeluTanh));
    assert_eq!(
        (of("gpt_neox").layers[0].residual, of("gpt_neox").ropes[0].rotary_dim),
        (Residual::Parallel, 16)
    );
    assert_eq!(of("qwen2").layers[23].attention.window, None);
    assert_eq!(of("gemma2").layers[0].attention.head_dim, 256);
    assert_eq!(of("phi3").layers[5].attention.window, Some(2047));
    let FeedForward::Experts(experts) = &of("qwen3_moe").layers[47].mlp else { panic!("it has experts") };
    assert_eq!((experts.router.chosen, experts.up.count, experts.up.n_out), (8, 128, 768));
    assert_eq!((experts.router.normalise, of("mixtral").ropes[0].theta), (true, 1e6));
    let attention = &of("deepseek_v2").layers[26].attention;
    assert_eq!((attention.kv_heads, attention.head_dim, attention.cached()), (1, 576, 576));
    // 0.1 · 0.707 · ln 40 + 1, squared.
    assert!(
        (attention.scale * 192f64.sqrt() - 1.589_626).abs() < 1e-5,
        "{}",
        attention.scale * 192f64.sqrt()
    );
    assert!(of("bert").head.is_none() && of("bert").ropes.is_empty());
    let names: Vec<String> = of("llama").constants().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["const.rope_inv_freq.0"]);
}

#[test]
fn no_value_of_any_field_makes_a_panic() {
    const HOSTILE: &[&str] =
        &["0", "1", "3", "1048576", "-1", "1e308", "5e-324", "\"x\"", "[]", "{}", "true", "null"];
    for text in PUBLISHED {
        let config: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).unwrap();
        for key in config.keys().filter(|key| !key.contains("layer")) {
            for value in HOSTILE {
                let mut config = config.clone();
                config.insert(key.clone(), serde_json::from_str(value).unwrap());
                config.iter_mut().filter(|(key, _)| key.contains("layers")).for_each(|(_, n)| *n = 2.into());
                if let Ok(spec) = spec(&serde_json::to_string(&config).unwrap()) {
                    let graph = build(&spec, BuildOptions::new(DType::Bf16));
                    graph.unwrap_or_else(|error| panic!("{key} = {value}: {error}"));
                }
            }
        }
    }
}

#[test]
fn experts_that_cannot_be_are_refused() {
    let refused = |changes: &[(&str, &str)], words: &[&str]| {
        let mut config: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(PUBLISHED.iter().find(|text| text.contains("qwen3_moe")).unwrap()).unwrap();
        for (key, value) in changes {
            config.insert((*key).into(), serde_json::from_str(value).unwrap());
        }
        says(spec(&serde_json::to_string(&config).unwrap()).unwrap_err(), words);
    };
    refused(&[("num_experts", "0")], &["num_experts"]);
    refused(&[("num_experts", "4096")], &["num_experts", "at most 65536 in all layers together"]);
    refused(&[("num_experts_per_tok", "129")], &["num_experts_per_tok"]);
    refused(&[("mlp_only_layers", "3")], &["mlp_only_layers", "a list of layers"]);
}
