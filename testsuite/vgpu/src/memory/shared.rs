//! The shared memory of a block, with the history that finds races.
//!
//! Every word remembers who wrote it last and who has read it since, with the logical time of each (the epochs of
//! FastTrack, Flanagan and Freund 2009). Those who act are *agents*: the warps of a cluster, and behind them the
//! asynchronous copies and matrix products, which run beside the warp that started them. An access is in order if the
//! agent's clock has seen the epochs that it conflicts with. Accesses of bytes of one word by several agents are told
//! apart by bytes.

use super::SHARED_BASE;
use std::collections::BTreeMap;

/// The most agents of a cluster that can be told apart.
pub const MOST_AGENTS: usize = 128;
/// Several lanes of a warp.
pub const SEVERAL: u8 = 255;

/// Who touches memory, and what has happened before.
#[derive(Clone, Copy)]
pub struct Who<'a> {
    /// The agent.
    pub agent: usize,
    /// The lane within a warp.
    pub lane: u8,
    /// How often the warp's lanes have met at `bar.warp.sync` or a barrier.
    pub meetings: u32,
    /// What each agent had done when it was last heard of.
    pub clock: &'a [u32],
    /// The same for what a proxy fence has made visible to asynchronous copies.
    pub fenced: &'a [u32],
    /// Whether the access is one of the asynchronous proxy.
    pub asynchronous: bool,
    /// The PTX line.
    pub line: u32,
}

/// The last write of a word.
#[derive(Clone, Copy, Default)]
struct Mark {
    clock: u32,
    meetings: u32,
    line: u32,
    agent: u16,
    lane: u8,
    /// The bytes.
    bytes: u8,
    asynchronous: bool,
    /// Whether the bytes have marks of their own.
    split: bool,
}

/// A word with its history.
#[derive(Clone, Copy, Default)]
struct Cell {
    /// The agents that have read it since its last write.
    readers: u128,
    word: u32,
    mark: Mark,
    /// The low four bits: bytes that were written. The high four: bytes to which a copy is under way.
    state: u8,
    /// The bytes that were read since the last write.
    read_bytes: u8,
}

/// The shared memory of a block.
pub struct Shared {
    bytes: u32,
    cells: Vec<Cell>,
    /// Marks by byte, of words whose mark says so.
    splits: BTreeMap<usize, [Mark; 4]>,
    /// The clock of each reader, by word and agent.
    read_clocks: Vec<u32>,
    agents: usize,
}

fn bit_mask(bits: u8) -> u32 {
    (0..4).filter(|byte| bits >> byte & 1 == 1).map(|byte| 0xff << (8 * byte)).sum()
}

impl Shared {
    /// Memory of so many bytes, for so many agents.
    pub fn new(bytes: u32, agents: usize) -> Shared {
        let words = bytes.div_ceil(4) as usize;
        Shared {
            bytes,
            cells: vec![Cell::default(); words],
            splits: BTreeMap::new(),
            read_clocks: vec![0; words * agents],
            agents,
        }
    }

    /// Forgets everything, for the next block.
    pub fn reset(&mut self) {
        self.cells.fill(Cell::default());
        self.splits.clear();
    }

    /// The word index and byte mask of up to four bytes.
    #[inline(always)]
    fn place(&self, address: u32, bytes: u32) -> Result<(usize, u8), String> {
        let offset = address.wrapping_sub(SHARED_BASE);
        if u64::from(offset) + u64::from(bytes) > u64::from(self.bytes) {
            return Err(self.outside(address, bytes));
        }
        Ok(((offset / 4) as usize, (((1u32 << bytes) - 1) << (offset & 3)) as u8))
    }

    #[cold]
    fn outside(&self, address: u32, bytes: u32) -> String {
        let end = SHARED_BASE + self.bytes;
        format!("{bytes} bytes at shared address {address:#x} are outside of {SHARED_BASE:#x}..{end:#x}")
    }

    /// Checks that a range is inside.
    pub fn check_range(&self, address: u32, bytes: u32) -> Result<(), String> {
        let offset = address.wrapping_sub(SHARED_BASE);
        if u64::from(offset) + u64::from(bytes) > u64::from(self.bytes) {
            return Err(self.outside(address, bytes));
        }
        Ok(())
    }

