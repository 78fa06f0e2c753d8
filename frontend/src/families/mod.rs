//! The table of families. A new family is a new row, most often an old row with the differences.

mod encoders;
mod experts;
mod gemma;
mod gpt;
mod llama;
mod parallel;

use crate::family::*;
use crate::spec::{MatrixLayout, ModelKind, NormKind, Residual};
use encoders::*;
use experts::*;
use gemma::*;
use gpt::*;
use llama::*;
use parallel::*;

/// Every row, in the order in which errors list the families. Rows of one family stand together.
pub const FAMILIES: &[&Family] = &[
    &LLAMA,
    &MISTRAL,
    &MINISTRAL,
    &ARCEE,
    &HELIUM,
    &QWEN2,
    &QWEN3,
    &QWEN2_VL,
    &QWEN2_5_VL,
    &QWEN3_VL,
    &PHI3,
    &SMOLLM3,
    &GRANITE,
    &ERNIE,
    &SEED,
    &HUNYUAN,
    &OLMO,
    &OLMO2,
    &OLMO3,
    &EXAONE4,
    &GLM,
    &GLM4,
    &NEMOTRON,
    &STARCODER2,
    &GEMMA,
    &GEMMA2,
    &GEMMA3,
    &GEMMA4,
    &GEMMA4_EXPERTS,
    &GPT2,
    &GPT_BIGCODE,
    &GPT_BIGCODE_MULTI_HEAD,
    &OPT_POST_NORM,
    &OPT,
    &BLOOM,
    &GPT_NEOX,
    &GPTJ,
    &PHI,
    &FALCON_ALIBI,
    &FALCON_GROUPED_ONE_NORM,
    &FALCON_GROUPED,
    &FALCON_MULTI_QUERY,
    &FALCON_MULTI_HEAD,
    &FALCON_SEQUENTIAL,
    &STABLELM,
    &COHERE,
    &COHERE2,
    &BERT,
    &ROBERTA,
    &XLM_ROBERTA,
    &CAMEMBERT,
    &DISTILBERT,
    &MODERNBERT,
    &NOMIC_BERT_OLD,
    &NOMIC_BERT,
    &MIXTRAL,
    &MINIMAX_M2,
    &GRANITE_MOE,
    &GRANITE_MOE_SHARED,
    &QWEN2_MOE,
    &QWEN3_MOE,
    &OLMOE,
    &FLEX_OLMO,
    &HUNYUAN_MOE,
    &DOTS1,
    &GPT_OSS,
    &GLM4_MOE,
    &DEEPSEEK_V3,
    &DEEPSEEK_V2_GROUPS,
    &DEEPSEEK_V2,
];

const LLAMA_KEYS: Keys = Keys {
    hidden: "hidden_size",
    layers: "num_hidden_layers",
    heads: "num_attention_heads",
    kv_heads: KvHeads::Field("num_key_value_heads"),
    head_dim: Some("head_dim"),
    inner: "intermediate_size",
    inner_multiple: 0,
    positions: "max_position_embeddings",
    positions_absent: 0,
    eps: Factor::Field("rms_norm_eps"),
    activation: ActivationRow::Field("hidden_act"),
};

const NO: Switch = Switch::Fixed(false);
const YES: Switch = Switch::Fixed(true);
const ONE: Factor = Factor::Fixed(1.0);
const PLAIN_ROPE: RopeRow = RopeRow {
    interleaved: false,
    dim: None,
    layers: RopeLayers::All,
    local: None,
    theta: 10000.0,
    partial: None,
};
const SEQUENTIAL: ResidualRow = ResidualRow { parallel: NO, form: Residual::Parallel, scale: ONE };

const PLAIN_EMBEDDING: EmbeddingRow =
    EmbeddingRow { tokens: "", scale: ONE, project: None, token_types: None, positions: None, norm: None };
const PLAIN_ATTENTION: AttentionRow = AttentionRow {
    qkv: QkvRow::Stacked(""),
    qkv_bias: NO,
    out: "",
    out_bias: NO,
    head_norms: None,
    rope: None,
    alibi: AlibiRow::Never,
    clip: None,
    sinks: None,
    scale: Factor::InverseSqrtHead,
    softcap: None,
    window: WindowRow::Never,
    global: None,
    shared: None,
    layout: MatrixLayout::OutIn,
};
const PLAIN_HEAD: HeadRow = HeadRow { name: "lm_head", bias: NO, tied: false, scale: ONE, softcap: None };

/// What a row leaves out that has no older row to start from: a decoder without anything that only some have, and without the
/// names of its weights.
const PLAIN: Family = Family {
    model_type: "",
    when: &[],
    kind: ModelKind::Decoder,
    keys: LLAMA_KEYS,
    ignored: &[],
    only: &[],
    equal: &[],
    prefixes: &[""],
    embedding: PLAIN_EMBEDDING,
    norm: NormRow { kind: NormKind::Layer, weight: true, one_plus: false, bias: true },
    norms: NormPlaces { attention: NO_NORMS, mlp: NO_NORMS, first_is_bare: false, last: None },
    residual: SEQUENTIAL,
    attention: PLAIN_ATTENTION,
    mlp: MlpRow { input: MlpInputRow::Plain(""), down: "", bias: NO },
    moe: None,
    per_layer: None,
    head: None,
    classifier: None,
};
