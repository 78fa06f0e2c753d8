//! Fields of config.json: ranges, unread fields, rotary spellings, generation and pooling files.

mod support;

use sinter_frontend::config::{RawConfig, limits};
use sinter_frontend::generation::GenerationDefaults;
use sinter_frontend::pooling::{Pooling, PoolingMode};
use sinter_frontend::rope::{RopeContext, RopeScaling, RopeSpec};
use support::{Model, says};

fn raw(text: &str) -> RawConfig {
    RawConfig::parse(text.as_bytes()).unwrap()
}

#[test]
fn getters_name_what_they_wanted() {
    let config =
        raw(r#"{"hidden_size":-1,"layers":1e9,"heads":"x","eps":1e-5,"on":1,"act":"zelu","n":null}"#);
    let root = config.root();
    says(
        root.usize("hidden_size", limits::WIDTH).unwrap_err(),
        &["`hidden_size`", "from 1 to 1048576", "-1"],
    );
    says(root.usize("layers", limits::LAYERS).unwrap_err(), &["from 1 to 4096", "1000000000"]);
    says(root.usize("heads", limits::HEADS).unwrap_err(), &["an integer", "\"x\""]);
    says(root.usize("n", limits::HEADS).unwrap_err(), &["`n` is missing"]);
    says(root.bool_or("on", false).unwrap_err(), &["true or false"]);
    says(root.word("act", &[("silu", 1), ("gelu", 2)]).unwrap_err(), &["one of silu, gelu", "zelu"]);
    assert_eq!(root.f64("eps", limits::EPSILON).unwrap(), 1e-5);
}

#[test]
fn unread_fields_are_errors_unless_harmless() {
    let config =
        raw(r#"{"a":1,"b":null,"_x":2,"use_cache":true,"torch_dtype":"float32","is_decoder":false}"#);
    says(config.finish().unwrap_err(), &["unsupported field `a` = 1"]);
    config.root().usize("a", 0..=9).unwrap();
    assert!(config.finish().unwrap().is_empty());
    says(raw(r#"{"is_decoder":true}"#).finish().unwrap_err(), &["is_decoder"]);
    let notes = raw(r#"{"auto_map":{"AutoModel":"evil.Model"}}"#).finish().unwrap();
    says(&notes[0], &["never run"]);
    let nested = raw(r#"{"inner":{"a":1,"b":2}}"#);
    nested.root().opt_section("inner").unwrap().unwrap().usize("a", 0..=9).unwrap();
    says(nested.finish().unwrap_err(), &["`inner.b` = 2"]);
}

#[test]
fn malformed_files_are_errors() {
    for text in ["", "[]", "3", "{\"a\":1e400}", "{\"a\":NaN}", "{", "{\"a\":1}x"] {
        assert!(RawConfig::parse(text.as_bytes()).is_err(), "{text}");
    }
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    says(RawConfig::parse(deep.as_bytes()).unwrap_err(), &["nested deeper"]);
    assert!(RawConfig::parse(br#"{"a":1,"a":2}"#).is_ok());
    assert!(RawConfig::parse(b"\xff\xfe").is_err());
}

const CONTEXT: RopeContext = RopeContext {
    head_dim: 10,
    local_head_dim: 10,
    max_position: 64,
    default_theta: 10000.0,
    default_partial: None,
    dim: None,
    interleaved: false,
};

fn rope(text: &str, context: RopeContext) -> RopeSpec {
    let config = raw(text);
    let spec = RopeSpec::from_config(config.root(), context).unwrap();
    assert!(config.finish().is_ok(), "{:?}", config.finish());
    spec
}

/// Numbers computed by transformers 5.23.
#[track_caller]
fn assert_frequencies(spec: &RopeSpec, factor: f64, wanted: &[f64]) {
    let (found, attention) = spec.inverse_frequencies();
    assert!((f64::from(attention) - factor).abs() < 1e-7, "{attention}");
    assert_eq!(found.len(), wanted.len());
    for (found, wanted) in found.iter().zip(wanted) {
        assert!((f64::from(*found) / wanted - 1.0).abs() < 2.5e-7, "{found} {wanted}");
    }
}

#[test]
fn plain_frequencies() {
    let wanted =
        [1.0, 0.15848931670188904, 0.025118863210082054, 0.003981070592999458, 0.0006309573072940111];
    assert_frequencies(&rope("{}", CONTEXT), 1.0, &wanted);
    assert_frequencies(&rope(r#"{"rope_theta":10000.0,"rope_scaling":null}"#, CONTEXT), 1.0, &wanted);
    let newer = r#"{"rope_parameters":{"rope_type":"default","rope_theta":10000}}"#;
    assert_frequencies(&rope(newer, CONTEXT), 1.0, &wanted);
}

#[test]
fn a_share_of_the_head() {
    let context = RopeContext { default_partial: Some(0.25), ..CONTEXT };
    let wanted = [1.0, 0.009999999776482582];
    let newer =
        r#"{"rope_parameters":{"rope_type":"default","rope_theta":1e4,"partial_rotary_factor":0.45}}"#;
    assert_frequencies(&rope(newer, context), 1.0, &wanted);
    assert_frequencies(&rope(r#"{"rotary_pct":0.45,"rotary_emb_base":10000}"#, context), 1.0, &wanted);
    let config = raw(r#"{"partial_rotary_factor":0.5}"#);
    says(
        RopeSpec::from_config(config.root(), CONTEXT).unwrap_err(),
        &["partial_rotary_factor", "whole heads"],
    );
    let config = raw(r#"{"partial_rotary_factor":0.5}"#);
    says(RopeSpec::from_config(config.root(), context).unwrap_err(), &["5 dimensions", "not pairs"]);
}

#[test]
fn linear_frequencies() {
    let wanted = [
        0.4000000059604645,
        0.11541599035263062,
        0.033302128314971924,
        0.009608994238078594,
        0.00277257920242846,
    ];
    let newer = r#"{"rope_parameters":{"rope_type":"linear","factor":2.5,"rope_theta":500.0}}"#;
    assert_frequencies(&rope(newer, CONTEXT), 1.0, &wanted);
    assert_frequencies(
        &rope(r#"{"rope_scaling":{"type":"linear","factor":2.5},"rope_theta":500}"#, CONTEXT),
        1.0,
        &wanted,
    );
}

#[test]
fn llama3_frequencies() {
    let wanted =
        [1.0, 0.051860544830560684, 0.007886966690421104, 0.001981116132810712, 0.0004976339405402541];
    let older = r#"{"rope_theta":1000.0,"rope_scaling":{"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,
        "high_freq_factor":4.0,"original_max_position_embeddings":32}}"#;
    assert_frequencies(&rope(older, CONTEXT), 1.0, &wanted);
    let config =
        raw(r#"{"rope_scaling":{"rope_type":"llama3","factor":8,"low_freq_factor":4,"high_freq_factor":1}}"#);
    says(RopeSpec::from_config(config.root(), CONTEXT).unwrap_err(), &["high_freq_factor", "more than"]);
}

#[test]
fn yarn_frequencies() {
    let wanted = [1.0, 0.24881698191165924, 0.03962232917547226, 0.01577393151819706, 0.0062797158025205135];
    let text = r#"{"rope_parameters":{"rope_type":"yarn","rope_theta":100.0,"factor":4.0,"beta_fast":2.0,
        "beta_slow":0.5,"original_max_position_embeddings":16}}"#;
    assert_frequencies(&rope(text, CONTEXT), 1.138629436111989, &wanted);
    let context = RopeContext { head_dim: 16, max_position: 131072, ..CONTEXT };
    let wanted = [
        1.0,
        0.22541800141334534,
        0.05081327259540558,
        0.006794959306716919,
        0.0004564839182421565,
        1.818833698052913e-05,
        4.099978468730114e-06,
        9.242089618055616e-07,
    ];
    let text = r#"{"rope_parameters":{"rope_type":"yarn","rope_theta":150000.0,"factor":32.0,"beta_fast":32.0,
        "beta_slow":1.0,"truncate":false,"mscale":1.0,"mscale_all_dim":0.5,"original_max_position_embeddings":4096}}"#;
    assert_frequencies(&rope(text, context), 1.1476934674947155, &wanted);
    let context = RopeContext { head_dim: 32, max_position: 16384, ..CONTEXT };
    let text = r#"{"rope_scaling":{"type":"yarn","factor":4.0,"original_max_position_embeddings":4096}}"#;
    let spec = rope(text, context);
    assert!(matches!(spec.scaling, RopeScaling::Yarn { truncate: true, .. }));
    let (found, _) = spec.inverse_frequencies();
    for (at, wanted) in
        [(0, 1.0), (6, 0.02823462337255478), (11, 0.0006350998301059008), (15, 4.4456985051510856e-05)]
    {
        assert!((f64::from(found[at]) / wanted - 1.0f64).abs() < 2.5e-7, "{at}");
    }
}

#[test]
fn other_rotary_embeddings_are_named() {
    for (text, word) in [
        (r#"{"rope_scaling":{"type":"magic","factor":2}}"#, "magic"),
        (r#"{"rope_scaling":{"type":"dynamic"}}"#, "factor"),
        (r#"{"rope_parameters":{"rope_type":"longrope","rope_theta":1e4}}"#, "short_factor"),
        (
            r#"{"rope_scaling":{"type":"longrope","long_factor":[1,2]}}"#,
            "5 numbers, one for each rotated pair",
        ),
        (r#"{"rope_parameters":{"full_attention":{"rope_type":"default"}}}"#, "full_attention"),
        (r#"{"rope_scaling":{"type":"linear","factor":0}}"#, "factor"),
        (r#"{"rope_scaling":{"type":"linear"}}"#, "factor"),
        (r#"{"rope_theta":0.5}"#, "rope_theta"),
        (r#"{"rope_scaling":7}"#, "an object"),
    ] {
        let config = raw(text);
        says(RopeSpec::from_config(config.root(), CONTEXT).unwrap_err(), &[word]);
    }
    let config = raw(r#"{"rope_scaling":{"type":"default","grout":[1,2]}}"#);
    assert!(RopeSpec::from_config(config.root(), CONTEXT).is_ok());
    says(config.finish().unwrap_err(), &["rope_scaling.grout"]);
    // Sections are for tokens with several positions; a text's are alike.
    let config = raw(r#"{"rope_scaling":{"type":"mrope","mrope_section":[1,2]}}"#);
    assert_eq!(RopeSpec::from_config(config.root(), CONTEXT).unwrap().scaling, RopeScaling::None);
    config.finish().unwrap();
}

#[test]
fn generation_defaults() {
    let read = |text: &str| GenerationDefaults::from_raw(&raw(text));
    let defaults =
        read(r#"{"eos_token_id":[7,3,7],"bos_token_id":1,"temperature":0.6,"top_k":0,"num_beams":4}"#);
    let defaults = defaults.unwrap();
    assert_eq!((defaults.eos_ids, defaults.bos_id, defaults.top_k), (vec![3, 7], Some(1), Some(0)));
    says(&defaults.notes[0], &["num_beams"]);
    assert_eq!(read(r#"{"eos_token_id":-1}"#).unwrap().eos_ids, Vec::<u32>::new());
    says(read(r#"{"eos_token_id":"x"}"#).unwrap_err(), &["eos_token_id", "token id"]);
    says(read(r#"{"eos_token_id":4294967296}"#).unwrap_err(), &["eos_token_id"]);
    says(read(r#"{"temperature":"hot"}"#).unwrap_err(), &["temperature"]);
    says(read(r#"{"top_p":1.5}"#).unwrap_err(), &["top_p", "from 0 to 1"]);
    let model = Model::new();
    let fallback = GenerationDefaults::load(&model.open(), &raw(r#"{"eos_token_id":2}"#)).unwrap();
    assert_eq!(fallback.eos_ids, [2]);
}

fn encoder(pooling: &str) -> Model {
    let modules = r#"[{"idx":0,"name":"0","path":"","type":"sentence_transformers.models.Transformer"},
        {"idx":1,"name":"1","path":"1_Pooling","type":"sentence_transformers.models.Pooling"},
        {"idx":2,"name":"2","path":"2_Normalize","type":"sentence_transformers.models.Normalize"}]"#;
    Model::new()
        .file("modules.json", modules)
        .file("1_Pooling/config.json", pooling)
        .file("sentence_bert_config.json", r#"{"max_seq_length":256,"do_lower_case":false}"#)
}

#[test]
fn pooling_of_sentence_encoders() {
    let older = encoder(
        r#"{"word_embedding_dimension":384,"pooling_mode_mean_tokens":true,"pooling_mode_cls_token":false}"#,
    );
    let wanted = Pooling { mode: PoolingMode::Mean, normalize: true, max_len: Some(256) };
    assert_eq!(Pooling::load(&older.open()).unwrap(), Some(wanted));
    let newer = encoder(r#"{"embedding_dimension":384,"pooling_mode":"lasttoken"}"#);
    assert_eq!(Pooling::load(&newer.open()).unwrap().map(|p| p.mode), Some(PoolingMode::LastToken));
    assert_eq!(Pooling::load(&Model::new().open()).unwrap(), None);
    let error = |pooling| Pooling::load(&encoder(pooling).open()).unwrap_err();
    says(error(r#"{"pooling_mode_max_tokens":true}"#), &["`max`"]);
    says(error(r#"{"pooling_mode_max_tokens":true,"pooling_mode_cls_token":true}"#), &["cls + max"]);
    says(error(r#"{"pooling_mode_cls_token":3}"#), &["true or false"]);
    let dense = r#"[{"path":"","type":"x.Transformer"},{"path":"1","type":"x.Dense"}]"#;
    says(
        Pooling::load(&Model::new().file("modules.json", dense).open()).unwrap_err(),
        &["module 1, `Dense`"],
    );
    let escape = r#"[{"path":"","type":"x.Transformer"},{"path":"../1","type":"x.Pooling"}]"#;
    says(
        Pooling::load(&Model::new().file("modules.json", escape).open()).unwrap_err(),
        &["refused file name"],
    );
}

#[test]
fn a_share_of_the_pairs_may_be_turned_as_if_it_were_all() {
    let text = br#"{"rope_parameters": {"rope_type": "proportional", "rope_theta": 100.0, "partial_rotary_factor": 0.45}}"#;
    let config = RawConfig::parse(text).unwrap();
    let context = RopeContext { head_dim: 14, ..CONTEXT };
    let spec = RopeSpec::from_config(config.root(), context).unwrap();
    config.finish().unwrap();
    let (frequencies, magnitude) = spec.inverse_frequencies();
    // ⌊0.45 · 14 / 2⌋ of 7 pairs, each with the frequency that it has among 7.
    let wanted: Vec<f32> =
        (0..7).map(|i| if i < 3 { 100f32.powf(-2.0 * i as f32 / 14.0) } else { 0.0 }).collect();
    assert_eq!((frequencies.len(), magnitude), (7, 1.0));
    assert!(frequencies.iter().zip(&wanted).all(|(a, b)| (a - b).abs() < 1e-6), "{frequencies:?}");
    let odd = RopeContext { head_dim: 13, ..CONTEXT };
    says(RopeSpec::from_config(config.root(), odd).err().unwrap(), &["rope_type", "no pairs"]);
}
