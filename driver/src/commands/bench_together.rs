//! `sinter bench decode --sequences N`: the engine's speed with N sequences beside its speed with one.
//!
//! Both are taken in turn in one run, on the same engine. The check beside the speed: every sequence gives the same
//! tokens alone and in company.

use super::bench::{Measure, measure, random_tokens};
use crate::cli::bench::Speed;
use crate::load::statistics::percentile;
use crate::output::Output;
use crate::pipeline::Program;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sinter_ir::PAGE;
use sinter_runtime::Limits;
use sinter_runtime::engine::{Engine, EngineConfig, EngineHandle, Event, Request, Ticket};
use std::ops::ControlFlow;
use std::sync::mpsc::channel;
use std::time::Instant;

/// The tokens of one answer, and when each came.
type Answer = Vec<(u32, Instant)>;

pub(super) fn together(args: &Speed, program: &Program, output: &Output) -> Result<Value> {
    let count = args.sequences;
    let decode = args.decode.min(program.info.context.saturating_sub(2)).max(2);
    let limits = Limits {
        vocab: program.info.vocab,
        max_positions: (decode + 2).min(program.info.context),
        max_tokens: count.max(16),
        max_sequences: count,
        // One more each than they fill: a sequence is let in when it leaves room for those that grow.
        pages: count * ((decode + 2).div_ceil(PAGE as usize) + 1),
    };
    // Without the prefix cache: no sequence begins like another, and none shall profit from an earlier round.
    let config = EngineConfig { prefix_cache: false, max_rows: count.max(16), ..EngineConfig::default() };
    let (engine, _) = Engine::spawn(program.load_with(limits, false)?, config)?;
    let firsts = random_tokens(program, count);
    let bar = output.progress("measuring", args.repetitions as u64 * 2);
    let alone = ask(&engine, &firsts[..1], decode)?;
    let company = ask(&engine, &firsts, decode)?;
    let (mut one, mut many, mut equal) = (Vec::new(), Vec::new(), ids(&alone[0]) == ids(&company[0]));
    for round in 0..args.repetitions {
        let at = round % count;
        let alone = ask(&engine, &firsts[at..=at], decode)?;
        bar.inc(1);
        let together = ask(&engine, &firsts, decode)?;
        bar.inc(1);
        equal &= ids(&alone[0]) == ids(&together[at]);
        equal &= together.iter().zip(&company).all(|(now, before)| ids(now) == ids(before));
        one.push(seconds_a_token(&alone)?);
        many.push(seconds_a_token(&together)?);
    }
    bar.finish_and_clear();
    engine.stop();
    let mut ratios: Vec<f64> = one.iter().zip(&many).map(|(one, many)| one / many).collect();
    ratios.sort_by(f64::total_cmp);
    let (one, many) = (scaled(one, decode), scaled(many, count * decode));
    Ok(json!({
        "single": one,
        "together": many,
        "sequences": count,
        "ratio": percentile(&ratios, 50.0),
        "together_equals_alone": equal,
    }))
}

/// A measure of so many tokens, of the seconds that each took.
fn scaled(seconds_a_token: Vec<f64>, tokens: usize) -> Measure {
    measure(tokens, seconds_a_token.into_iter().map(|seconds| seconds * tokens as f64).collect())
}

/// Asks all at once and waits for all. The engine's own thread writes down when a token came.
fn ask(engine: &EngineHandle, firsts: &[u32], decode: usize) -> Result<Vec<Answer>> {
    let (sender, receiver) = channel();
    let submit = |(at, first): (usize, &u32)| -> Result<Ticket> {
        let (sender, mut answer) = (sender.clone(), Answer::new());
        let sink = move |event: Event| {
            match event {
                Event::Tokens { tokens, .. } => {
                    let now = Instant::now();
                    answer.extend(tokens.into_iter().map(|token| (token.id, now)));
                }
                // If nobody waits any more, nobody wants to know.
                Event::Done(_) => drop(sender.send((at, Ok(std::mem::take(&mut answer))))),
                Event::Failed(error) => drop(sender.send((at, Err(error)))),
                _ => {}
            }
            ControlFlow::Continue(())
        };
        Ok(engine.submit_to(Request::new(vec![*first], decode + 1), Box::new(sink))?)
    };
    let tickets = firsts.iter().enumerate().map(submit).collect::<Result<Vec<_>>>()?;
    let mut answers = vec![Answer::new(); firsts.len()];
    for _ in firsts {
        let (at, answer) = receiver.recv().context("the engine has stopped")?;
        answers[at] = answer?;
    }
    drop(tickets);
    Ok(answers)
}

fn ids(answer: &[(u32, Instant)]) -> Vec<u32> {
    answer.iter().map(|(id, _)| *id).collect()
}

/// Seconds a token while all sequences were there: from the moment when the last got its first token to the moment when
/// the first got its last.
fn seconds_a_token(answers: &[Answer]) -> Result<f64> {
    let begin = answers.iter().filter_map(|answer| answer.first()).map(|(_, at)| *at).max();
    let end = answers.iter().filter_map(|answer| answer.last()).map(|(_, at)| *at).min();
    let (begin, end) = begin.zip(end).context("no token came")?;
    let between = |(_, at): &&(u32, Instant)| begin < *at && *at <= end;
    let tokens = answers.iter().flatten().filter(between).count();
    ensure!(tokens >= answers.len(), "the sequences were never together; decode more tokens");
    Ok((end - begin).as_secs_f64() / tokens as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn only_the_time_together_counts() {
        let start = Instant::now();
        let at = |tenths: u64| (0, start + Duration::from_millis(100 * tenths));
        // Both are there from 2 to 6: tokens at 3, 4, 5, 6 of the first and 4, 6 of the second.
        let answers = [(1..=6).map(at).collect(), [2, 4, 6, 8].map(at).to_vec()];
        assert!((seconds_a_token(&answers).unwrap() - 0.4 / 6.0).abs() < 1e-9);
        assert!(seconds_a_token(&[vec![at(1)], vec![at(2)]]).is_err());
        assert!(seconds_a_token(&[]).is_err());
    }
}
