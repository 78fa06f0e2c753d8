//! Every format, at every split.

use super::*;
use crate::grammar::{Grammar, Grammars};
use serde_json::{Value, json};
use sinter_frontend::source::ModelDir;
use sinter_frontend::tokenizer::Tokenizer;
use sinter_runtime::uniform;
use std::path::Path;

/// An answer, put together.
#[derive(Debug, Default, PartialEq)]
struct Whole {
    content: String,
    reasoning: String,
    calls: Vec<(String, String)>,
}

impl Whole {
    fn take(&mut self, deltas: Vec<Delta>) {
        for delta in deltas {
            match delta {
                Delta::Content(text) => self.content += &text,
                Delta::Reasoning(text) => self.reasoning += &text,
                Delta::Call { index, name } => {
                    assert_eq!(index, self.calls.len());
                    self.calls.push((name, String::new()));
                }
                Delta::Arguments { index, text } => {
                    assert_eq!(index + 1, self.calls.len());
                    self.calls[index].1 += &text;
                }
            }
        }
    }
}

fn tools() -> Vec<Tool> {
    let schema = json!({
        "type": "object",
        "properties": { "city": { "type": "string" }, "days": { "type": "integer" }, "more": { "type": "object" } },
    });
    let tool =
        |name: &str, schema: Option<&Value>| Tool::new(name, Some("a tool"), schema, "tools[0]").unwrap();
    vec![tool("weather", Some(&schema)), tool("now", None)]
}

fn dialect(name: &str) -> Dialect {
    Dialect::default().with_names(Some(name), Some("think")).unwrap()
}

fn parser(name: &str, thinking: bool) -> AnswerParser {
    let dialect = dialect(name);
    AnswerParser::new(&dialect, dialect.calls, &tools(), thinking)
}

/// What comes of a text, however it is split in two, and character by character.
fn whole(name: &str, text: &str, thinking: bool) -> Whole {
    let run = |pieces: &[&str]| {
        let mut parser = parser(name, thinking);
        let mut whole = Whole::default();
        pieces.iter().for_each(|piece| whole.take(parser.push(piece)));
        whole.take(parser.finish());
        whole
    };
    let one = run(&[text]);
    for (at, _) in text.char_indices() {
        let (left, right) = text.split_at(at);
        assert_eq!(run(&[left, right]), one, "{name}: {left:?} | {right:?}");
        let next = text[at..].chars().next().map_or(at, |c| at + c.len_utf8());
        assert_eq!(run(&[left, &text[at..next], &text[next..]]), one, "{name}: {text:?} at {at}");
    }
    let single: Vec<String> = text.chars().map(String::from).collect();
    assert_eq!(run(&single.iter().map(String::as_str).collect::<Vec<_>>()), one, "{name}: {text:?}");
    one
}

/// Checks content, reasoning and calls of an answer.
fn check(name: &str, text: &str, content: &str, calls: &[(&str, Value)]) {
    let found = whole(name, text, false);
    assert_eq!(found.content, content, "{name}: {text:?}");
    let parsed: Vec<(String, Value)> = found
        .calls
        .iter()
        .map(|(name, text)| {
            (name.clone(), serde_json::from_str(text).unwrap_or_else(|e| panic!("{text:?}: {e}")))
        })
        .collect();
    let wanted: Vec<(String, Value)> =
        calls.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    assert_eq!(parsed, wanted, "{name}: {text:?}");
}

fn paris() -> Value {
    json!({ "city": "Pa\"}]ris</tool", "more": { "a": [1, { "b": "{" }] }, "days": 3 })
}

