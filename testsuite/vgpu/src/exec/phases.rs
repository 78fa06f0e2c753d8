//! mbarriers in shared memory, and who learns what from them.

use super::block::{Machine, Then};
use super::clock::Clock;
use super::memory::{Target, lanes_of, who};
use super::op::Inst;
use super::program::{Arg, Reg};
use super::warp::{State, Warp};
use crate::async_copy::Mbarrier;
use crate::fault::Wrong;
use crate::forms::LANES;
use crate::forms::copies::Barrier as Form;
use crate::forms::memory::Space;

/// What the eight bytes of an mbarrier hold here: enough to see that something else was written over it.
const MARK: [u32; 2] = [0x7261_626d, 0x7265_6972];

/// An mbarrier.
pub(super) struct Phased {
    object: Mbarrier,
    /// What those know who have arrived in this phase.
    arriving: Clock,
    /// What all knew who arrived in the phases that are over.
    released: Clock,
    /// The warp that made it, until a fence shows it to the asynchronous proxy.
    hidden: Option<usize>,
}

impl Phased {
    /// The phases that are over.
    pub(super) fn phase(&self) -> u64 {
        self.object.phase()
    }

    /// What the phase still waits for, in words.
    pub(super) fn lacks(&self) -> String {
        format!("{} arrivals and {} bytes", self.object.pending(), self.object.transactions())
    }

    /// Bytes of a copy by an agent have come, at a time of its own.
    pub(super) fn complete(&mut self, agent: usize, time: u32, bytes: u32) -> Result<(), String> {
        self.arriving.seen[agent] = self.arriving.seen[agent].max(time);
        let before = self.phase();
        self.object.complete(bytes).map_err(|error| error.to_string())?;
        self.note_end(before);
        Ok(())
    }

    /// Someone arrives so many times, none or one, with what it knows.
    pub(super) fn arrive_for(&mut self, clock: &Clock, times: u32) -> Result<(), String> {
        self.arriving.join(clock);
        let before = self.phase();
        if times > 0 {
            self.object.arrive(times).map_err(|error| error.to_string())?;
        }
        self.note_end(before);
        Ok(())
    }

    /// Lets go who waits, if an arrival has ended the phase.
    fn note_end(&mut self, before: u64) {
        if self.phase() != before {
            self.released.join(&self.arriving);
            self.arriving = Clock::new(self.released.seen.len());
        }
    }
}

/// A place of an mbarrier: block and address.
pub(super) type Place = (usize, u32);

