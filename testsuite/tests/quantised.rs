//! Quantised checkpoints: logits equal those of the dequantised weights in float32, and the fast way of computing weights
//! gives the bits of the naive one.

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use sinter_codegen_host::micro::Isa;
use sinter_codegen_host::{pack, rows_of_packed};
use sinter_codegen_weights::{RawTensor, pack_rows};
use sinter_frontend::build::{Activations, BuildOptions};
use sinter_frontend::model::Model;
use sinter_frontend::resolve::known_families;
use sinter_frontend::source::ModelDir;
use sinter_frontend::spec::{FeedForward, MatrixLayout, MlpInput};
use sinter_ir::{Binding, DType, Layout, Op, Tensor, WeightDef, evaluate, gpu_weight_bytes};
use sinter_runtime::encode;
use sinter_testsuite::compiled;
use sinter_testsuite::golden::{self, Golden, error_in_deviations};
use sinter_testsuite::host::{instruction_sets, load, load_built, load_plan, logits};
use std::collections::{BTreeMap, BTreeSet};

/// The distance that float32 sums in another order make.
const BOUND: f64 = 1e-5;

fn cases() -> Vec<Golden> {
    let names = golden::quantised_names();
    assert!(names.len() >= 23, "found only {}", names.len());
    names.iter().map(|name| golden::open(name)).collect()
}

#[test]
fn logits_are_those_of_the_dequantised_weights() {
    for golden in cases() {
        let mut model = load(&golden.model, DType::F32, Isa::detect(), golden.tokens.len());
        let found = logits(&mut model, &golden.tokens, [golden.tokens.len()]);
        let error = error_in_deviations(&found, &golden.expected);
        println!("{}: {error:.1e} deviations", golden.name);
        assert!(error <= BOUND, "{}: {error} deviations", golden.name);
        let unused = golden.model.notes.iter().find(|note| note.contains("not used"));
        assert!(unused.is_none(), "{}: {unused:?}", golden.name);
    }
}

/// Checkpoints whose codes are whole numbers with scales for runs of columns, and whose columns are whole eights: in memory
/// they stay codes. Those with a scale a row are 45 and 61 columns wide here; `--quant int8` has such rows in codes.
const CODES: [&str; 8] = [
    "awq",
    "ct_w4_group",
    "ct_w4_group_asymmetric",
    "ct_w8_group_asymmetric",
    "gptq_2",
    "gptq_4",
    "gptq_8_v2",
    "gptq_conv1d",
];

fn of_codes(golden: &Golden) -> bool {
    CODES.contains(&golden.name.trim_start_matches("quantised/"))
}

/// Of a layer: q, k and v in one, o, gate, up and down, or two in place of the last three.
fn in_codes(golden: &Golden) -> usize {
    if golden.name.ends_with("conv1d") { 4 } else { 5 }
}

#[test]
fn codes_stay_codes_in_memory() {
    for golden in cases() {
        for dtype in [DType::F32, DType::Bf16] {
            let plan = compiled::plan_of(&golden.model, BuildOptions::new(dtype), true);
            let codes = |def: &&WeightDef| matches!(def.layout, Layout::Codes(_));
            let wanted = if of_codes(&golden) { in_codes(&golden) } else { 0 };
            assert_eq!(plan.weights.values().filter(codes).count(), wanted, "{} in {dtype}", golden.name);
        }
    }
}

/// Exact activations times codes are what they are times the numbers that the codes stand for, to the last bit.
#[test]
fn products_by_codes_have_the_bits_of_products_by_numbers() {
    let mut count = 0;
    for golden in cases().into_iter().filter(of_codes) {
        let limits = compiled::limits(&golden.model, golden.tokens.len());
        for dtype in [DType::F32, DType::Bf16] {
            for isa in instruction_sets() {
                let [codes, numbers] = [true, false].map(|codes| {
                    let plan = compiled::plan_of(&golden.model, BuildOptions::new(dtype), codes);
                    let mut model = load_plan(&golden.model, plan, isa, limits);
                    bits(&logits(&mut model, &golden.tokens, [1, 3, golden.tokens.len()]))
                });
                assert!(codes == numbers, "{} in {dtype} on {isa}", golden.name);
                count += 1;
            }
        }
    }
    assert!(count > CODES.len(), "{count} pairs");
}

