//! The owner thread: the one place that holds the model and all texts. Everyone else sends messages.

use super::handle::Message;
use super::{Part, PartSink, ReaderAdmission, ReaderConfig, ReaderHandle, Text};
use crate::engine::{Gauges, RequestId, add, change, set};
use crate::owner::{self, Deserted};
use crate::{Batch, BatchBuilder, BlockPool, Chunk, DeviceModel, Limits, Rows, RuntimeError, Sequence};
use sinter_ir::PAGE;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Instant;

/// A model with the texts that it is to read.
pub struct Reader {
    model: Box<dyn DeviceModel>,
    config: ReaderConfig,
    limits: Limits,
    /// The pages of a decoder; none for an encoder.
    pool: Option<BlockPool>,
    requests: BTreeMap<RequestId, Live>,
    /// The requests with texts that were not begun, in turn.
    turns: VecDeque<RequestId>,
    /// The texts that were begun and have not ended.
    running: Vec<Running>,
    gauges: Arc<Gauges>,
    /// Texts and tokens that wait, as the gauges say it.
    waiting: (usize, usize),
    messages: Receiver<Message>,
}

/// A request that has not ended.
struct Live {
    sink: PartSink,
    texts: Vec<Text>,
    /// Texts that were begun.
    begun: usize,
    /// Texts that have not ended.
    open: usize,
}

/// A text that is being read.
struct Running {
    id: RequestId,
    text: usize,
    /// The row of the step at which it begins; of an encoder.
    first: usize,
    /// Tokens that were read.
    read: usize,
    /// The pages for all of it; of a decoder.
    sequence: Sequence,
}

/// What a step does for one of the running texts.
struct Planned {
    running: usize,
    /// Its tokens are read up to here.
    to: usize,
    /// Its rows of the step.
    place: Range<usize>,
    /// Its rows of the result.
    found: Range<usize>,
}

impl Reader {
    /// Starts an owner thread for a model.
    ///
    /// # Errors
    /// The model writes texts, or its limits and the configuration do not go together.
    pub fn spawn(
        model: Box<dyn DeviceModel>,
        config: ReaderConfig,
    ) -> Result<(ReaderHandle, JoinHandle<()>), RuntimeError> {
        let (mut reader, handle) = Self::new(model, config)?;
        let thread = owner::start("reader", move || reader.serve())?;
        Ok((handle, thread))
    }

    /// A reader without a thread, for callers that step it themselves.
    pub fn new(
        model: Box<dyn DeviceModel>,
        config: ReaderConfig,
    ) -> Result<(Self, ReaderHandle), RuntimeError> {
        let limits = model.limits();
        let encoder = limits.pages == 0;
        check(model.result_name(), &limits, &config)?;
        let gauges = Arc::new(Gauges::new());
        set(&gauges.blocks_total, limits.pages);
        let most = if encoder { limits.max_tokens } else { limits.pages.saturating_mul(PAGE as usize) };
        let admission = ReaderAdmission {
            vocab: limits.vocab,
            capacity: limits.max_positions.min(most),
            max_requests: config.max_requests,
            max_waiting_tokens: config.max_waiting_tokens,
        };
        let (sender, messages) = channel();
        let handle = ReaderHandle::new(sender, gauges.clone(), admission, model.width());
        let pool = (!encoder).then(|| BlockPool::new(limits.pages));
        let (requests, turns, running, waiting) = Default::default();
        let reader =
            Self { model, config, limits, pool, requests, turns, running, gauges, waiting, messages };
        Ok((reader, handle))
    }

    /// Works until the last handle is gone or one says stop.
    pub fn serve(&mut self) {
        loop {
            match catch_unwind(AssertUnwindSafe(|| self.turn())) {
                Ok(true) => {}
                Ok(false) => break,
                Err(panic) => self.fail_all(&RuntimeError::Panic(crate::host::panic_text(&*panic))),
            }
        }
        self.fail_all(&RuntimeError::Stopped);
        self.gauges.stopped.store(true, Relaxed);
    }

    /// Reads the messages that have come, waits for one if there are no texts, and computes a step; false at the end.
    pub fn turn(&mut self) -> bool {
        let goes_on = self.listen();
        if goes_on {
            self.step();
        }
        goes_on
    }

    /// Computes one step, if anything is to be read.
    fn step(&mut self) {
        self.begin();
        self.publish();
        let (batch, planned) = self.plan();
        if planned.is_empty() {
            return;
        }
        let gone = self.compute(&batch, &planned);
        gone.into_iter().for_each(|id| self.forget(id));
        self.end();
        self.publish();
    }

