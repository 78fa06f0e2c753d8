//! The golden models on the host back end: agreement with transformers in float32, equal greedy continuations, and the
//! same bits under every chunking, on every instruction set that this machine has.

use sinter_codegen_host::micro::Isa;
use sinter_frontend::pooling::{Pooling, PoolingMode};
use sinter_ir::DType;
use sinter_runtime::{Rows, Session, encode};
use sinter_testsuite::golden::{Golden, error_in_deviations, half_distances, names, open};
use sinter_testsuite::host::{instruction_sets, load, logits};

fn decoders() -> Vec<Golden> {
    names().iter().map(|name| open(name)).filter(Golden::is_decoder).collect()
}

/// Chunkings of `count` tokens: one by one, odd pieces, and a prompt with decodes after it.
fn chunkings(count: usize) -> Vec<Vec<usize>> {
    vec![vec![1; count], vec![3; count], vec![7; count], [vec![count - 5], vec![1; 5]].concat()]
}

#[test]
fn logits_agree_with_transformers_on_every_instruction_set() {
    for golden in decoders() {
        for isa in instruction_sets() {
            let mut model = load(&golden.model, DType::F32, isa, golden.tokens.len());
            let found = logits(&mut model, &golden.tokens, [golden.tokens.len()]);
            let error = error_in_deviations(&found, &golden.expected);
            println!("{} on {isa}: {error:.1e} deviations", golden.name);
            assert!(error <= 1e-3, "{} on {isa}: {error} deviations", golden.name);
        }
    }
}

#[test]
fn every_chunking_gives_the_same_bits() {
    for golden in decoders() {
        for (dtype, isa) in
            [(DType::F32, Isa::detect()), (DType::Bf16, Isa::detect()), (DType::Bf16, Isa::Scalar)]
        {
            let mut model = load(&golden.model, dtype, isa, golden.tokens.len());
            let whole = logits(&mut model, &golden.tokens, [golden.tokens.len()]);
            assert!(whole.iter().all(|value| value.is_finite()), "{} in {dtype}", golden.name);
            for chunks in chunkings(golden.tokens.len()) {
                let found = logits(&mut model, &golden.tokens, chunks.clone());
                let same = whole.iter().zip(&found).all(|(x, y)| x.to_bits() == y.to_bits());
                assert!(same, "{} in {dtype} on {isa}: chunks {chunks:?} change the result", golden.name);
            }
        }
    }
}

#[test]
fn greedy_continuations_are_those_of_transformers() {
    for golden in decoders() {
        // What makes vectors of texts writes none.
        let Some(wanted) = &golden.greedy else { continue };
        let mut tokens = golden.tokens.clone();
        let mut model = load(&golden.model, DType::F32, Isa::detect(), tokens.len() + wanted.len());
        for next in wanted {
            let last = logits(&mut model, &tokens, [tokens.len()])
                .split_off((tokens.len() - 1) * golden.model.spec.vocab);
            let best = (0..last.len()).max_by(|a, b| last[*a].total_cmp(&last[*b])).expect("a vocabulary");
            assert_eq!(best as u32, *next, "{} after {} tokens", golden.name, tokens.len());
            tokens.push(*next);
        }
    }
}

/// The yardstick is transformers' own bfloat16 run of the same model (`goldens/make_bf16.py`).
#[test]
fn bf16_is_as_near_to_float32_as_transformers_is() {
    for name in half_distances().keys() {
        let golden = open(name);
        let mut model = load(&golden.model, DType::Bf16, Isa::detect(), golden.tokens.len());
        let run = |tokens: &[u32]| match golden.is_decoder() {
            true => Ok(logits(&mut model, tokens, [tokens.len()])),
            false => encode(&mut model, tokens).map(<[f32]>::to_vec),
        };
        let (ours, theirs) = golden.half(run).expect("the step runs");
        println!("{name}: {ours:.4} deviations, transformers {theirs:.4}");
        assert!(ours <= 1.1 * theirs, "{name}: {ours} deviations, transformers {theirs}");
    }
}

#[test]
fn hidden_values_of_encoders_agree_with_transformers() {
    let encoders: Vec<Golden> =
        names().iter().map(|name| open(name)).filter(|golden| !golden.is_decoder()).collect();
    assert!(!encoders.is_empty());
    for golden in encoders {
        for isa in instruction_sets() {
            let mut model = load(&golden.model, DType::F32, isa, golden.tokens.len());
            let found = encode(&mut model, &golden.tokens).expect("the step runs");
            let error = error_in_deviations(found, &golden.expected);
            assert!(error <= 1e-3, "{} on {isa}: {error} deviations", golden.name);
        }
    }
}

/// Decoders with sentence-transformers files: the hidden state of the last token, of length one.
#[test]
fn vectors_of_texts_are_those_of_the_last_token() {
    let mut count = 0;
    for golden in decoders() {
        let Some(wanted) = &golden.vector else { continue };
        let wanted_pooling = Pooling { mode: PoolingMode::LastToken, normalize: true, max_len: None };
        assert_eq!(golden.model.pooling, Some(wanted_pooling), "{}", golden.name);
        let mut model = load(&golden.model, DType::F32, Isa::detect(), golden.tokens.len());
        // In two steps, of which the last token alone is wanted.
        let (first, rest) = golden.tokens.split_at(golden.tokens.len() / 2);
        let mut session = Session::new(&mut model);
        session.feed(first, Rows::Last).expect("the step runs");
        let row = session.feed(rest, Rows::Last).expect("the step runs");
        let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
        let found: Vec<f32> = row.iter().map(|x| x / length).collect();
        let error = error_in_deviations(&found, wanted);
        assert!(error <= 1e-3, "{}: {error} deviations", golden.name);
        count += 1;
    }
    assert!(count > 0, "no golden makes vectors of texts");
}
