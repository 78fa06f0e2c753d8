//! The engine as its clients see it, on a model without arithmetic.

use sinter_runtime::engine::{Engine, EngineConfig, EngineHandle, Event, Refusal, Request, Usage};
use sinter_runtime::{Finish, Limits};
use sinter_testsuite::fake_model::FakeModel;
use std::thread::JoinHandle;

const VOCAB: usize = 50;

fn start(pages: usize, sequences: usize) -> (EngineHandle, JoinHandle<()>) {
    let limits = Limits { vocab: VOCAB, max_positions: 200, max_tokens: 24, max_sequences: sequences, pages };
    Engine::spawn(Box::new(FakeModel::new(limits)), EngineConfig::default()).unwrap()
}

/// What plain greedy decoding gives.
fn greedy(prompt: &[u32], count: usize) -> Vec<u32> {
    let mut tokens = prompt.to_vec();
    for _ in 0..count {
        let row = FakeModel::logits_after(VOCAB, &tokens);
        let best = (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b]).then(b.cmp(a))).unwrap();
        tokens.push(best as u32);
    }
    tokens.split_off(prompt.len())
}

/// The tokens of each choice and the last event.
fn collect(events: impl Iterator<Item = Event>, n: usize) -> (Vec<Vec<u32>>, Vec<Finish>, Event) {
    let (mut tokens, mut finishes, mut last) = (vec![Vec::new(); n], Vec::new(), None);
    for event in events {
        assert!(last.is_none(), "{event:?} after {last:?}");
        match event {
            Event::Tokens { choice, tokens: new } => {
                tokens[choice].extend(new.into_iter().map(|token| token.id));
            }
            Event::Finished { finish, .. } => finishes.push(finish),
            Event::Prompt(_) => {}
            event => last = Some(event),
        }
    }
    (tokens, finishes, last.expect("a last event"))
}

#[test]
fn a_crowd_gets_what_each_would_get_alone() {
    // Twelve pages are too few for all at once, so some are put back.
    let (handle, thread) = start(12, 6);
    let requests: Vec<Vec<u32>> =
        (0..20u32).map(|at| (0..1 + at * 4).map(|token| (token * 7 + at) % VOCAB as u32).collect()).collect();
    let events: Vec<_> = requests
        .iter()
        .map(|prompt| handle.submit(Request::new(prompt.clone(), 30)).expect("it is accepted"))
        .collect();
    for (prompt, events) in requests.iter().zip(events) {
        let (tokens, finishes, last) = collect(events, 1);
        assert_eq!(tokens[0], greedy(prompt, 30), "a prompt of {} tokens", prompt.len());
        assert_eq!(finishes, [Finish::Length]);
        assert!(matches!(last, Event::Done(Usage { generated: 30, .. })));
    }
    let stats = handle.stats();
    assert_eq!((stats.running, stats.waiting, stats.blocks_used), (0, 0, 0));
    assert_eq!((stats.requests, stats.finished, stats.tokens_out), (20, 20, 600));
    assert!(stats.preemptions > 0 && stats.waiting_tokens == 0);
    drop(handle);
    thread.join().unwrap();
}

#[test]
fn what_can_never_be_served_is_refused_at_once() {
    let (handle, _thread) = start(4, 2);
    let refused = |change: fn(&mut Request)| {
        let mut request = Request::new(vec![1, 2], 3);
        change(&mut request);
        assert!(matches!(handle.submit(request), Err(Refusal::Invalid(_))));
    };
    refused(|request| request.prompt.clear());
    refused(|request| request.prompt = vec![1; 65]);
    refused(|request| request.prompt = vec![VOCAB as u32]);
    refused(|request| request.stop_ids = vec![VOCAB as u32]);
    refused(|request| request.sampling.logit_bias = vec![(VOCAB as u32, 1.0)]);
    refused(|request| request.sampling.temperature = f32::NAN);
    refused(|request| request.n = 0);
    refused(|request| request.n = 17);
    refused(|request| request.logprobs = Some(21));
    handle.close();
    assert!(matches!(handle.submit(Request::new(vec![1], 1)), Err(Refusal::Closed)));
}