    /// Reads one, two or four bytes at an aligned address.
    #[inline(always)]
    pub fn load(&mut self, who: &Who, address: u32, bytes: u32) -> Result<u32, String> {
        let (at, mask) = self.place(address, bytes)?;
        if self.cells[at].state & (mask | mask << 4) != mask {
            return Err(self.not_there(at, mask, address));
        }
        self.check_after_write(who, at, mask, address, false)?;
        if self.cells[at].readers == 0 {
            self.cells[at].read_bytes = 0;
        }
        self.cells[at].readers |= 1 << who.agent;
        self.cells[at].read_bytes |= mask;
        self.read_clocks[at * self.agents + who.agent] = who.clock[who.agent];
        let word = self.cells[at].word >> (8 * (address & 3));
        Ok(if bytes == 4 { word } else { word & ((1 << (8 * bytes)) - 1) })
    }

    /// Reads whole words one after the other.
    #[inline(always)]
    pub fn load_words(&mut self, who: &Who, address: u32, out: &mut [u32]) -> Result<(), String> {
        let (first, _) = self.place(address, 4 * out.len() as u32)?;
        let (agents, now) = (self.agents, who.clock[who.agent]);
        for (at, out) in (first..).zip(out.iter_mut()) {
            let cell = &mut self.cells[at];
            if cell.state != 15 || cell.mark.split || !in_order(who, &cell.mark) {
                *out = self.load(who, address + 4 * (at - first) as u32, 4)?;
                continue;
            }
            *out = cell.word;
            cell.readers |= 1 << who.agent;
            cell.read_bytes = 15;
            self.read_clocks[at * agents + who.agent] = now;
        }
        Ok(())
    }

    /// Writes one, two or four bytes at an aligned address.
    #[inline(always)]
    pub fn store(&mut self, who: &Who, address: u32, bytes: u32, value: u32) -> Result<(), String> {
        let (at, mask) = self.place(address, bytes)?;
        if self.cells[at].state & mask << 4 != 0 {
            return Err(self.not_there(at, mask, address));
        }
        self.note_write(who, at, mask, address)?;
        self.put(at, mask, value << (8 * (address & 3)));
        Ok(())
    }

    #[inline(always)]
    fn put(&mut self, at: usize, mask: u8, value: u32) {
        if mask == 15 {
            self.cells[at].word = value;
            self.cells[at].state = 15;
        } else {
            let part = bit_mask(mask);
            self.cells[at].word = self.cells[at].word & !part | value & part;
            self.cells[at].state = (self.cells[at].state | mask) & !(mask << 4);
        }
    }

    #[cold]
    fn not_there(&self, at: usize, mask: u8, address: u32) -> String {
        if self.cells[at].state >> 4 & mask != 0 {
            let line = self.cells[at].mark.line;
            return format!(
                "shared address {address:#x} is the target of an asynchronous copy (PTX line {line}) that was not waited for"
            );
        }
        format!("shared address {address:#x} was never written: an uninitialised read")
    }

    /// Checks that the last write of some bytes of a word happened before.
    #[inline(always)]
    fn check_after_write(
        &self,
        who: &Who,
        at: usize,
        mask: u8,
        address: u32,
        writes: bool,
    ) -> Result<(), String> {
        let mark = &self.cells[at].mark;
        if mark.split {
            return self.check_split(who, at, mask, address, writes);
        }
        if in_order(who, mark) || mark.bytes & mask == 0 {
            return Ok(());
        }
        Err(race(who, mark, address, writes))
    }

    #[cold]
    fn check_split(&self, who: &Who, at: usize, mask: u8, address: u32, writes: bool) -> Result<(), String> {
        let Some(marks) = self.splits.get(&at) else { return Ok(()) };
        for (byte, mark) in marks.iter().enumerate() {
            if mask >> byte & 1 == 1 && !in_order(who, mark) {
                return Err(race(who, mark, address, writes));
            }
        }
        Ok(())
    }

    /// Checks a write against what happened before and notes it.
    #[inline(always)]
    fn note_write(&mut self, who: &Who, at: usize, mask: u8, address: u32) -> Result<(), String> {
        self.check_after_write(who, at, mask, address, true)?;
        if self.cells[at].readers & !(1 << who.agent) != 0 && self.cells[at].read_bytes & mask != 0 {
            self.check_after_reads(who, at, address)?;
        }
        let new = Mark {
            clock: who.clock[who.agent],
            meetings: who.meetings,
            line: who.line,
            agent: who.agent as u16,
            lane: who.lane,
            bytes: mask,
            asynchronous: who.asynchronous,
            split: false,
        };
        if mask == 15 {
            self.cells[at].mark = new;
            self.cells[at].readers = 0;
        } else {
            self.note_part(new, at, mask);
        }
        Ok(())
    }