    /// Reads the messages that have come, waiting for one if there is nothing to read; false at the end.
    fn listen(&mut self) -> bool {
        loop {
            let idle = self.requests.is_empty();
            match owner::next(&self.messages, idle, &self.gauges) {
                Ok(Some(Message::Submit(id, texts, sink))) => self.submit(id, texts, sink),
                Ok(Some(Message::Cancel(id))) => self.forget(id),
                Ok(Some(Message::Stop)) | Err(Deserted) => return false,
                Ok(None) if idle => {}
                Ok(None) => return true,
            }
        }
    }

    fn submit(&mut self, id: RequestId, texts: Vec<Text>, sink: PartSink) {
        self.waiting.0 += texts.len();
        self.waiting.1 += texts.iter().map(|text| text.ids.len()).sum::<usize>();
        self.turns.push_back(id);
        self.requests.insert(id, Live { sink, open: texts.len(), texts, begun: 0 });
    }

    /// Begins the texts that the next step has room for, one of each request in turn.
    fn begin(&mut self) {
        let mut end = 0;
        while self.running.len() < self.config.texts {
            let Some(id) = self.turns.front().copied() else { return };
            let Some(live) = self.requests.get_mut(&id) else { return };
            let text = &live.texts[live.begun];
            let (mut sequence, mut first) = (Sequence::new(), 0);
            if let Some(pool) = &mut self.pool {
                // Without the pages for all of it, it waits for those who have them.
                if sequence.extend(&text.ids, pool).is_err() {
                    return;
                }
            } else {
                first = self.config.grid.place(end, text.ids.len());
                if first + text.ids.len() > self.config.step_tokens && !self.running.is_empty() {
                    return;
                }
            }
            end = first + text.ids.len();
            self.running.push(Running { id, text: live.begun, first, read: 0, sequence });
            live.begun += 1;
            let more = live.begun < live.texts.len();
            self.turns.pop_front();
            self.turns.extend(more.then_some(id));
        }
    }

    /// The next step: all of an encoder's texts, the next chunks of a decoder's, the oldest first.
    fn plan(&self) -> (Batch, Vec<Planned>) {
        let by_token = self.pool.is_none() && self.model.result_name() == "hidden";
        let (mut builder, mut planned, mut found) = (BatchBuilder::new(), Vec::new(), 0);
        let mut left = self.limits.max_tokens;
        for (at, running) in self.running.iter().enumerate() {
            let text = self.text(running);
            let (from, to) = (running.read, text.ids.len().min(running.read + left));
            if from == to {
                break;
            }
            left -= to - from;
            let wanted = text.rows_of(from, to);
            if self.pool.is_none() {
                builder.pad_to(running.first);
            }
            let rows = if by_token { Rows::None } else { wanted };
            let (tokens, pages) = (&text.ids[from..to], running.sequence.pages());
            let place = builder.push(Chunk { tokens, start: from, pages, rows });
            let own = wanted_of(wanted, &place);
            let count = own.len();
            let of_result = if by_token { own } else { found..found + count };
            found += count;
            planned.push(Planned { running: at, to, place, found: of_result });
        }
        let mut batch = builder.finish();
        for Planned { running, to, place, .. } in &planned {
            let running = &self.running[*running];
            batch.types[place.clone()].copy_from_slice(&self.text(running).types[running.read..*to]);
        }
        (batch, planned)
    }

    fn text(&self, running: &Running) -> &Text {
        // A text runs only as long as its request.
        &self.requests[&running.id].texts[running.text]
    }

    /// Runs the model and tells the clients what it gave; gives the requests of those who take no more.
    fn compute(&mut self, batch: &Batch, planned: &[Planned]) -> Vec<RequestId> {
        let (width, started) = (self.model.width(), Instant::now());
        let stepped = self.model.step(batch);
        self.gauges.step(planned.iter().map(|planned| planned.place.len()).sum(), started.elapsed());
        let rows = match stepped {
            Ok(rows) => rows,
            Err(error) => {
                let failed: Vec<_> = planned.iter().map(|planned| self.running[planned.running].id).collect();
                failed.into_iter().for_each(|id| self.fail(id, &error));
                return Vec::new();
            }
        };
        let mut gone = Vec::new();
        for Planned { running, to, found, .. } in planned {
            let running = &mut self.running[*running];
            running.read = *to;
            let Some(live) = self.requests.get_mut(&running.id).filter(|_| !found.is_empty()) else {
                continue;
            };
            let rows = &rows[found.start * width..found.end * width];
            if !tell(&mut live.sink, Part::Rows { text: running.text, rows }) {
                gone.push(running.id);
            }
        }
        gone
    }