#[test]
fn answers_end_for_the_right_reason() {
    let (handle, _thread) = start(4, 2);
    let answer = greedy(&[5], 80);
    let ended = |request: Request| {
        let (tokens, finishes, _) = collect(handle.submit(request).unwrap(), 1);
        (tokens[0].len(), finishes[0])
    };
    assert_eq!(ended(Request::new(vec![5], 7)), (7, Finish::Length));
    assert_eq!(ended(Request::new(vec![5], 0)), (0, Finish::Length));
    // 64 slots hold the prompt and 63 tokens; the 64th is given out and needs no slot.
    assert_eq!(ended(Request::new(vec![5], 80)), (64, Finish::Context));
    let first = answer.iter().position(|id| *id == answer[3]).unwrap();
    let stopped = Request { stop_ids: vec![answer[3]], ..Request::new(vec![5], 80) };
    assert_eq!(ended(stopped), (first, Finish::Stop(answer[3])));
}

#[test]
fn dropping_the_events_frees_the_pages() {
    let (handle, _thread) = start(12, 4);
    let mut events = handle.submit(Request::new(vec![3; 100], 90)).unwrap();
    assert!(matches!(events.next(), Some(Event::Tokens { .. })));
    drop(events);
    let after = handle.submit(Request::new(vec![4], 1)).unwrap();
    assert!(matches!(collect(after, 1).2, Event::Done(_)));
    let stats = handle.stats();
    assert_eq!((stats.running, stats.blocks_used, stats.finished), (0, 0, 2));
}

#[test]
fn one_choice_can_be_cancelled_and_the_others_go_on() {
    let (engine, _thread) = start(32, 4);
    let request = Request { n: 3, ..Request::new(vec![1, 2, 3], 8) };
    let (texts, ..) = collect(engine.submit(request.clone()).expect("it is accepted"), 3);
    let (sender, events) = std::sync::mpsc::channel();
    let (go, wait) = std::sync::mpsc::channel();
    let mut held = false;
    // The engine waits at the first token of the second choice until the cancellation is on its way.
    let sink = move |event: Event| {
        let hold = matches!(event, Event::Tokens { choice: 1, .. }) && !std::mem::replace(&mut held, true);
        sender.send(event).expect("a reader");
        if hold {
            wait.recv().expect("a word");
        }
        std::ops::ControlFlow::Continue(())
    };
    let ticket = engine.submit_to(request, Box::new(sink)).expect("it is accepted");
    let mut all: Vec<Event> = Vec::new();
    while !matches!(all.last(), Some(Event::Tokens { choice: 1, .. })) {
        all.push(events.recv().expect("an event"));
    }
    ticket.cancel_choice(1);
    ticket.cancel_choice(7);
    go.send(()).expect("the engine waits");
    all.extend(events);
    let (found, finishes, last) = collect(all.into_iter(), 3);
    assert_eq!(finishes, [Finish::Cancelled, Finish::Length, Finish::Length]);
    assert!(found[0] == texts[0] && found[2] == texts[2]);
    assert_eq!(found[1], texts[1][..1]);
    assert!(matches!(last, Event::Done(_)));
    assert_eq!((engine.stats().blocks_used, engine.stats().finished), (0, 2));
}

#[test]
fn a_sink_that_panics_or_breaks_costs_only_its_own_request() {
    let (handle, _thread) = start(12, 4);
    let panics = handle.submit_to(Request::new(vec![1], 20), Box::new(|_| panic!("a careless client")));
    let breaks = handle.submit_to(Request::new(vec![2], 20), Box::new(|_| std::ops::ControlFlow::Break(())));
    let (tokens, _, _) = collect(handle.submit(Request::new(vec![3], 20)).unwrap(), 1);
    assert_eq!(tokens[0], greedy(&[3], 20));
    drop((panics, breaks));
    let stats = handle.stats();
    assert_eq!((stats.running, stats.blocks_used, stats.requests, stats.finished), (0, 0, 3, 3));
}

#[test]
fn choices_share_the_prompt_and_later_requests_find_it() {
    let (handle, _thread) = start(40, 4);
    let prompt: Vec<u32> = (0..40).collect();
    let request = Request { n: 3, ..Request::new(prompt.clone(), 5) };
    let (tokens, finishes, last) = collect(handle.submit(request.clone()).unwrap(), 3);
    assert!(tokens.iter().all(|tokens| *tokens == greedy(&prompt, 5)) && finishes.len() == 3);
    assert!(matches!(last, Event::Done(Usage { prompt: 40, cached: 0, generated: 15, .. })));
    // The second and third choice took two full pages each from the first.
    assert_eq!((handle.stats().prefix_queries, handle.stats().prefix_hits), (120, 64));
    let salted = Request { cache_salt: vec![7], ..request.clone() };
    assert!(matches!(collect(handle.submit(salted).unwrap(), 3).2, Event::Done(Usage { cached: 0, .. })));
    assert!(matches!(collect(handle.submit(request).unwrap(), 3).2, Event::Done(Usage { cached: 32, .. })));
}
