//! Tokenizer and chat template, sound and hostile.

mod support;

use std::time::Instant;

use serde_json::{Map, Value, json};
use sinter_frontend::chat::{ChatError, ChatInput, ChatTemplate};
use sinter_frontend::tokenizer::Tokenizer;
use support::{Model, Random, says};

/// A byte-level tokenizer: one token per byte, ids in the order of the byte alphabet, and `<end>` as id 256.
fn byte_tokenizer() -> Vec<u8> {
    let mut vocab = Map::new();
    let mut extra = 0u32;
    for byte in 0..=255u8 {
        let shown = matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
        let letter = if shown {
            char::from(byte)
        } else {
            extra += 1;
            char::from_u32(255 + extra).unwrap()
        };
        vocab.insert(letter.to_string(), json!(byte));
    }
    let text = json!({
        "version": "1.0",
        "added_tokens": [{"id": 256, "content": "<end>", "special": true, "single_word": false, "lstrip": false,
                          "rstrip": false, "normalized": false}],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": vocab, "merges": []}
    });
    text.to_string().into_bytes()
}

#[test]
fn text_goes_to_tokens_and_back() {
    let tokenizer = Tokenizer::parse(&byte_tokenizer(), 257).unwrap();
    let ids = tokenizer.encode("aé<end>", false).unwrap();
    assert_eq!(ids, [97, 0xC3, 0xA9, 256]);
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), "aé");
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), "aé<end>");
    assert_eq!((tokenizer.piece(97).as_deref(), tokenizer.id("<end>")), (Some("a"), Some(256)));
    assert!(tokenizer.is_special(256) && !tokenizer.is_special(97));
    let stats = tokenizer.stats("aé").unwrap();
    assert_eq!((stats.tokens, stats.chars, stats.bytes), (3, 2, 3));
    assert_eq!((stats.tokens_per_char(), stats.tokens_per_byte()), (1.5, 1.0));
}

#[test]
fn ids_outside_the_vocabulary_are_refused() {
    let tokenizer = Tokenizer::parse(&byte_tokenizer(), 190).unwrap();
    says(tokenizer.encode("é", false).unwrap_err(), &["below the vocabulary size 190"]);
    says(tokenizer.decode(&[u32::MAX], false).unwrap_err(), &["4294967295"]);
}

#[test]
fn streaming_gives_whole_characters_and_the_same_text() {
    let tokenizer = Tokenizer::parse(&byte_tokenizer(), 257).unwrap();
    let mut random = Random(7);
    let letters: Vec<char> = "ab \n\té߀漢🦀👩‍👩‍👧<end>".chars().collect();
    for _ in 0..200 {
        let text: String = (0..random.below(30)).map(|_| letters[random.below(letters.len())]).collect();
        let ids = tokenizer.encode(&text, false).unwrap();
        let mut stream = tokenizer.detokenizer(false);
        let mut out = String::new();
        for id in ids {
            let piece = stream.push(id).unwrap();
            assert!(!piece.contains('\u{FFFD}'), "{text:?} {piece:?}");
            out.push_str(&piece);
        }
        out.push_str(&stream.finish().unwrap());
        assert_eq!(out, text);
    }
}

#[test]
fn streaming_of_broken_bytes_is_bounded() {
    let tokenizer = Tokenizer::parse(&byte_tokenizer(), 257).unwrap();
    let mut stream = tokenizer.detokenizer(true);
    let mut out = String::new();
    for _ in 0..100 {
        out.push_str(&stream.push(0x80).unwrap());
    }
    assert!(out.len() > 100);
    out.clear();
    out.push_str(&stream.push(97).unwrap());
    assert!(out.ends_with('a'));
    assert_eq!(stream.push(256).unwrap() + &stream.finish().unwrap(), "");
    says(stream.push(300).unwrap_err(), &["300"]);
}