/// How each family writes two calls after some content.
fn samples() -> Vec<(&'static str, String)> {
    let a = paris().to_string();
    vec![
        ("hermes", format!("<tool_call>\n{{\"name\": \"weather\", \"arguments\": {a}}}\n</tool_call>\n<tool_call>\n{{\"name\": \"now\", \"arguments\": {{}}}}\n</tool_call>")),
        ("hermes", format!("<tool_call>{{\"arguments\": {a}, \"name\": \"weather\"}}</tool_call><tool_call>{{\"name\":\"now\"}}}}</tool_call>\n")),
        ("mistral", format!("[TOOL_CALLS][{{\"name\": \"weather\", \"arguments\": {a}}}, {{\"name\": \"now\", \"arguments\": {{}}}}]")),
        ("mistral_v11", format!("[TOOL_CALLS]weather[ARGS]{a}[TOOL_CALLS]now[CALL_ID]123456789[ARGS]{{}}")),
        ("mistral_v11", format!("[TOOL_CALLS] [{{\"name\": \"weather\", \"arguments\": {a}}},{{\"name\": \"now\", \"arguments\": null}}]")),
        ("phi4_mini", format!("<|tool_call|>[{{\"type\": \"function\", \"function\": {{\"name\": \"weather\", \"arguments\": {a}}}}}, {{\"name\": \"now\", \"parameters\": {{}}}}]<|/tool_call|>")),
        ("phi4_mini", format!("functools[{{\"name\": \"weather\", \"arguments\": {a}}}, {{\"name\": \"now\", \"arguments\": {{}}}}]")),
        ("granite", format!("<|tool_call|>[{{\"name\": \"weather\", \"arguments\": {a}}}, {{\"name\": \"now\", \"arguments\": \"{{}}\"}}]")),
        ("functionary", format!("<function=weather>{a}</function>\n<function=now>{{}}</function>")),
        ("deepseek_v3", format!("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{a}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{{}}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>")),
        ("deepseek_v3", format!("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{a}<｜tool▁call▁end｜><｜tool▁call▁begin｜>now<｜tool▁sep｜>{{}}<｜tool▁call▁end｜><｜tool▁calls▁end｜>")),
        ("kimi_k2", format!("<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0<|tool_call_argument_begin|>{a}<|tool_call_end|><|tool_call_begin|>functions.now:1<|tool_call_argument_begin|>{{}}<|tool_call_end|><|tool_calls_section_end|>")),
        ("glm4", "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Pa\"}]ris</tool</arg_value>\n<arg_key>more</arg_key>\n<arg_value>{\"a\": [1, {\"b\": \"{\"}]}</arg_value>\n<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>\n<tool_call>now\n</tool_call>".to_owned()),
        ("qwen3_coder", "<tool_call>\n<function=weather>\n<parameter=city>\nPa\"}]ris</tool\n</parameter>\n<parameter=more>\n{\"a\": [1, {\"b\": \"{\"}]}\n</parameter>\n<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=now>\n</function>\n</tool_call>".to_owned()),
        ("pythonic", "<|python_start|>[weather(city='Pa\"}]ris</tool', more={'a': [1, {\"b\": '{'}]}, days=3), now()]<|python_end|>".to_owned()),
    ]
}

#[test]
fn calls_of_every_family_are_read_at_every_split() {
    let wanted = [("weather", paris()), ("now", json!({}))];
    for (name, sample) in samples() {
        check(name, &sample, "", &wanted);
        check(name, &format!("Let me see.\n\n{sample}"), "Let me see.", &wanted);
        // What no call follows is shown as it is; a call is never shown.
        check(name, " plain < text [ with { signs \n", " plain < text [ with { signs \n", &[]);
        let thought = whole(name, &format!("<think>\nI call.\n</think>\n\n{sample}"), false);
        assert_eq!((thought.reasoning.as_str(), thought.content.as_str()), ("I call.", ""), "{name}");
        assert_eq!(thought.calls.len(), 2);
    }
}

#[test]
fn every_row_of_the_table_has_a_sample() {
    let bare = ["llama3_json", "json"];
    for format in FORMATS {
        assert!(
            samples().iter().any(|(name, _)| *name == format.name) || bare.contains(&format.name),
            "{}",
            format.name
        );
    }
}