impl Machine<'_> {
    /// `fence.proxy.async` and `fence.mbarrier_init`: mbarriers that a warp made can be used by copies.
    pub(super) fn show_barriers(&mut self, warp: &Warp) {
        for phased in self.blocks[warp.block].phased.values_mut() {
            phased.hidden = phased.hidden.filter(|maker| *maker != warp.agent);
        }
    }

    /// The places of an address in some lanes.
    pub(super) fn places(&self, warp: &Warp, arg: &Arg, lanes: u32) -> Result<[Place; LANES], Box<Wrong>> {
        let Arg::Address(base, offset) = *arg else {
            return Err(Wrong::warp("an operand is no address"));
        };
        let addresses = warp.long(base, lanes)?;
        let mut places = [(0, 0); LANES];
        for lane in lanes_of(lanes) {
            let address = addresses[lane].wrapping_add(offset as u64);
            let wrong = |what: String| Wrong::of(lane, what);
            match self.target(Space::Cluster, address, warp.block).map_err(wrong)? {
                Target::Shared(block, at) => places[lane] = (block, at),
                _ => return Err(Wrong::of(lane, format!("{address:#x} is no shared memory"))),
            }
        }
        Ok(places)
    }

    /// The mbarrier at a place, as a lane sees it.
    pub(super) fn phased(
        &mut self,
        warp: &Warp,
        (lane, line): (usize, u32),
        (block, address): Place,
    ) -> Result<&mut Phased, Box<Wrong>> {
        let block = &mut self.blocks[block];
        let Some(phased) = block.phased.get_mut(&address) else {
            return Err(Wrong::of(lane, format!("no mbarrier was made at shared address {address:#x}")));
        };
        let who = who(warp, lane as u8, line);
        for (part, mark) in MARK.iter().enumerate() {
            let found = block.shared.load(&who, address + 4 * part as u32, 4);
            if found.map_err(|what| Wrong::of(lane, what))? != *mark {
                return Err(Wrong::of(
                    lane,
                    format!("the mbarrier at shared address {address:#x} was written over"),
                ));
            }
        }
        Ok(phased)
    }

    /// The same for a copy, which wants it shown to the asynchronous proxy.
    pub(super) fn shown(
        &mut self,
        warp: &Warp,
        (lane, line): (usize, u32),
        place: Place,
    ) -> Result<(), Box<Wrong>> {
        let phased = self.phased(warp, (lane, line), place)?;
        if phased.hidden.is_some() {
            return Err(Wrong::of(
                lane,
                "an mbarrier is used by a copy, and neither fence.mbarrier_init nor fence.proxy.async stands after its \
                 mbarrier.init",
            ));
        }
        Ok(())
    }

    /// An instruction on mbarriers.
    pub(super) fn phase(
        &mut self,
        warp: &mut Warp,
        inst: &Inst,
        form: Form,
        lanes: u32,
    ) -> Result<Then, Box<Wrong>> {
        let args = &self.program.lists[inst.list as usize];
        match form {
            Form::Init | Form::Invalidate => self.make(warp, inst, form, lanes)?,
            Form::Expect | Form::Complete => {
                let places = self.places(warp, &args[0], lanes)?;
                let bytes = self.count_of(warp, args.get(1), lanes)?;
                for lane in lanes_of(lanes) {
                    let phased = self.phased(warp, (lane, inst.line), places[lane])?;
                    let before = phased.phase();
                    let done = match form {
                        Form::Expect => phased.object.expect(bytes[lane]),
                        _ => phased.object.complete(bytes[lane]),
                    };
                    done.map_err(|error| Wrong::of(lane, error.to_string()))?;
                    phased.note_end(before);
                }
                self.progress += 1;
            }
            Form::Test { waits } | Form::TestParity { waits } => {
                return self.test(warp, inst, waits, lanes);
            }
            _ => self.arrive_at(warp, inst, form, lanes)?,
        }
        Ok(Then::Next)
    }

    /// A count by lane; 1 where the instruction has none.
    fn count_of(&self, warp: &Warp, arg: Option<&Arg>, lanes: u32) -> Result<[u32; LANES], Box<Wrong>> {
        match arg {
            None => Ok([1; LANES]),
            Some(Arg::Reg(Reg::Word(at))) => Ok(*warp.word(*at, lanes)?),
            Some(_) => Err(Wrong::warp("a count is no 32-bit register")),
        }
    }

    /// `mbarrier.init` and `mbarrier.inval`
    fn make(&mut self, warp: &mut Warp, inst: &Inst, form: Form, lanes: u32) -> Result<(), Box<Wrong>> {
        let args = &self.program.lists[inst.list as usize];
        let places = self.places(warp, &args[0], lanes)?;
        let counts = self.count_of(warp, args.get(1), lanes)?;
        for lane in lanes_of(lanes) {
            let (block, address) = places[lane];
            if form == Form::Invalidate {
                self.phased(warp, (lane, inst.line), places[lane])?;
                self.blocks[block].phased.remove(&address);
                continue;
            }
            if address % 8 != 0 {
                return Err(Wrong::of(
                    lane,
                    format!("misaligned: an mbarrier at {address:#x}, wanted a multiple of 8"),
                ));
            }
            let object = Mbarrier::new(counts[lane]).map_err(|error| Wrong::of(lane, error.to_string()))?;
            let who = who(warp, lane as u8, inst.line);
            for (part, mark) in MARK.iter().enumerate() {
                let done = self.blocks[block].shared.store(&who, address + 4 * part as u32, 4, *mark);
                done.map_err(|what| Wrong::of(lane, what))?;
            }
            let agents = warp.clock.seen.len();
            let (arriving, released) = (Clock::new(agents), Clock::new(agents));
            let phased = Phased { object, arriving, released, hidden: Some(warp.agent) };
            self.blocks[block].phased.insert(address, phased);
        }
        self.progress += 1;
        Ok(())
    }

    /// The ways to arrive.
    fn arrive_at(&mut self, warp: &mut Warp, inst: &Inst, form: Form, lanes: u32) -> Result<(), Box<Wrong>> {
        let args = &self.program.lists[inst.list as usize];
        let places = self.places(warp, &args[1], lanes)?;
        let counts = self.count_of(warp, args.get(2), lanes)?;
        let mut states = [0; LANES];
        for lane in lanes_of(lanes) {
            let phased = self.phased(warp, (lane, inst.line), places[lane])?;
            phased.arriving.join(&warp.clock);
            let (before, count) = (phased.phase(), counts[lane]);
            let state = match form {
                Form::ArriveExpect => phased.object.arrive_expect(count),
                Form::ArriveNoComplete => phased.object.arrive_no_complete(count),
                Form::ArriveDrop => phased.object.arrive_drop(count),
                _ => phased.object.arrive(count),
            };
            states[lane] = state.map_err(|error| Wrong::of(lane, error.to_string()))?;
            phased.note_end(before);
        }
        if let Arg::Reg(Reg::Long(at)) = args[0] {
            warp.put_long(at, lanes, &states);
        }
        warp.clock.seen[warp.agent] += 1;
        self.progress += 1;
        Ok(())
    }

    /// `mbarrier.test_wait` and `mbarrier.try_wait`. The latter says once that the phase is not over, as the hardware may
    /// at any time, and when it is asked again it waits.
    fn test(&mut self, warp: &mut Warp, inst: &Inst, waits: bool, lanes: u32) -> Result<Then, Box<Wrong>> {
        let args = &self.program.lists[inst.list as usize];
        let places = self.places(warp, &args[1], lanes)?;
        let (mut over, mut open) = (0, None);
        for lane in lanes_of(lanes) {
            let phased = self.phased(warp, (lane, inst.line), places[lane])?;
            let ended = match args[2] {
                Arg::Reg(Reg::Word(at)) => Ok(phased.object.test_parity(warp.word(at, lanes)?[lane])),
                Arg::Reg(Reg::Long(at)) => phased.object.test(warp.long(at, lanes)?[lane]),
                _ => return Err(Wrong::warp("a wait for something that is no phase")),
            };
            if ended.map_err(|error| Wrong::of(lane, error.to_string()))? {
                over |= 1 << lane;
            } else {
                open = open.or(Some((places[lane], phased.phase())));
            }
        }
        for lane in lanes_of(over) {
            let (block, address) = places[lane];
            if let Some(phased) = self.blocks[block].phased.get(&address) {
                warp.clock.join(&phased.released);
            }
        }
        let before = std::mem::replace(&mut self.waits[warp.agent], open);
        if let Some(((block, address), phase)) = open.filter(|_| waits && before == open) {
            warp.state = State::Phase(block, address, phase);
            return Ok(Then::Again);
        }
        if let Arg::Reg(Reg::Predicate(at)) = args[0] {
            warp.put_predicate(at, lanes, over);
        }
        if open.is_some() && !waits {
            warp.state = State::Spinning;
            return Ok(Then::Yield);
        }
        Ok(Then::Next)
    }
}
