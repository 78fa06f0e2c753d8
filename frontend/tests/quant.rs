//! What is wrong with a quantised checkpoint is said, with the tensor or the field.

mod support;

use std::path::{Path, PathBuf};

use sinter_frontend::model::Model;
use support::says;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testsuite/goldens/quantised").join(name)
}

/// Opens a golden with a text of its config and one of its header replaced; the latter keeps its length.
fn open_with(name: &str, config: (&str, &str), header: (&str, &str)) -> Result<Model, String> {
    let text = std::fs::read_to_string(golden(name).join("config.json")).unwrap();
    assert!(text.contains(config.0), "{} is not in {text}", config.0);
    let mut weights = std::fs::read(golden(name).join("model.safetensors")).unwrap();
    assert_eq!(header.0.len(), header.1.len());
    let at = weights.windows(header.0.len()).position(|window| window == header.0.as_bytes()).unwrap();
    weights[at..at + header.1.len()].copy_from_slice(header.1.as_bytes());
    let model = support::Model::new()
        .file("config.json", text.replace(config.0, config.1))
        .file("model.safetensors", weights);
    Model::open(model.open()).map_err(|error| error.to_string())
}

const SAME: (&str, &str) = ("{", "{");

#[test]
fn a_wrong_group_size_names_the_tensor_of_scales() {
    let error = open_with("gptq_4", ("\"group_size\": 32", "\"group_size\": 16"), SAME).err().unwrap();
    says(&error, &["qzeros`", "wanted shape", "found"]);
    let error = open_with("ct_w4_group", ("\"group_size\": 32", "\"group_size\": 16"), SAME).err().unwrap();
    says(&error, &["weight_scale`", "wanted shape", "found"]);
    let error = open_with("awq", ("\"group_size\": 32", "\"group_size\": 48"), SAME).err().unwrap();
    says(&error, &["tensor `model.layers.0", "no multiple of 48"]);
}

#[test]
fn missing_scales_are_named() {
    let error = open_with("ct_w4_group", SAME, ("q_proj.weight_scale", "q_proj.weight_scalX")).err().unwrap();
    says(&error, &["q_proj.weight_scale`", "not in"]);
    let error = open_with("bnb_nf4", SAME, ("q_proj.weight.absmax", "q_proj.weight.absmaX")).err().unwrap();
    says(&error, &["q_proj.weight.absmax`", "not in"]);
}

#[test]
fn what_is_not_understood_is_an_error() {
    let error = open_with("awq", ("\"quant_method\": \"awq\"", "\"quant_method\": \"magic\""), SAME);
    says(error.err().unwrap(), &["unknown quant_method `magic`", "compressed-tensors, gptq, awq"]);
    let error = open_with("awq", ("\"zero_point\": true", "\"zero_point\": true, \"surprise\": 3"), SAME);
    says(error.err().unwrap(), &["surprise", "quantization_config"]);
    let error = open_with("awq", ("\"version\": \"gemm\"", "\"version\": \"gemv\""), SAME);
    says(error.err().unwrap(), &["version", "gemv", "gemm"]);
    let error = open_with("ct_w4_group", ("\"num_bits\": 4", "\"num_bits\": 3"), SAME);
    says(error.err().unwrap(), &["num_bits", "4 or 8"]);
    let error = open_with("ct_fp8", ("\"symmetric\": true", "\"symmetric\": false"), SAME);
    says(error.err().unwrap(), &["symmetric", "wanted true"]);
    let one = ("\"strategy\": \"group\"", "\"strategy\": \"tensor\"");
    let error = open_with("ct_w4_group_asymmetric", one, SAME);
    says(error.err().unwrap(), &["symmetric", "wanted true"]);
    let transforms = "\"transform_config\": {\"config_groups\": {\"a\": {}}}, \"quant_method\"";
    let error = open_with("ct_fp8", ("\"quant_method\"", transforms), SAME);
    says(error.err().unwrap(), &["transform_config", "weights between transforms"]);
    let error = open_with("gptq_4", ("\"bits\": 4", "\"bits\": 3"), SAME);
    says(error.err().unwrap(), &["bits", "2, 4 or 8"]);
}

#[test]
fn quantised_weights_without_a_configuration_are_refused() {
    let error = open_with("ct_int8", ("\"quantization_config\"", "\"_quantization_config\""), SAME);
    says(error.err().unwrap(), &["BF16, F16 or F32", "I8", "config.json says how it is quantised"]);
}
