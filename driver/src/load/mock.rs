//! A server for the tests of its clients: as small as HTTP allows.

use super::options::LoadArgs;
use super::run::load;
use crate::cli::bench::{BenchServeArgs, BenchWhat};
use crate::cli::{BenchArgs, Cli, Command};
use crate::output::Output;
use clap::Parser;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Every third answer is refused.
    Refuses,
    /// Every third stream ends in the middle.
    BreaksOff,
    /// Every answer is another one.
    Fickle,
}

fn serve(fault: Fault) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    std::thread::spawn(move || {
        loop {
            let (stream, _) = listener.accept().unwrap();
            let count = count.clone();
            std::thread::spawn(move || answer(stream, fault, count));
        }
    });
    format!("http://{address}")
}

/// Answers one request of a connection and closes it.
fn answer(mut stream: TcpStream, fault: Fault, count: Arc<AtomicUsize>) {
    let mut request = Vec::new();
    let body = loop {
        let mut piece = [0; 4096];
        let read = stream.read(&mut piece).unwrap();
        if read == 0 {
            return;
        }
        request.extend_from_slice(&piece[..read]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head
            .to_lowercase()
            .split("content-length: ")
            .nth(1)
            .map_or(0, |rest| rest.split("\r\n").next().unwrap_or_default().parse::<usize>().unwrap());
        if body.len() >= length {
            break body.to_owned();
        }
    };
    let head = String::from_utf8_lossy(&request[..20]).into_owned();
    if head.starts_with("GET /v1/models") {
        return reply(&mut stream, "200 OK", r#"{"data":[{"id":"mock"}]}"#);
    }
    if head.starts_with("GET") {
        return reply(&mut stream, "200 OK", r#"{"vocab_size":100}"#);
    }
    let number = count.fetch_add(1, Relaxed);
    let value: serde_json::Value = serde_json::from_str(&body).unwrap();
    let tokens = value["max_tokens"].as_u64().unwrap();
    if fault == Fault::Refuses && number % 3 == 2 {
        return reply(&mut stream, "429 Too Many", r#"{"error":{"message":"full"}}"#);
    }
    let kind = "content-type: text/event-stream\r\nconnection: close";
    stream.write_all(format!("HTTP/1.1 200 OK\r\n{kind}\r\n\r\n").as_bytes()).unwrap();
    for at in 0..tokens {
        let other = if fault == Fault::Fickle { number } else { 0 };
        let event = format!("data: {{\"choices\":[{{\"text\":\"{at}-{other} \"}}]}}\n\n");
        stream.write_all(event.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(2));
        if fault == Fault::BreaksOff && number % 3 == 2 && at == 2 {
            return;
        }
    }
    let prompt = value["prompt"].as_array().unwrap().len();
    let usage = format!("{{\"prompt_tokens\":{prompt},\"completion_tokens\":{tokens}}}");
    let end = format!("data: {{\"choices\":[],\"usage\":{usage}}}\n\ndata: [DONE]\n\n");
    stream.write_all(end.as_bytes()).unwrap();
}

fn reply(stream: &mut TcpStream, status: &str, body: &str) {
    let length = body.len();
    let text = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
    stream.write_all(text.as_bytes()).unwrap();
}

/// The arguments of a command line.
fn args(line: &str) -> BenchServeArgs {
    let line = format!("sinter bench m serve --prompt 5 {line}");
    let command = Cli::try_parse_from(line.split_whitespace()).unwrap().command;
    match command {
        Command::Bench(BenchArgs { what: Some(BenchWhat::Serve(args)), .. }) => args,
        other => panic!("{other:?} is no bench"),
    }
}

async fn report(fault: Fault, line: &str) -> super::report::Report {
    let url = serve(fault);
    load(&args(line), &url, &Output::new(true)).await.unwrap()
}

#[tokio::test]
async fn clients_in_a_closed_loop_see_every_answer() {
    let report =
        report(Fault::None, "--requests 12 --concurrency 4 --output 6 --goodput ttft:60000,e2e:1").await;
    let figures = &report.figures;
    assert_eq!((figures.completed, figures.failed), (12, 0));
    assert_eq!((figures.output_tokens, figures.prompt_tokens), (72, 60));
    assert_eq!((report.check.asked, report.check.different), (4, 0));
    // Six events at least two milliseconds apart, so none ends within one millisecond.
    assert_eq!(figures.goodput_per_second, Some(0.0));
    assert_eq!(figures.itl.unwrap().count, 60);
    assert!(figures.itl.unwrap().mean_ms >= 2.0 && figures.e2e.unwrap().median_ms >= 10.0);
    assert!(report.text().contains("4 answers asked for again alone are the same"));
    let drawing = super::plot::svg(&report);
    assert!(drawing.starts_with("<svg") && drawing.ends_with("</svg>\n") && !drawing.contains("NaN"));
}

#[tokio::test]
async fn requests_in_an_open_loop_do_not_wait_for_answers() {
    let report = report(Fault::None, "--requests 20 --rate 200 --output 40").await;
    assert_eq!(report.figures.completed, 20);
    // Each answer takes 80 ms and more: one after the other they would take 1.6 s, but they come within 0.1 s or so.
    let sent = report.answers.iter().map(|answer| answer.as_ref().unwrap().sent);
    let first_end = report.answers[0].as_ref().unwrap().e2e().unwrap();
    assert!(sent.filter(|sent| *sent < first_end).count() > 5);
}

#[tokio::test]
async fn failures_are_counted_with_their_reasons() {
    let refused = report(Fault::Refuses, "--requests 9 --concurrency 1 --output 4 --check 0").await;
    assert_eq!((refused.figures.completed, refused.figures.failed), (6, 3));
    assert_eq!(refused.json()["errors"]["429 Too Many Requests: full"], 3);
    let broken = report(Fault::BreaksOff, "--requests 9 --concurrency 1 --output 4 --check 0").await;
    assert_eq!((broken.figures.completed, broken.figures.failed), (6, 3));
    assert!(broken.reasons().contains("broke off"), "{}", broken.reasons());
}

#[tokio::test]
async fn answers_that_differ_alone_are_found() {
    let report = report(Fault::Fickle, "--requests 6 --concurrency 2 --output 3 --check 3").await;
    assert_eq!((report.check.asked, report.check.different), (3, 3));
    assert!(report.text().contains("FAILED"));
}

#[test]
fn checked_answers_are_spread_over_the_run() {
    let LoadArgs { requests, check, .. } = args("--requests 10 --check 4").load;
    assert_eq!(super::run::checked(requests, check), [2, 4, 7, 9]);
    assert_eq!(super::run::checked(3, 9), [0, 1, 2]);
    assert!(super::run::checked(3, 0).is_empty());
}
