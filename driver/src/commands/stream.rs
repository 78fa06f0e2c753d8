//! The events of one answer, as text on the terminal.

use crate::output::Output;
use crate::text::finish_word;
use crate::text_stream::TextStream;
use anyhow::Result;
use sinter_runtime::Finish;
use sinter_runtime::engine::{Event, Events, Usage};
use std::time::Instant;

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    /// Its text.
    pub(super) text: String,
    /// Its tokens.
    pub(super) tokens: Vec<u32>,
    /// Why it ended, as one word.
    pub(super) finish: &'static str,
    /// When the first token came.
    pub(super) first: Option<Instant>,
    /// What it took.
    pub(super) usage: Usage,
}

/// Follows the first choice of a request to its end and prints it to `output`, if there is one, as it comes. An error,
/// such as a closed pipe, cancels the request.
pub(super) fn follow(mut events: Events, mut text: TextStream, output: Option<&Output>) -> Result<Answer> {
    let mut answer =
        Answer { text: String::new(), tokens: Vec::new(), finish: "", first: None, usage: Usage::default() };
    let show = |piece: &str, all: &mut String| {
        all.push_str(piece);
        output.filter(|_| !piece.is_empty()).map_or(Ok(()), |output| output.write(piece))
    };
    let mut finish = Finish::Cancelled;
    while let Some(event) = events.next() {
        match event {
            Event::Tokens { tokens, .. } => {
                for token in tokens.into_iter().filter(|_| answer.finish.is_empty()) {
                    answer.first.get_or_insert_with(Instant::now);
                    answer.tokens.push(token.id);
                    let piece = text.push(token.id)?;
                    show(&piece.text, &mut answer.text)?;
                    if piece.stop.is_some() {
                        answer.finish = "stop";
                        events.ticket().cancel();
                    }
                }
            }
            Event::Finished { finish: reason, .. } => finish = reason,
            Event::Done(usage) => answer.usage = usage,
            Event::Failed(error) => return Err(error.into()),
            Event::Prompt(_) => {}
        }
    }
    if answer.finish.is_empty() {
        let piece = text.finish()?;
        show(&piece.text, &mut answer.text)?;
        answer.finish = if piece.stop.is_some() { "stop" } else { finish_word(finish) };
    }
    Ok(answer)
}
