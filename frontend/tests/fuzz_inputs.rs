//! Deterministic mutations of small inputs: nothing may panic, and what the reference refuses is refused here.

mod support;

use safetensors::SafeTensors;
use sinter_frontend::config::RawConfig;
use sinter_frontend::header::parse_header;
use support::{Random, safetensors};

const PIECES: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "0",
    "-1",
    "9",
    "1e400",
    "18446744073709551616",
    "null",
    "\"F32\"",
    "\"dtype\"",
    "\\u0000",
    "[1,2]",
    " ",
    "\"a\"",
    "4294967296",
];

fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len().max(1)).min(bytes.len());
        match random.below(5) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => drop(bytes.remove(at)),
            2 => drop(bytes.splice(at..at, PIECES[random.below(PIECES.len())].bytes())),
            3 if at < bytes.len() => bytes[at] = b"0123456789"[random.below(10)],
            _ => bytes.truncate(at.max(1)),
        }
    }
}

#[test]
fn headers() {
    let base = safetensors(&[("a", "F32", &[2, 3]), ("b", "BF16", &[4]), ("c", "U8", &[])]);
    let mut random = Random(1);
    let mut accepted = 0;
    for _ in 0..20_000 {
        let mut json = base[8..].to_vec();
        mutate(&mut random, &mut json);
        let data = base.len() - 8 - base[..].iter().rposition(|b| *b == b'}').map_or(0, |end| end - 7);
        let length = json.len().saturating_sub(data) + random.below(2) * random.below(3);
        let mut bytes = (length as u64).to_le_bytes().to_vec();
        bytes.extend(&json);
        if random.below(20) == 0 {
            mutate(&mut random, &mut bytes);
        }
        let ours = parse_header(&bytes, bytes.len() as u64);
        let reference = SafeTensors::read_metadata(&bytes);
        if let Ok(header) = ours {
            accepted += 1;
            let (_, metadata) = reference.expect("the reference refuses what we accept");
            assert_eq!(metadata.tensors().len(), header.tensors.len());
            assert!(header.tensors.values().all(|t| t.begin <= t.end && t.end <= bytes.len() as u64));
        }
    }
    assert!(accepted > 50, "{accepted}: the mutations are too wild to test anything");
}

#[test]
fn configs() {
    let base = br#"{"hidden_size":24,"rope_parameters":{"rope_type":"llama3","factor":8.0},"layer_types":["a","b"]}"#;
    let mut random = Random(2);
    for _ in 0..20_000 {
        let mut bytes = base.to_vec();
        mutate(&mut random, &mut bytes);
        if let Ok(config) = RawConfig::parse(&bytes) {
            let root = config.root();
            let _ = root.usize("hidden_size", 1..=100);
            let _ = root.opt_strs("layer_types");
            let context = sinter_frontend::rope::RopeContext {
                dim: None,
                interleaved: false,
                head_dim: 8,
                local_head_dim: 8,
                max_position: 64,
                default_theta: 1e4,
                default_partial: Some(1.0),
            };
            if let Ok(spec) = sinter_frontend::rope::RopeSpec::from_config(root, context) {
                spec.inverse_frequencies();
            }
            let _ = config.finish();
        }
    }
}
