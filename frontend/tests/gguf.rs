//! GGUF files: their tokenizers give what the originals give, and what is damaged is refused with the place.

use serde_json::{Value, json};
use sinter_frontend::chat::{ChatInput, ChatTemplate};
use sinter_frontend::gguf::Gguf;
use sinter_frontend::model::Model;
use sinter_frontend::source::{self, ModelDir};
use std::path::PathBuf;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../testsuite/goldens/gguf")
}

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(format!("{name}.gguf"))).unwrap()
}

fn open(name: &str) -> Model {
    let path = folder().join(format!("{name}.gguf"));
    Model::open(source::resolve(&path.to_string_lossy(), None).unwrap()).unwrap()
}

#[test]
fn tokenizers_are_those_that_the_files_were_made_from() {
    let expected: Value =
        serde_json::from_slice(&std::fs::read(folder().join("tokenizers.json")).unwrap()).unwrap();
    for (name, begins) in [("pairs", 0), ("pieces", 1)] {
        let model = open(name);
        let tokenizer = model.tokenizer.unwrap();
        for (at, text) in expected["texts"].as_array().unwrap().iter().enumerate() {
            let text = text.as_str().unwrap();
            let wanted: Vec<u32> = serde_json::from_value(expected[name]["ids"][at].clone()).unwrap();
            assert_eq!(tokenizer.encode(text, false).unwrap(), wanted, "{name}: {text:?}");
            let decoded = tokenizer.decode(&wanted, false).unwrap();
            assert_eq!(decoded, expected[name]["decoded"][at].as_str().unwrap(), "{name}: {text:?}");
            // Files of pieces begin a text with its token where no entry says otherwise.
            assert_eq!(
                tokenizer.encode(text, true).unwrap().len(),
                wanted.len() + begins,
                "{name}: {text:?}"
            );
        }
    }
}

#[test]
fn a_file_has_the_chat_template_and_the_ends_of_answers() {
    let model = open("pairs");
    let chat: ChatTemplate = model.chat.unwrap();
    let messages = vec![json!({ "role": "user", "content": "How much is 2 + 3?" })];
    let prompt = chat.render(&ChatInput { messages, add_generation_prompt: true, ..ChatInput::default() });
    let expected: Value =
        serde_json::from_slice(&std::fs::read(folder().join("tokenizers.json")).unwrap()).unwrap();
    assert_eq!(prompt.unwrap(), expected["pairs"]["prompt"].as_str().unwrap());
    assert_eq!((model.generation.bos_id, &model.generation.eos_ids[..]), (Some(1), &[2][..]));
}

#[test]
fn a_directory_with_one_file_is_a_model_and_with_two_is_none() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("a.gguf"), bytes("llama")).unwrap();
    assert_eq!(Model::open(ModelDir::open(place.path()).unwrap()).unwrap().spec.family, "llama");
    std::fs::write(place.path().join("b.gguf"), bytes("llama")).unwrap();
    let error = ModelDir::open(place.path()).unwrap_err().to_string();
    assert!(error.contains("a.gguf, b.gguf") && error.contains("name the file"), "{error}");
}