#[test]
fn calls_without_markers_are_read_if_they_are_calls() {
    let a = paris();
    for name in ["llama3_json", "json"] {
        check(
            name,
            &format!("{{\"name\": \"weather\", \"parameters\": {a}}}"),
            "",
            &[("weather", a.clone())],
        );
        check(
            name,
            &format!(
                "\n{{\"type\": \"function\", \"name\": \"weather\", \"parameters\": {a}}}; {{\"name\": \"now\", \"parameters\": {{}}}}"
            ),
            "",
            &[("weather", a.clone()), ("now", json!({}))],
        );
        for text in [
            "{\"name\": \"Bob\", \"age\": 3}",
            "{\"name\": \"weather\"} is a name",
            "{\"name\": \"unknown\", \"parameters\": {}}",
            "{\"city\": \"Oslo\"}",
            "[1, 2, 3]",
            "[weather is fine]",
            "{not json",
            "{",
            "[",
            " {\"name\": 3}",
            "Look: {\"name\": \"weather\", \"parameters\": {}}",
        ] {
            check(name, text, text, &[]);
        }
    }
    check("llama3_json", "<|python_tag|>{\"name\": \"now\", \"parameters\": {}}", "", &[("now", json!({}))]);
    check(
        "llama3_json",
        "<|python_tag|>weather.call(city=\"Oslo\")",
        "",
        &[("weather", json!({ "city": "Oslo" }))],
    );
    check("llama3_json", "<|python_tag|>print(1)", "<|python_tag|>print(1)", &[]);
    check(
        "pythonic",
        "[weather(city='Os\\'lo\\n', days=-2), now()]",
        "",
        &[("weather", json!({ "city": "Os'lo\n", "days": -2 })), ("now", json!({}))],
    );
    check("pythonic", "[weather(city=Oslo)]", "[weather(city=Oslo)]", &[]);
    check(
        "pythonic",
        "[weather(days=[1.5, True, None, (2,)])] done",
        "done",
        &[("weather", json!({ "days": [1.5, true, null, [2]] }))],
    );
}

#[test]
fn what_is_no_call_is_content_word_for_word() {
    for text in [
        "<tool_call>oops</tool_call>",
        "a <tool_call> is a tag",
        "<tool_call>\n{\"nam",
        "<tool_call>{\"arguments\": {}}</tool_call>",
        "<tool_call>{\"name\": \"\", \"arguments\": {}}</tool_call>",
        "<tool_call>{\"name\": \"now\", \"arguments\": [1]}</tool_call>",
        "<tool_cal",
        "<tool_call",
    ] {
        check("hermes", text, text, &[]);
    }
    check("glm4", "<tool_call>f\n<arg_key>x</tool_call>", "<tool_call>f\n<arg_key>x</tool_call>", &[]);
    let nothing = "<｜tool▁calls▁begin｜>nothing<｜tool▁calls▁end｜>";
    check("deepseek_v3", nothing, nothing, &[]);
    // A list of no calls says nothing.
    check("hermes", "<tool_call>[]</tool_call>", "", &[]);
}

#[test]
fn a_call_that_is_cut_off_keeps_what_it_had() {
    let found = whole("hermes", "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Os", false);
    assert_eq!(found.calls, [("weather".to_owned(), "{\"city\": \"Os".to_owned())]);
    assert_eq!(found.content, "");
}

#[test]
fn arguments_come_while_they_are_written() {
    let mut parser = parser("hermes", false);
    assert_eq!(parser.push("Hi. <tool_call>{\"name\": \"weather\", \"arg"), [Delta::Content("Hi.".into())]);
    let begin = Delta::Call { index: 0, name: "weather".into() };
    let text = |text: &str| Delta::Arguments { index: 0, text: text.into() };
    assert_eq!(parser.push("uments\": {\"city\""), [begin, text("{\"city\"")]);
    assert_eq!(parser.push(": \"Oslo\"}"), [text(": \"Oslo\"}")]);
    assert_eq!(parser.push("}\n</tool_call>"), []);
    assert_eq!(parser.push("more"), [Delta::Content("more".into())]);
    assert_eq!(parser.calls(), 1);
}

#[test]
fn reasoning_is_taken_apart_from_the_answer() {
    let find = |text: &str, thinking| {
        let whole = whole("hermes", text, thinking);
        (whole.reasoning, whole.content)
    };
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(find("<think>\na </thin b\n\n</think>\n\nc\n", false), pair("a </thin b", "c\n"));
    assert_eq!(find("a\nb</think>c", true), pair("a\nb", "c"));
    assert_eq!(find("<think></think>", false), pair("", ""));
    assert_eq!(find("<think>cut off ", false), pair("cut off", ""));
    assert_eq!(find("a <think> is a tag", false), pair("", "a <think> is a tag"));
    assert_eq!(find("<thin", false), pair("", "<thin"));
    let plain = Dialect::default();
    let mut parser = AnswerParser::new(&plain, None, &[], true);
    assert_eq!(parser.push(" <think> <tool_call> {"), [Delta::Content(" <think> <tool_call> {".into())]);
    assert_eq!(parser.finish(), []);
}