/// What a bundle for the host and GPUs holds is brought into the order of tensor cores when it is loaded.
#[test]
fn codes_in_panels_become_codes_for_gpus() {
    for golden in cases().into_iter().filter(of_codes) {
        let plan = compiled::plan_of(&golden.model, BuildOptions::new(DType::Bf16), true);
        let panels = compiled::weights(&golden.model, &plan, |def, source| Ok(pack(def, source)?.bytes));
        let fragments = compiled::weights(&golden.model, &plan, pack_rows);
        for ((def, panels), fragments) in plan.weights.values().zip(&panels).zip(&fragments) {
            let found = rows_of_packed(def, panels.bytes()).expect("the weight's bytes");
            assert!(found[..] == *fragments.bytes(), "{}: {} as {:?}", golden.name, def.ty, def.layout);
            assert_eq!(Some(found.len() as u64), gpu_weight_bytes(&def.ty, def.layout));
        }
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Activations of 8 bits round once more: logits are near those of exact ones, and not the same.
#[test]
fn activations_of_eight_bits_stay_near() {
    for golden in cases().into_iter().filter(of_codes) {
        let options = BuildOptions { activations: Activations::Int8, ..BuildOptions::new(DType::F32) };
        let limits = compiled::limits(&golden.model, golden.tokens.len());
        let plan = compiled::plan_of(&golden.model, options, true);
        let whole = |def: &&WeightDef| matches!(def.layout, Layout::Codes(_));
        assert_eq!(plan.weights.values().filter(whole).count(), in_codes(&golden), "{}", golden.name);
        let mut found = Vec::new();
        for isa in instruction_sets() {
            let mut model = load_built(&golden.model, options, isa, limits);
            found.push(logits(&mut model, &golden.tokens, [golden.tokens.len()]));
            let mut model = load_built(&golden.model, options, isa, limits);
            let chunked = logits(&mut model, &golden.tokens, [1, 3, golden.tokens.len()]);
            let same = found
                .last()
                .is_some_and(|whole| whole.iter().zip(&chunked).all(|(a, b)| a.to_bits() == b.to_bits()));
            assert!(same, "{}: other bits in other chunks", golden.name);
        }
        let error = error_in_deviations(&found[0], &golden.expected);
        println!("{}: {error:.1e} deviations", golden.name);
        assert!((1e-4..0.2).contains(&error), "{}: {error} deviations", golden.name);
    }
}

#[test]
fn weights_have_the_bits_of_the_naive_evaluator() {
    let blocks = ["formats_32", "formats_256", "formats_turned"].map(golden::open_gguf);
    for golden in cases().into_iter().chain(blocks) {
        let graph = golden.model.build(BuildOptions::new(DType::F32)).unwrap();
        let wanted = |name: &str| {
            let node = graph.nodes.values().find(|node| node.op.leaf_name() == Some(name))?;
            let (dtype, shape, bytes) = golden.model.tensor(name)?;
            let raw = RawTensor { dtype, shape, bytes: &bytes }.seen_as(node.ty.dtype);
            let data = raw.bytes.chunks_exact(raw.dtype.bytes()).map(|b| raw.dtype.read(b) as f32).collect();
            Some(Tensor::<f32>::new(raw.shape, data))
        };
        let plan = sinter_passes::compile(&graph, &sinter_passes::Options::default()).unwrap().plan;
        let computed = |def: &&WeightDef| def.source.nodes.values().any(|node| matches!(node.op, Op::Map(_)));
        let weights: Vec<&WeightDef> = plan.weights.values().filter(computed).collect();
        let wanted_weights = match golden.model.spec.layers[0].mlp {
            FeedForward::Dense(ref mlp) if matches!(mlp.input, MlpInput::Plain(_)) => 4,
            // Of experts the stacks alone are quantised.
            FeedForward::Experts(_) => 3,
            FeedForward::Dense(_) => 5,
        };
        let spec = &golden.model.spec;
        let tied = spec.head.as_ref().is_some_and(|head| head.linear.weight == spec.embedding.tokens);
        // GGUF files have their embeddings in blocks too; a head that is one of them is packed for itself.
        let tables = if golden.name.starts_with("formats") { 1 + usize::from(tied) } else { 0 };
        let wanted_weights = wanted_weights * spec.layers.len() + tables;
        let is_code = |name: &str| {
            let dtype = golden.model.tensor(name).map(|(dtype, ..)| dtype);
            dtype.is_some_and(|dtype| !matches!(dtype, DType::F32 | DType::Bf16 | DType::F16))
        };
        let mut packed = 0;
        for weight in &weights {
            let mut leaves = weight.source.nodes.values().filter_map(|node| node.op.leaf_name());
            packed += usize::from(leaves.any(is_code));
        }
        assert_eq!(packed, wanted_weights, "{}: q, k and v in one, o, gate, up, down", golden.name);
        for weight in weights {
            let weight = WeightDef { layout: Layout::Rows, ..weight.clone() };
            let naive = evaluate(&weight.source, &Binding { values: [1; 5] }, &wanted).unwrap().remove(0).1;
            let leaves = weight.source.nodes.values().filter_map(|node| node.op.leaf_name());
            let tensors: BTreeMap<_, _> =
                leaves.map(|name| (name, golden.model.tensor(name).unwrap())).collect();
            let raw = |name: &str| {
                let (dtype, shape, bytes) = tensors.get(name)?;
                Some(RawTensor { dtype: *dtype, shape: shape.clone(), bytes })
            };
            let packed = pack_rows(&weight, &raw).unwrap();
            let bytes: Vec<u8> = naive.data.iter().flat_map(|x| x.to_le_bytes()).collect();
            assert!(packed[..] == bytes[..], "{}: {}", golden.name, weight.source);
        }
    }
}

/// The products of a model whose matrices are stored outputs first, but for the head.
fn matrices(golden: &Golden) -> BTreeSet<String> {
    let (spec, graph) = (&golden.model.spec, golden.model.build(BuildOptions::new(DType::F32)).unwrap());
    let head = spec.head.as_ref().map(|head| head.linear.weight.clone());
    let is_product = |op: &Op| matches!(op, Op::Contract { spec } if spec.to_string() == "tk,nk->tn");
    let products = graph.nodes.values().filter(|node| is_product(&node.op));
    let names = products.filter_map(|node| graph.node(node.args[1]).op.leaf_name());
    let whole = names.filter(|name| name.ends_with(".weight") && Some(*name) != head.as_deref());
    let gathered = |name: &str| {
        let mut tables = graph.nodes.values().filter(|node| matches!(node.op, Op::Gather {}));
        tables.any(|node| graph.node(node.args[0]).op.leaf_name() == Some(name))
    };
    whole.filter(|name| !gathered(name)).map(Into::into).collect()
}

/// A tensor to be written.
type Written = (Dtype, Vec<usize>, Vec<u8>);

/// A matrix as 8-bit floats with a scale a row, and the numbers that these stand for.
fn rounded(golden: &Golden, name: &str) -> ([(String, Written); 2], Written) {
    let (dtype, shape, bytes) = golden.model.tensor(name).unwrap();
    let numbers: Vec<f64> = bytes.chunks_exact(dtype.bytes()).map(|b| dtype.read(b)).collect();
    let (mut codes, mut scales, mut meant) = (Vec::new(), Vec::new(), Vec::new());
    for row in numbers.chunks_exact(shape[1]) {
        let scale = (row.iter().fold(1e-6, |most: f64, x| most.max(x.abs())) / 448.0) as f32;
        scales.extend(scale.to_le_bytes());
        for number in row {
            let at = codes.len();
            DType::F8e4m3.append(number / f64::from(scale), &mut codes);
            meant.extend((DType::F8e4m3.read(&codes[at..]) as f32 * scale).to_le_bytes());
        }
    }
    let scales = (format!("{name}_scale"), (Dtype::F32, vec![shape[0], 1], scales));
    ([(name.into(), (Dtype::F8_E4M3, shape.clone(), codes)), scales], (Dtype::F32, shape, meant))
}

/// A model directory with a golden's config, and these tensors in place of the golden's own.
fn open_with(golden: &Golden, quantised: bool, tensors: BTreeMap<String, Written>) -> Model {
    let place = tempfile::tempdir().unwrap();
    let own = golden::folder().join(&golden.name);
    // What makes vectors of texts says so in files of its own.
    for file in ["modules.json", "1_Pooling/config.json"] {
        if own.join(file).exists() {
            let copy = place.path().join(file);
            std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
            std::fs::copy(own.join(file), copy).unwrap();
        }
    }
    let config = std::fs::read_to_string(own.join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    if quantised {
        let weights =
            serde_json::json!({ "num_bits": 8, "type": "float", "symmetric": true, "strategy": "channel" });
        config["quantization_config"] = serde_json::json!({
            "quant_method": "compressed-tensors",
            "format": "float-quantized",
            "config_groups": { "group_0": { "targets": ["Linear"], "weights": weights } },
        });
    }
    std::fs::write(place.path().join("config.json"), config.to_string()).unwrap();
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        (name.clone(), TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    let file = safetensors::serialize(views, None).unwrap();
    std::fs::write(place.path().join("model.safetensors"), file).unwrap();
    Model::open(ModelDir::open(place.path()).unwrap())
        .unwrap_or_else(|error| panic!("{}: {error}", golden.name))
}

/// Every golden but those of gpt2, whose matrices lie inputs first (`cases` has one of it), and those that are another spelling
/// of a sibling.
fn with_outputs_first() -> Vec<Golden> {
    let own = |name: &String| !golden::folder().join(name).join("same_weights_as").exists();
    let goldens = golden::names().into_iter().filter(own).map(|name| golden::open(&name));
    let mut found: Vec<Golden> = goldens.collect();
    found.retain(|golden| golden.model.spec.layers[0].attention.out.layout == MatrixLayout::OutIn);
    let families: BTreeSet<&str> = found.iter().map(|golden| golden.model.spec.family).collect();
    assert_eq!(families.len() + 1, known_families().len());
    found
}

#[test]
fn every_family_is_read_quantised() {
    for golden in with_outputs_first() {
        let matrices = matrices(&golden);
        assert!(matrices.len() >= 4, "{}: {matrices:?}", golden.name);
        let (mut packed, mut meant) = (BTreeMap::new(), BTreeMap::new());
        for name in golden.model.weights.names() {
            if matrices.contains(name) {
                let (codes, numbers) = rounded(&golden, name);
                packed.extend(codes);
                meant.insert(name.to_owned(), numbers);
                continue;
            }
            let (dtype, shape) = golden.model.weights.stored(name).unwrap();
            let kept = (dtype, shape.to_vec(), golden.model.weights.get(name).unwrap().bytes.to_vec());
            packed.insert(name.to_owned(), kept.clone());
            meant.insert(name.to_owned(), kept);
        }
        let values = |model: Model| {
            let mut loaded = load(&model, DType::F32, Isa::detect(), golden.tokens.len());
            match golden.is_decoder() {
                true => logits(&mut loaded, &golden.tokens, [golden.tokens.len()]),
                false => encode(&mut loaded, &golden.tokens).unwrap().to_vec(),
            }
        };
        let model = open_with(&golden, true, packed);
        assert_eq!(model.spec.stored.len(), matrices.len(), "{}", golden.name);
        let error = error_in_deviations(&values(model), &values(open_with(&golden, false, meant)));
        assert!(error <= BOUND, "{}: {error} deviations", golden.name);
    }
}
