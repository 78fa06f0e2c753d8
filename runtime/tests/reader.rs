//! A reader on a model that tells which token each row is of, and that fails when it is told to.

use sinter_runtime::engine::Refusal;
use sinter_runtime::reader::{Grid, Part, PartSink, Reader, ReaderConfig, ReaderHandle, ReaderTicket, Text};
use sinter_runtime::{Batch, BatchCheck, DeviceModel, KernelTime, Limits, Rows, RuntimeError, uniform};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

const FAILS: u8 = 1;
const PANICS: u8 = 2;

/// Rows of token, position and type. Every batch is checked as a real model checks it.
struct Telling {
    limits: Limits,
    result: &'static str,
    check: BatchCheck,
    mood: Arc<AtomicU8>,
    rows: Vec<f32>,
}

impl DeviceModel for Telling {
    fn device(&self) -> String {
        "a test".into()
    }
    fn limits(&self) -> Limits {
        self.limits
    }
    fn result_name(&self) -> &str {
        self.result
    }
    fn width(&self) -> usize {
        3
    }
    fn step(&mut self, batch: &Batch) -> Result<&[f32], RuntimeError> {
        self.check.check(batch)?;
        match self.mood.swap(0, SeqCst) {
            FAILS => return Err(RuntimeError::Logits("a planted failure".into())),
            PANICS => panic!("a planted panic"),
            _ => {}
        }
        let by_token = self.limits.pages == 0 && self.result == "hidden";
        let all: Vec<u32> = (0..batch.tokens.len() as u32).collect();
        self.rows.clear();
        for row in if by_token { &all } else { &batch.rows } {
            let at = *row as usize;
            let row = [batch.tokens[at], batch.positions[at], batch.types[at]];
            self.rows.extend(row.map(|number| number as f32));
        }
        Ok(&self.rows)
    }
    fn times(&self) -> Vec<KernelTime> {
        Vec::new()
    }
}

/// What a client was told.
#[derive(Debug, Clone, Default, PartialEq)]
struct Told {
    rows: Vec<Vec<f32>>,
    ends: usize,
    failure: Option<RuntimeError>,
}

/// What one client sees.
struct Client {
    told: Arc<Mutex<Told>>,
    ticket: Option<ReaderTicket>,
}

impl Client {
    fn ask(handle: &ReaderHandle, texts: &[Text]) -> Result<Self, Refusal> {
        let told = Arc::new(Mutex::new(Told { rows: vec![Vec::new(); texts.len()], ..Told::default() }));
        let seen = told.clone();
        let sink: PartSink = Box::new(move |part| {
            let mut told = seen.lock().unwrap();
            match part {
                Part::Rows { text, rows } => told.rows[text].extend(rows),
                Part::Done => told.ends += 1,
                Part::Failed(error) => {
                    told.ends += 1;
                    told.failure = Some(error.clone());
                }
            }
            ControlFlow::Continue(())
        });
        Ok(Self { told, ticket: Some(handle.submit(texts.to_vec(), sink)?) })
    }
    fn told(&self) -> Told {
        self.told.lock().unwrap().clone()
    }

    /// What it was told to its end, which comes after the gauges count it.
    fn ended(&self) -> Told {
        while self.told().ends == 0 {
            std::thread::yield_now();
        }
        self.told()
    }
}

const ENCODER: Limits =
    Limits { vocab: 100, max_positions: 200, max_tokens: 256, max_sequences: 9, pages: 0 };
const DECODER: Limits = Limits { max_tokens: 24, max_sequences: 4, pages: 14, ..ENCODER };

fn reader(limits: Limits, result: &'static str, step_tokens: usize) -> (Reader, ReaderHandle, Arc<AtomicU8>) {
    let mood = Arc::new(AtomicU8::new(0));
    let check = BatchCheck::new(limits, limits.pages > 0);
    let model = Telling { limits, result, check, mood: mood.clone(), rows: Vec::new() };
    let texts = limits.max_sequences - usize::from(limits.pages == 0);
    let config =
        ReaderConfig { step_tokens, texts, grid: Grid::LANES, max_requests: 50, max_waiting_tokens: 5000 };
    let (reader, handle) = Reader::new(Box::new(model), config).unwrap();
    (reader, handle, mood)
}