/// The error of a file in which one piece of bytes was replaced by another of the same length.
fn replaced(name: &str, from: &[u8], to: &[u8]) -> String {
    let mut file = bytes(name);
    assert_eq!(from.len(), to.len());
    let at = file.windows(from.len()).position(|part| part == from).expect("the piece is there");
    file[at..at + to.len()].copy_from_slice(to);
    match Gguf::parse(file) {
        Ok(_) => "accepted".into(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn what_is_damaged_is_named() {
    for (from, to, wanted) in [
        (&b"GGUF\x03"[..], &b"GGUX\x03"[..], "letters GGUF"),
        (b"GGUF\x03\0\0\0", b"GGUF\0\0\0\x03", "big-endian"),
        (b"GGUF\x03", b"GGUF\x01", "version is 1"),
        (b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0lemma", "unknown general.architecture `lemma`"),
        (b"llama.rope.freq_base", b"llama.rope.freq_bose", "`llama.rope.freq_bose`"),
        (
            b"llama.block_count",
            b"llama.black_count",
            "`llama.block_count`: wanted a number above 0, found nothing",
        ),
        (b"blk.0.attn_q.weight", b"blk.1.attn_q.weight", "`blk.1.attn_q.weight`: it is there twice"),
        (b"token_embd.weight", b"token_embx.weight", "token_embd.weight"),
    ] {
        let error = replaced("llama", from, to);
        assert!(error.contains(wanted), "{wanted}: {error}");
    }
    // The type of the first matrix, 30 for BF16 in place of 0, makes the tensors lie elsewhere.
    let other = b"blk.0.attn_q.weight\x02\0\0\0\x18\0\0\0\0\0\0\0\x3c\0\0\0\0\0\0\0".to_vec();
    let whole = [&other[..], &[0, 0, 0, 0]].concat();
    for (kind, wanted) in
        [(30, "wanted"), (16, "IQ2_XXS; this build reads F32"), (77, "type 77"), (8, "Q8_0 blocks of 32")]
    {
        let changed = [&other[..], &[kind, 0, 0, 0]].concat();
        let error = replaced("llama", &whole, &changed);
        assert!(error.contains(wanted) && error.contains("tensor `blk."), "{kind}: {error}");
    }
}

/// The error of a file with one more entry of metadata.
fn with_entry(name: &str, key: &str, (kind, value): (u32, &[u8])) -> String {
    let mut file = bytes(name);
    let entry = |key: &str, kind: u32, value: &[u8]| {
        [&(key.len() as u64).to_le_bytes()[..], key.as_bytes(), &kind.to_le_bytes(), value].concat()
    };
    let text = |text: &[u8]| [&(text.len() as u64).to_le_bytes()[..], text].concat();
    let mut added = entry(key, kind, value);
    // Tensors keep their alignment: another entry fills up.
    let rest = (added.len() + entry("general.filler", 8, &text(b"")).len()).next_multiple_of(32);
    let rest = rest - added.len() - entry("general.filler", 8, &text(b"")).len();
    added.extend(entry("general.filler", 8, &text(&vec![b'x'; rest])));
    let count = u64::from_le_bytes(file[16..24].try_into().unwrap()) + 2;
    file[16..24].copy_from_slice(&count.to_le_bytes());
    file.splice(24..24, added);
    match Gguf::parse(file) {
        Ok(_) => "accepted".into(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn entries_that_would_change_the_model_are_refused() {
    let two = 2f32.to_le_bytes();
    let longrope = [&8u64.to_le_bytes()[..], b"longrope"].concat();
    for (name, key, value, wanted) in [
        ("llama", "llama.attention.causal", (7, &[1][..]), "accepted"),
        ("llama", "llama.attention.causal", (7, &[0]), "wanted true, found false"),
        ("llama", "llama.use_parallel_residual", (7, &[1]), "wanted false, found true"),
        ("llama", "llama.use_parallel_residual", (4, &[1, 0, 0, 0]), "wanted true or false, found 1"),
        ("llama_yarn", "llama.rope.scaling.attn_factor", (6, &two), "wanted 1 where long texts"),
        ("llama3_rope", "llama.rope.scaling.attn_factor", (6, &two), "wanted 1 where long texts"),
        ("llama", "llama.rope.scaling.type", (8, &longrope), "wanted longrope where tensors hold factors"),
        ("llama3_rope", "llama.rope.scaling.factor", (6, &two), "wanted longrope where tensors hold factors"),
    ] {
        let error = with_entry(name, key, value);
        assert!(error.contains(wanted), "{key}: {error}");
    }
}

#[test]
fn two_tensors_do_not_stand_for_one() {
    let error = replaced("llama3_rope", b"rope_freqs.weight", b"model.norm.weight");
    assert!(error.contains("`output_norm.weight`: it stands for model.norm.weight, and so does"), "{error}");
}

#[test]
fn every_truncation_is_refused() {
    let file = bytes("formats_32");
    let head = file.len() - 30_000;
    for end in (0..head).step_by(7).chain([head, file.len() - 1000, file.len() - 40]) {
        assert!(Gguf::parse(file[..end].to_vec()).is_err(), "{end} of {} bytes", file.len());
    }
    let longer = [&file[..], &[0; 64]].concat();
    assert!(Gguf::parse(longer).unwrap_err().to_string().contains("where the last tensor ends"));
}

#[test]
fn tokenizers_that_are_not_known_are_named() {
    for (from, to, wanted) in [
        (&b"smollm"[..], &b"smallm"[..], "`tokenizer.ggml.pre`: wanted one of default"),
        (b"gpt2", b"gpt9", "`tokenizer.ggml.model`: wanted gpt2 or llama, found \"gpt9\""),
    ] {
        let mut file = bytes("pairs");
        let at = file.windows(from.len()).position(|part| part == from).unwrap();
        file[at..at + to.len()].copy_from_slice(to);
        let gguf = Gguf::parse(file).unwrap();
        let error = gguf.file(source::FileKind::Tokenizer).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
}