#[test]
fn hostile_tokenizers_are_errors() {
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    for text in ["", "{}", "[]", r#"{"version":"1.0","model":{"type":"BPE"}}"#, &deep] {
        assert!(Tokenizer::parse(text.as_bytes(), 10).is_err());
    }
    let merge = r#"{"version":"1.0","added_tokens":[],"model":{"type":"BPE","vocab":{"a":0,"b":1},"merges":["a b"]}}"#;
    says(Tokenizer::parse(merge.as_bytes(), 10).unwrap_err(), &["tokenizer.json"]);
    let model = Model::new();
    says(Tokenizer::load(&model.open(), 10).unwrap_err(), &["tokenizer.json", "not found"]);
}

fn input(messages: Value) -> ChatInput {
    let Value::Array(messages) = messages else { panic!("messages are a list") };
    ChatInput { messages, add_generation_prompt: true, ..ChatInput::default() }
}

fn hello() -> ChatInput {
    input(json!([{"role": "user", "content": "hi"}, {"role": "assistant", "content": " yes "}]))
}

fn render(source: &str) -> Result<String, ChatError> {
    let tokens = Map::from_iter([("bos_token".to_owned(), json!("<s>"))]);
    ChatTemplate::parse(source, tokens)?.render(&hello())
}

#[test]
fn templates_of_the_usual_kinds() {
    let chatml = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message.content|trim + \
        '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
    let wanted =
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyes<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(render(chatml).unwrap(), wanted);
    let llama = "{{- bos_token }}\n{%- set ns = namespace(n=0) %}\n{%- for m in messages %}\n    {%- if (m['role'] == 'user') != \
        (loop.index0 % 2 == 0) %}\n        {{- raise_exception('roles must alternate') }}\n    {%- endif %}\n    \
        {%- set ns.n = ns.n + 1 %}\n    {{- '[' ~ ns.n ~ m.role.upper() ~ ']' }}\n{%- endfor %}\n";
    assert_eq!(render(llama).unwrap(), "<s>[1USER][2ASSISTANT]");
    let macros = "{% macro say(m) %}\n<{{ m.role }}>\n{% endmacro %}\n{% for m in messages %}\n{{ say(m) }}{% endfor %}";
    assert_eq!(render(macros).unwrap(), "<user>\n<assistant>\n");
    let marks = "{% for m in messages %}{%- generation -%} {{ m.content }} {%- endgeneration -%}{% endfor %}";
    assert_eq!(render(marks).unwrap(), "hi yes ");
    assert_eq!(render("{{ messages[0]|tojson }}").unwrap(), r#"{"role": "user", "content": "hi"}"#);
    let pretty = "{\n  \"role\": \"user\",\n  \"content\": \"hi\"\n}";
    assert_eq!(render("{{ messages[0]|tojson(indent=2) }}").unwrap(), pretty);
    assert_eq!(render("{{ 'a\nb'|indent(2, first=true) }}{{ 'a\nb'|indent }}").unwrap(), "  a\n  ba\n    b");
    assert_eq!(
        render("{{ none }}{{ true }}{{ 1 + 2.5 }}{{ missing }}{{ [1] + [2] }}").unwrap(),
        "NoneTrue3.5[1, 2]"
    );
    assert_eq!(
        render("{{ 'a-b-a'.replace('a', 'x', 1) }}{{ ', '.join(['p', 'q']) }}{{ '=' * 3 }}").unwrap(),
        "x-b-ap, q==="
    );
    assert_eq!(render("{{ strftime_now('%d %b %Y %A %-d') }}").unwrap(), "01 Jan 1970 Thursday 1");
    assert_eq!(render("x\n  {% if true %}\n  y\n  {% endif %}\nz\n").unwrap(), "x\n  y\nz");
}

#[test]
fn a_template_may_refuse() {
    let refused = render("{{ raise_exception('only one system message') }}").unwrap_err();
    assert!(
        matches!(&refused, ChatError::Refused { reason } if reason == "only one system message"),
        "{refused}"
    );
    says(render("{% for %}").unwrap_err(), &["does not compile"]);
    says(render("{{ messages.nothing.more }}").unwrap_err(), &["failed"]);
    says(render("{% include 'x' %}").unwrap_err(), &["failed"]);
    says(render("{% block x %}{% endblock %}").unwrap_err(), &["no use"]);
    assert!(render("{{ ''.__class__.__mro__ }}").is_err());
}

#[test]
fn endless_templates_end_within_a_second() {
    let loops = [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% set x = a %}{% endfor %}{% endfor %}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{{ 'some text' }}{% endfor %}{% endfor %}",
        "{% set n = namespace(x='ab') %}{% for a in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        "{% set n = namespace(x='ab') %}{% for a in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}{{ n.x }}",
        "{% set n = namespace(x='ab') %}{% for a in range(99) %}{% set n.x = [n.x, n.x]|join %}{% endfor %}",
        "{% set n = namespace(x='ab') %}{% for a in range(99) %}{% set n.x = n.x.replace('a', 'aa') %}{% endfor %}",
        "{% set n = namespace(x='ab') %}{% for a in range(99) %}{% set n.x = ''.join([n.x, n.x]) %}{% endfor %}",
        "{% set n = namespace(x='ab') %}{% for a in range(99) %}{% set v %}{{ n.x }}{{ n.x }}{% endset %}{% set n.x = v %}{% endfor %}",
        "{% set n = namespace(x=[1]) %}{% for a in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}",
        "{% set n = namespace(x=[1]) %}{% for a in range(99) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}",
        "{% set n = namespace(x=[1]) %}{% for a in range(99) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x|tojson }}",
        "{{ 'x' * 99999999999 }}",
        "{{ [1] * 99999999999 }}",
        "{{ ('x\n' * 999999)|indent(9999999) }}",
    ];
    for source in loops {
        let start = Instant::now();
        let error = render(source).unwrap_err();
        assert!(start.elapsed().as_secs_f64() < 1.5, "{source}: {:?}", start.elapsed());
        assert!(matches!(error, ChatError::Endless { .. }), "{source}: {error}");
    }
    let raw =
        format!("{{% set v %}}{{% for a in range(9999) %}}{}{{% endfor %}}{{% endset %}}", "x".repeat(65536));
    assert!(matches!(render(&raw).unwrap_err(), ChatError::Endless { .. }));
    let recursion = "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}";
    says(render(recursion).unwrap_err(), &["recursion"]);
    let nested =
        "{% set n = namespace(x=[]) %}{% for a in range(60000) %}{% set n.x = [n.x] %}{% endfor %}done";
    assert_eq!(render(nested).unwrap(), "done");
}