#[test]
fn dialects_are_found_in_templates() {
    let find = |template: &str| Dialect::detect(|words| template.contains(words));
    let name = |template: &str| find(template).calls.map(|row| row.name);
    assert_eq!(name("{% if tools %}<tool_call>"), Some("hermes"));
    assert_eq!(name("<tool_call> <arg_key>"), Some("glm4"));
    assert_eq!(name("<tool_call> <function=a> <parameter=b>"), Some("qwen3_coder"));
    assert_eq!(name("[TOOL_CALLS] [ARGS]"), Some("mistral_v11"));
    assert_eq!(name("[TOOL_CALLS]"), Some("mistral"));
    assert_eq!(name("<|python_tag|>"), Some("llama3_json"));
    assert_eq!(name("<|tool_call|>"), Some("granite"));
    assert_eq!(name("<|tool_call|> <|/tool_call|>"), Some("phi4_mini"));
    assert_eq!(name("{{ messages }}"), None);
    assert_eq!(find("</think>").reasoning.map(|row| row.name), Some("think"));
    assert!(find("<tool_call>").with_names(Some("none"), None).unwrap().calls.is_none());
    assert!(find("").with_names(Some("nonsense"), None).unwrap_err().contains("hermes"));
    assert!(dialect("deepseek_v3").keeps("<｜tool▁sep｜>") && !dialect("hermes").keeps("<|im_end|>"));
}

fn example() -> (Tokenizer, Grammars, u32) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/tiny_chat/model");
    let dir = ModelDir::open(&path).unwrap();
    let config: Value = serde_json::from_slice(&std::fs::read(path.join("config.json")).unwrap()).unwrap();
    let tokenizer = Tokenizer::load(&dir, config["vocab_size"].as_u64().unwrap() as usize).unwrap();
    let end = config["eos_token_id"].as_u64().unwrap() as u32;
    let grammars = Grammars::new(&tokenizer, &[end]).unwrap();
    (tokenizer, grammars, end)
}

/// A text of random tokens among those that a grammar allows; none if it does not end soon.
fn random(example: &(Tokenizer, Grammars, u32), grammar: &Grammar, seed: u64) -> Option<String> {
    let (tokenizer, grammars, end) = example;
    let mut mask = grammars.compile(grammar).unwrap().start().unwrap();
    let mut tokens = Vec::new();
    for at in 0..600 {
        let allowed = mask.allowed().unwrap();
        let ids: Vec<u32> = (0..2000).filter(|id| allowed.contains(*id) && id != end).collect();
        if ids.is_empty() || (allowed.contains(*end) && uniform(seed, at) < 0.5) {
            return Some(tokenizer.decode(&tokens, false).unwrap());
        }
        // Closing signs are preferred, so that strings and lists end.
        let closing = |id: &&u32| tokenizer.piece(**id).is_some_and(|piece| piece.contains(['"', '}', ']']));
        let closing: Vec<u32> = ids.iter().filter(closing).copied().collect();
        let ids = if !closing.is_empty() && uniform(seed ^ 2, at) < 0.5 { closing } else { ids };
        let token = ids[(uniform(seed ^ 1, at) * ids.len() as f64) as usize];
        mask.accept(token).unwrap();
        tokens.push(token);
    }
    None
}