    fn note_part(&mut self, new: Mark, at: usize, mask: u8) {
        let old = self.cells[at].mark;
        // Bytes that were written at another time keep a mark of their own.
        let when = |mark: Mark| (mark.agent, mark.lane, mark.asynchronous, mark.meetings, mark.clock);
        let same = when(old) == when(new);
        if old.bytes == 0 || (same && !old.split) {
            self.cells[at].mark = Mark { bytes: old.bytes | mask, ..new };
            return;
        }
        let marks = self.splits.entry(at).or_insert([old; 4]);
        if !old.split {
            *marks = [0, 1, 2, 3].map(|byte| if old.bytes >> byte & 1 == 1 { old } else { Mark::default() });
        }
        for (byte, mark) in marks.iter_mut().enumerate() {
            if mask >> byte & 1 == 1 {
                *mark = new;
            }
        }
        self.cells[at].mark = Mark { split: true, bytes: old.bytes | mask, lane: SEVERAL, ..new };
    }

    #[cold]
    fn check_after_reads(&self, who: &Who, at: usize, address: u32) -> Result<(), String> {
        for agent in (0..self.agents).filter(|agent| self.cells[at].readers >> agent & 1 == 1) {
            if agent != who.agent && self.read_clocks[at * self.agents + agent] > who.clock[agent] {
                return Err(format!(
                    "race: shared address {address:#x} is written while agent {agent} may still read it: no barrier \
                     stands between its read and this write"
                ));
            }
        }
        Ok(())
    }

    /// Notes that a copy to a range of whole words starts.
    pub fn start_copy(&mut self, who: &Who, address: u32, bytes: u32) -> Result<(), String> {
        self.check_range(address, bytes)?;
        for part in (0..bytes).step_by(4) {
            let (at, mask) = self.place(address + part, 4.min(bytes - part))?;
            if self.cells[at].state >> 4 & mask != 0 {
                return Err(self.not_there(at, mask, address + part));
            }
            self.note_write(who, at, mask, address + part)?;
            self.cells[at].state = (self.cells[at].state & !mask) | mask << 4;
        }
        Ok(())
    }

    /// Ends a copy: a word with the bytes of it that the source had set.
    pub fn end_copy(&mut self, who: &Who, address: u32, value: u32, set: u8) {
        let at = (address.wrapping_sub(SHARED_BASE) / 4) as usize;
        if at < self.cells.len() {
            self.cells[at].word = value;
            self.cells[at].state = set & 15;
            self.cells[at].mark.clock = who.clock[who.agent];
            self.cells[at].mark.agent = who.agent as u16;
            self.cells[at].mark.lane = who.lane;
            self.cells[at].mark.meetings = who.meetings;
        }
    }
}

/// Whether a write happened before.
#[inline(always)]
fn in_order(who: &Who, mark: &Mark) -> bool {
    let agent = usize::from(mark.agent);
    if who.asynchronous && !mark.asynchronous && mark.clock > who.fenced[agent] {
        return false;
    }
    if agent == who.agent {
        return mark.lane == who.lane
            || mark.lane == SEVERAL
            || mark.meetings < who.meetings
            || who.lane == SEVERAL
            || mark.clock == 0;
    }
    mark.clock <= who.clock[agent]
}

#[cold]
fn race(who: &Who, mark: &Mark, address: u32, writes: bool) -> String {
    let what = if writes { "written" } else { "read" };
    let (line, agent, lane) = (mark.line, mark.agent, mark.lane);
    if who.asynchronous && !mark.asynchronous && mark.clock <= who.clock[usize::from(agent)] {
        return format!(
            "shared address {address:#x} is {what} by the asynchronous proxy, and no fence.proxy.async stands after the \
             write of PTX line {line}"
        );
    }
    if usize::from(agent) == who.agent {
        return format!(
            "race: shared address {address:#x} is {what} after lane {lane} of the same warp wrote it (PTX line {line}): no \
             bar.warp.sync stands between"
        );
    }
    format!(
        "race: shared address {address:#x} is {what} while agent {agent} writes it (PTX line {line}): no barrier stands \
         between"
    )
}