#[test]
fn templates_are_found_where_models_keep_them() {
    let error = ChatTemplate::load(&Model::new().open()).unwrap_err();
    assert!(matches!(error, ChatError::NoTemplate { .. }), "{error}");
    let config = json!({"bos_token": {"content": "<b>", "special": true}, "eos_token": "<e>",
        "chat_template": [{"name": "default", "template": "plain{{ bos_token }}"},
                          {"name": "tool_use", "template": "tools{{ eos_token }}"}]});
    let model = Model::new().file("tokenizer_config.json", config.to_string());
    let template = ChatTemplate::load(&model.open()).unwrap();
    assert_eq!(template.token("bos_token"), Some("<b>"));
    assert_eq!(template.render(&hello()).unwrap(), "plain<b>");
    assert_eq!(template.render(&ChatInput { tools: vec![json!({})], ..hello() }).unwrap(), "tools<e>");
    let model = model.file("chat_template.jinja", "file{{ eos_token }}");
    assert_eq!(ChatTemplate::load(&model.open()).unwrap().render(&hello()).unwrap(), "file<e>");
    let wrong = Model::new().file("tokenizer_config.json", r#"{"chat_template":3}"#);
    says(ChatTemplate::load(&wrong.open()).unwrap_err(), &["chat_template", "tokenizer_config.json"]);
    let mut extra = hello();
    extra.extra.insert("+".into(), json!("evil"));
    extra.extra.insert("thinking".into(), json!(true));
    let template = ChatTemplate::parse("{{ 'a' + 'b' }}{{ thinking }}", Map::new()).unwrap();
    assert_eq!(template.render(&extra).unwrap(), "abTrue");
}