    /// Ends the texts that were read to their end, and the requests with their last text.
    fn end(&mut self) {
        let (ended, running) = std::mem::take(&mut self.running)
            .into_iter()
            .partition(|running| running.read == self.text(running).ids.len());
        self.running = running;
        let ended: Vec<Running> = ended;
        for mut running in ended {
            self.release(&mut running);
            let Some(live) = self.requests.get_mut(&running.id) else { continue };
            live.open -= 1;
            if live.open == 0
                && let Some(mut live) = self.requests.remove(&running.id)
            {
                // Counted first, so that a client that reads the gauges after its end finds itself there.
                add(&self.gauges.finished, 1);
                tell(&mut live.sink, Part::Done);
            }
        }
    }

    fn release(&mut self, running: &mut Running) {
        if let Some(pool) = &mut self.pool {
            let released = running.sequence.release(pool);
            debug_assert!(released.is_ok(), "the pages of a text are its own: {released:?}");
        }
    }

    /// Takes a request out: nothing of it is computed or held any more.
    fn take(&mut self, id: RequestId) -> Option<Live> {
        let (own, others): (Vec<_>, _) =
            std::mem::take(&mut self.running).into_iter().partition(|running| running.id == id);
        self.running = others;
        own.into_iter().for_each(|mut running| self.release(&mut running));
        self.turns.retain(|turn| *turn != id);
        let live = self.requests.remove(&id)?;
        self.publish();
        add(&self.gauges.finished, 1);
        Some(live)
    }

    /// Drops a request whose client is gone.
    fn forget(&mut self, id: RequestId) {
        drop(self.take(id));
    }

    fn fail(&mut self, id: RequestId, error: &RuntimeError) {
        if let Some(mut live) = self.take(id) {
            add(&self.gauges.failed, 1);
            tell(&mut live.sink, Part::Failed(error));
        }
    }

    fn fail_all(&mut self, error: &RuntimeError) {
        self.requests.keys().copied().collect::<Vec<_>>().into_iter().for_each(|id| self.fail(id, error));
    }

    /// Writes the gauges. Handles add to the waiting, so only the change since the last time is written there.
    fn publish(&mut self) {
        let waiting = self.turns.iter().filter_map(|id| self.requests.get(id));
        let texts = waiting.flat_map(|live| &live.texts[live.begun..]);
        let (count, tokens) =
            texts.fold((0, 0), |(count, tokens), text| (count + 1, tokens + text.ids.len()));
        change(&self.gauges.waiting, self.waiting.0, count);
        change(&self.gauges.waiting_tokens, self.waiting.1, tokens);
        self.waiting = (count, tokens);
        set(&self.gauges.running, self.running.len());
        if let Some(pool) = &self.pool {
            set(&self.gauges.blocks_used, pool.total() - pool.free());
        }
    }
}

/// Refuses limits and a configuration that do not go together.
fn check(result: &str, limits: &Limits, config: &ReaderConfig) -> Result<(), RuntimeError> {
    let refuse = |reason: String| Err(RuntimeError::Parameter(reason));
    if result == "logits" {
        return refuse("a model that writes texts has no vectors or scores for a reader".into());
    }
    let sequences = config.texts + usize::from(limits.pages == 0);
    if config.texts == 0 || sequences > limits.max_sequences {
        let most = limits.max_sequences;
        return refuse(format!("{} texts in a step, the model has {most} sequences", config.texts));
    }
    if config.step_tokens > limits.max_tokens {
        let most = limits.max_tokens;
        return refuse(format!("{} tokens in a step, the model has {most}", config.step_tokens));
    }
    Ok(())
}

/// The rows of a text that are wanted, of those that it has in the step.
fn wanted_of(wanted: Rows, place: &Range<usize>) -> Range<usize> {
    match wanted {
        Rows::None => place.start..place.start,
        Rows::First => place.start..place.start + 1,
        Rows::Last => place.end - 1..place.end,
        Rows::All => place.clone(),
    }
}

/// Tells a client; false if it takes no more. A sink that panics is its own client's trouble.
fn tell(sink: &mut PartSink, part: Part<'_>) -> bool {
    catch_unwind(AssertUnwindSafe(|| sink(part))).is_ok_and(|taken| taken.is_continue())
}