fn text(seed: u64, len: usize, rows: Rows) -> Text {
    let ids = (0..len as u64).map(|at| (uniform(seed, at) * 100.0) as u32).collect::<Vec<_>>();
    Text { types: ids.iter().map(|id| id % 2).collect(), ids, rows }
}

/// The rows that a text must get.
fn wanted(text: &Text) -> Vec<f32> {
    let row = |at: usize| [text.ids[at], at as u32, text.types[at]].map(|number| number as f32);
    let last = text.ids.len() - 1;
    match text.rows {
        Rows::None => Vec::new(),
        Rows::First => row(0).to_vec(),
        Rows::Last => row(last).to_vec(),
        Rows::All => (0..=last).flat_map(row).collect(),
    }
}

/// Requests of several texts, also longer than a step of the decoder.
fn requests() -> Vec<Vec<Text>> {
    let rows = [Rows::All, Rows::First, Rows::Last];
    let len = |seed: u64| 1 + (uniform(seed, 1000) * uniform(seed, 1001) * 200.0) as usize;
    let texts = |at: u64| {
        (0..1 + at % 5)
            .map(move |place| text(at * 8 + place, len(at * 8 + place), rows[(at + place) as usize % 3]))
    };
    (0..14).map(|at| texts(at).collect()).collect()
}

/// Lets a reader work until nobody has a handle any more.
fn serve(mut reader: Reader, clients: impl FnOnce()) {
    let thread = std::thread::spawn(move || reader.serve());
    clients();
    thread.join().unwrap();
}

fn wait(handle: &ReaderHandle) {
    while handle.stats().finished < handle.stats().requests {
        std::thread::yield_now();
    }
}

#[test]
fn every_text_gets_its_own_rows() {
    for (limits, result) in [(ENCODER, "hidden"), (ENCODER, "scores"), (DECODER, "hidden")] {
        let (reader, handle, _) = reader(limits, result, 128.min(limits.max_tokens));
        let requests = requests();
        let clients: Vec<Client> =
            requests.iter().map(|texts| Client::ask(&handle, texts).unwrap()).collect();
        // The reader works as long as anyone has a handle or a ticket.
        serve(reader, move || {
            wait(&handle);
            for (texts, client) in requests.iter().zip(&clients) {
                let rows = texts.iter().map(wanted).collect();
                assert_eq!(client.ended(), Told { rows, ends: 1, failure: None }, "{result}");
            }
            let (stats, count) = (handle.stats(), requests.iter().map(Vec::len).sum::<usize>() as u64);
            assert_eq!((stats.running, stats.waiting, stats.waiting_tokens, stats.blocks_used), (0, 0, 0, 0));
            assert_eq!((stats.requests, stats.failed), (14, 0));
            assert!(limits == DECODER || stats.steps < count, "{} steps of {count} texts", stats.steps);
            assert_eq!(stats.step_tokens, stats.tokens_in);
            drop(handle);
        });
    }
}

#[test]
fn a_long_request_delays_nobody_for_long() {
    let (mut reader, handle, _) = reader(ENCODER, "hidden", 64);
    let many: Vec<Text> = (0..40).map(|at| text(at, 60, Rows::Last)).collect();
    let long = Client::ask(&handle, &many).unwrap();
    let short = Client::ask(&handle, &[text(99, 60, Rows::Last)]).unwrap();
    // Each step has room for one of these texts.
    assert!(reader.turn() && reader.turn());
    let read = long.told().rows.iter().filter(|rows| !rows.is_empty()).count();
    assert_eq!((read, short.told().ends), (1, 1));
}