#[test]
fn forced_calls_are_read_by_the_parser_of_their_format() {
    let example = example();
    let schema = json!({
        "type": "object",
        "properties": { "city": { "enum": ["Oslo", "Rome"] }, "deep": { "type": "object", "properties": { "n": { "type": "integer" } }, "required": ["n"], "additionalProperties": false } },
        "required": ["city", "deep"],
        "additionalProperties": false,
    });
    let mut tools = tools();
    tools[0] = Tool::new("weather", None, Some(&schema), "tools[0]").unwrap();
    for format in FORMATS {
        let mut complete = 0;
        for (seed, many) in (0..12).zip([true, false].into_iter().cycle()) {
            let grammar = forced_grammar(format, &tools[..if many { 2 } else { 1 }], many, None, &example.0);
            let Some(text) = random(&example, &grammar, seed) else { continue };
            let found = whole(format.name, &text, false);
            assert!(
                found.content.is_empty() && !found.calls.is_empty(),
                "{}: {text:?} {found:?}",
                format.name
            );
            assert!(many || found.calls.len() == 1);
            for (name, arguments) in &found.calls {
                let value: Value =
                    serde_json::from_str(arguments).unwrap_or_else(|e| panic!("{text:?}: {e}"));
                if name == "weather" {
                    assert!(["Oslo", "Rome"].contains(&value["city"].as_str().unwrap()), "{text}");
                    assert!(
                        value["deep"]["n"].is_i64()
                            || value["deep"]["n"].is_u64()
                            || value["deep"]["n"].is_number()
                    );
                }
            }
            complete += 1;
        }
        assert!(complete > 2, "{}: {complete}", format.name);
    }
}

#[test]
fn forced_calls_may_follow_a_thought() {
    let example = example();
    let format = dialect("hermes").forced();
    for close in ["</think>", "<|user|>"] {
        let grammar = forced_grammar(format, &tools()[1..], false, Some(close), &example.0);
        let mut mask = example.1.compile(&grammar).unwrap().start().unwrap();
        let text = format!(
            "I think so.{close}<tool_call>\n{{\"name\": \"now\", \"arguments\": {{}}}}\n</tool_call>"
        );
        for token in example.0.encode(&text, false).unwrap() {
            let piece = example.0.piece(token);
            assert!(mask.allowed().unwrap().contains(token), "{close}: {piece:?}");
            mask.accept(token).unwrap();
        }
        assert!(mask.allowed().unwrap().is_empty() || mask.allowed().unwrap().contains(example.2));
    }
}

#[test]
fn at_most_sixteen_calls_are_forced() {
    let example = example();
    let grammar = forced_grammar(dialect("hermes").forced(), &tools()[1..], true, None, &example.0);
    let call = "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>";
    let accepts = |count: usize| {
        let mut mask = example.1.compile(&grammar).unwrap().start().unwrap();
        let tokens = example.0.encode(&[call].repeat(count).join("\n"), false).unwrap();
        tokens.into_iter().all(|token| mask.allowed().unwrap().contains(token) && mask.accept(token).is_ok())
    };
    assert!(accepts(1) && accepts(16));
    assert!(!accepts(17));
}

#[test]
fn messages_become_what_templates_want() {
    let call = |arguments: Value| {
        json!({ "role": "assistant", "content": null, "tool_calls": [
        { "id": "a", "type": "function", "function": { "name": "now", "arguments": arguments } }] })
    };
    let mut messages = vec![
        call(json!("{\"a\": {\"b\": [1]}}")),
        call(json!("")),
        json!({ "role": "assistant", "content": "x", "tool_calls": null }),
        json!({ "role": "tool", "content": "12", "tool_call_id": "a" }),
    ];
    arguments_to_objects(&mut messages).unwrap();
    assert_eq!(messages[0]["tool_calls"][0]["function"]["arguments"], json!({ "a": { "b": [1] } }));
    assert_eq!(messages[0]["content"], "");
    assert_eq!(messages[1]["tool_calls"][0]["function"]["arguments"], json!({}));
    assert_eq!(messages[2], json!({ "role": "assistant", "content": "x" }));
    for wrong in [json!("[1]"), json!("{"), json!(3)] {
        assert!(
            arguments_to_objects(&mut [call(wrong)]).unwrap_err().place.contains("messages[0].tool_calls[0]")
        );
    }
}

#[test]
fn tools_that_are_wrong_are_refused() {
    assert!(Tool::new("", None, None, "t").is_err());
    assert!(Tool::new("a b", None, None, "t").is_err());
    assert!(Tool::new("a", None, Some(&json!({ "type": "string" })), "t").is_err());
    assert!(Tool::new("a", None, Some(&json!(3)), "t").is_err());
    let two = vec![tools()[0].clone(), tools()[0].clone()];
    assert!(Tool::check_all(&two, "tools").is_err());
    assert_eq!(tools()[1].template_value()["function"]["parameters"]["type"], "object");
}