#[test]
fn a_failed_or_panicked_step_costs_its_own_requests_alone() {
    for limits in [ENCODER, DECODER] {
        let (reader, handle, mood) = reader(limits, "hidden", 24);
        serve(reader, || {
            for (kind, words) in [(FAILS, "a planted failure"), (PANICS, "a planted panic")] {
                mood.store(kind, SeqCst);
                let failed = Client::ask(&handle, &[text(1, 20, Rows::All)]).unwrap();
                wait(&handle);
                let told = failed.ended();
                assert!(told.ends == 1 && told.failure.unwrap().to_string().contains(words));
                let next = Client::ask(&handle, &[text(2, 20, Rows::All)]).unwrap();
                wait(&handle);
                let told = next.ended();
                assert_eq!((told.ends, told.failure), (1, None));
                assert_eq!((handle.stats().blocks_used, handle.stats().running), (0, 0));
            }
            assert_eq!(handle.stats().failed, 2);
            drop(handle);
        });
    }
}

#[test]
fn whoever_leaves_leaves_nothing_behind() {
    for limits in [ENCODER, DECODER] {
        let (reader, handle, _) = reader(limits, "hidden", 24);
        serve(reader, || {
            for round in 0..200 {
                let texts: Vec<Text> =
                    (0..1 + round % 7).map(|at| text(round * 7 + at, 30, Rows::All)).collect();
                let stays = Client::ask(&handle, &texts[..1]).unwrap();
                let mut leaves = Client::ask(&handle, &texts).unwrap();
                (0..round % 5).for_each(|_| std::thread::yield_now());
                drop(leaves.ticket.take());
                wait(&handle);
                assert!(leaves.told().ends <= 1);
                assert_eq!(stays.told().rows[0], wanted(&texts[0]));
            }
            let stats = handle.stats();
            assert_eq!((stats.running, stats.waiting, stats.waiting_tokens, stats.blocks_used), (0, 0, 0, 0));
            drop(handle);
        });
    }
}

#[test]
fn what_cannot_be_read_is_refused_at_once() {
    let (mut reader, handle, _) = reader(ENCODER, "hidden", 64);
    let refused = |texts: Vec<Text>, words: &str| {
        let error = handle.submit(texts, Box::new(|_| ControlFlow::Continue(()))).err().unwrap();
        assert!(error.to_string().contains(words), "{error}");
    };
    let good = || text(1, 10, Rows::All);
    refused(vec![], "no text");
    refused(vec![good(), text(1, 0, Rows::All)], "no tokens");
    refused(vec![text(1, 201, Rows::All)], "201 tokens, the longest has 200");
    refused(vec![Text { ids: vec![100], ..Text::new(vec![100], Rows::All) }], "token 100");
    refused(vec![Text { types: vec![0], ..good() }], "1 types of 10 tokens");
    refused(vec![Text { types: vec![2; 10], ..good() }], "type 2");
    let waiting: Vec<Client> = (0..50).map(|_| Client::ask(&handle, &[good(), good()]).unwrap()).collect();
    refused(vec![good()], "100 sequences of 1000 tokens wait already");
    handle.stop();
    refused(vec![good()], "no more requests");
    reader.serve();
    for told in waiting.iter().map(Client::told) {
        assert_eq!((told.ends, told.failure), (1, Some(RuntimeError::Stopped)));
    }
    assert!(handle.stats().stopped && handle.stats().finished == 50);
}

#[test]
fn limits_and_configuration_go_together() {
    let config = ReaderConfig {
        step_tokens: 64,
        texts: 8,
        grid: Grid::BLOCKS,
        max_requests: 1,
        max_waiting_tokens: 1,
    };
    let refused = |result, config, words: &str| {
        let model = Telling {
            limits: ENCODER,
            result,
            check: BatchCheck::new(ENCODER, false),
            mood: Arc::default(),
            rows: Vec::new(),
        };
        let error = Reader::new(Box::new(model), config).err().unwrap();
        assert!(error.to_string().contains(words), "{error}");
    };
    refused("logits", config, "writes texts");
    refused("hidden", ReaderConfig { texts: 9, ..config }, "9 texts in a step");
    refused("hidden", ReaderConfig { texts: 0, ..config }, "0 texts in a step");
    refused("hidden", ReaderConfig { step_tokens: 257, ..config }, "257 tokens in a step");
}
