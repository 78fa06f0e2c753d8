//! Loads, stores and atomics.

use super::banks::side_by_side;
use super::block::Machine;
use super::op::Inst;
use super::program::{Arg, Reg};
use super::warp::Warp;
use super::watched::Handshake;
use crate::fault::Wrong;
use crate::forms::memory::{Access, Atomic, Order, Space};
use crate::forms::{D, LANES};
use crate::memory::{PARAM_WINDOW, RANK_SHIFT, SECTOR_BYTES, SEVERAL, SHARED_WINDOW, Touch, Who};

type Done = Result<(), Box<Wrong>>;

/// Where an address points.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// Device memory.
    Global(u64),
    /// Shared memory of a block of the cluster.
    Shared(usize, u32),
    /// A parameter.
    Param(u64),
}

/// The lanes of a mask.
pub(super) fn lanes_of(mut mask: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lane = mask.trailing_zeros() as usize;
        mask &= mask.wrapping_sub(1);
        (lane < LANES).then_some(lane)
    })
}

/// Who a lane of a warp is to shared memory.
pub(super) fn who<'a>(warp: &'a Warp, lane: u8, line: u32) -> Who<'a> {
    Who {
        agent: warp.agent,
        lane,
        meetings: warp.meetings,
        clock: &warp.clock.seen,
        fenced: &warp.clock.fenced,
        asynchronous: false,
        line,
    }
}

/// What an access tells other clusters, if it is a strong one.
fn handshake(access: Access) -> Option<Handshake> {
    let Access { order, device, .. } = access;
    let (acquires, releases) = (order == Order::Acquire, order == Order::Release);
    (order != Order::Weak).then_some(Handshake { acquires, releases, device })
}

/// Strong accesses of all clusters may meet.
#[inline(always)]
fn touch_as(touch: Touch, access: Access) -> Touch {
    if access.order != Order::Weak && access.device { touch.atomic() } else { touch }
}

/// The elements of all lanes, first by element.
type Values = [D; 8];

impl Machine<'_> {
    /// Where an address of a space points for a block.
    pub(super) fn target(&self, space: Space, address: u64, block: usize) -> Result<Target, String> {
        let shared = |address: u64| {
            let rank = (address >> RANK_SHIFT) as usize;
            let block = if rank == 0 { block } else { rank - 1 };
            if address >> 32 != 0 || block >= self.blocks.len() {
                return Err(format!("{address:#x} is no address of shared memory"));
            }
            Ok(Target::Shared(block, address as u32 & ((1 << RANK_SHIFT) - 1)))
        };
        match space {
            Space::Global => Ok(Target::Global(address)),
            Space::Shared if address >> RANK_SHIFT != 0 => {
                Err(format!("{address:#x} is no address of the block's own shared memory"))
            }
            Space::Shared | Space::Cluster => shared(address),
            Space::Param => Ok(Target::Param(address.wrapping_sub(PARAM_WINDOW))),
            Space::Generic if address >> 32 == SHARED_WINDOW >> 32 => shared(address - SHARED_WINDOW),
            Space::Generic if address >> 32 == PARAM_WINDOW >> 32 => {
                Ok(Target::Param(address - PARAM_WINDOW))
            }
            Space::Generic => Ok(Target::Global(address)),
        }
    }

    /// The same for a lane, quickly where the space says all.
    #[inline(always)]
    fn place_of(&self, space: Space, address: u64, block: usize, lane: usize) -> Result<Target, Box<Wrong>> {
        match space {
            Space::Global => Ok(Target::Global(address)),
            Space::Shared if address >> RANK_SHIFT == 0 => Ok(Target::Shared(block, address as u32)),
            _ => self.target(space, address, block).map_err(|what| Wrong::of(lane, what)),
        }
    }

    /// `ld` from anywhere but a named parameter.
    pub(super) fn load(&mut self, warp: &mut Warp, inst: &Inst, access: Access, lanes: u32) -> Done {
        let addresses =
            self.addresses(warp, inst, u64::from(access.bytes) * u64::from(access.count), lanes)?;
        let mut values: Values = [[0; LANES]; 8];
        if self.load_run(warp, access, (&addresses, lanes), &mut values) {
            return self.deliver(warp, inst, access, lanes, &values);
        }
        let mut traffic = Traffic::default();
        for lane in lanes_of(lanes) {
            match self.place_of(access.space, addresses[lane], warp.block, lane)? {
                Target::Global(address) => {
                    self.load_global(warp, access, (lane, address), &mut values, &mut traffic)?;
                }
                Target::Shared(block, address) => {
                    traffic.shared |= 1 << lane;
                    self.load_shared(warp, inst, access, (lane, block, address), &mut values)?;
                }
                Target::Param(place) => {
                    self.load_param(access, place as usize, lane..lane + 1, &mut values)
                        .map_err(|what| Wrong::of(lane, what))?;
                }
            }
        }
        self.count(&traffic, &addresses, u32::from(access.bytes) * u32::from(access.count), false);
        self.deliver(warp, inst, access, lanes, &values)
    }

    /// The addresses of all lanes, which must be multiples of the size.
    #[inline(always)]
    fn addresses(&self, warp: &Warp, inst: &Inst, bytes: u64, lanes: u32) -> Result<D, Box<Wrong>> {
        let base = warp.long(inst.a, lanes)?;
        let addresses = base.map(|base| base.wrapping_add(inst.offset as u64));
        if bytes.is_power_of_two() {
            let low = addresses.iter().fold(0, |low, address| low | address) & (bytes - 1);
            if low != 0 {
                let bad = lanes_of(lanes).find(|lane| addresses[*lane] & (bytes - 1) != 0);
                if let Some(lane) = bad {
                    let address = addresses[lane];
                    return Err(Wrong::of(
                        lane,
                        format!(
                            "misaligned: {bytes} bytes at {address:#x} must lie at a multiple of {bytes}"
                        ),
                    ));
                }
            }
        }
        Ok(addresses)
    }

    /// Loads of a whole warp from one piece of global memory, at once; false if there is anything to look at closely.
    #[inline(always)]
    fn load_run(
        &mut self,
        warp: &Warp,
        access: Access,
        (addresses, lanes): (&D, u32),
        values: &mut Values,
    ) -> bool {
        let (bytes, count) = (u64::from(access.bytes), u64::from(access.count));
        let total = bytes * count;
        if access.space != Space::Global
            || access.order != Order::Weak
            || lanes != u32::MAX
            || !side_by_side(addresses, total)
        {
            return false;
        }
        let all = LANES as u64 * total;
        let touch = self.touch(warp);
        let Ok(allocation) = self.memory.find(addresses[0], all, &mut self.last) else { return false };
        let offset = addresses[0] - allocation.base;
        if allocation.unset(offset, all).is_some() || allocation.note_read(offset, all, &touch).is_err() {
            return false;
        }
        for (at, values) in values.iter_mut().enumerate().take(usize::from(access.count)) {
            for (lane, value) in values.iter_mut().enumerate() {
                let place = offset + lane as u64 * total + at as u64 * bytes;
                *value = match bytes {
                    8 => u64::from(allocation.word(place)) | u64::from(allocation.word(place + 4)) << 32,
                    4 => u64::from(allocation.word(place)),
                    bytes => u64::from(allocation.load(place, bytes)),
                };
            }
        }
        let sectors = offset / SECTOR_BYTES..=(offset + all - 1) / SECTOR_BYTES;
        self.counters.global_requests += 1;
        self.counters.global_sectors += sectors.end() - sectors.start() + 1;
        for sector in sectors {
            self.counters.dram_sectors_read += u64::from(allocation.first_read(sector, self.launch.serial));
        }
        true
    }

    #[inline(always)]
    fn load_global(
        &mut self,
        warp: &mut Warp,
        access: Access,
        (lane, address): (usize, u64),
        values: &mut Values,
        traffic: &mut Traffic,
    ) -> Done {
        let (bytes, count) = (u64::from(access.bytes), u64::from(access.count));
        let total = bytes * count;
        if let Some(handshake) = handshake(access) {
            self.at_meeting(warp, address, handshake, || ());
        }
        let touch = touch_as(self.touch(warp), access);
        let found = self.memory.find(address, total, &mut self.last);
        let allocation = found.map_err(|what| Wrong::of(lane, format!("out of bounds: {what}")))?;
        let offset = address - allocation.base;
        if let Some(at) = allocation.unset(offset, total) {
            let what = format!(
                "global address {:#x} ({at} bytes into an allocation of {}) was never written: an uninitialised read",
                allocation.base + at,
                allocation.bytes
            );
            return Err(Wrong::of(lane, what));
        }
        allocation.note_read(offset, total, &touch).map_err(|what| Wrong::of(lane, what))?;
        for (at, values) in values.iter_mut().enumerate().take(usize::from(access.count)) {
            let place = offset + at as u64 * bytes;
            values[lane] = match bytes {
                8 => u64::from(allocation.word(place)) | u64::from(allocation.word(place + 4)) << 32,
                bytes => u64::from(allocation.load(place, bytes)),
            };
        }
        traffic.global = true;
        let mut sector = offset / SECTOR_BYTES;
        let end = (offset + total - 1) / SECTOR_BYTES;
        while sector <= end {
            if traffic.new_sector(allocation.base + sector * SECTOR_BYTES) {
                self.counters.dram_sectors_read +=
                    u64::from(allocation.first_read(sector, self.launch.serial));
            }
            sector += 1;
        }
        Ok(())
    }

    #[inline(always)]
    fn load_shared(
        &mut self,
        warp: &mut Warp,
        inst: &Inst,
        access: Access,
        (lane, block, address): (usize, usize, u32),
        values: &mut Values,
    ) -> Done {
        if access.order != Order::Weak {
            self.blocks[block].acquire(address, &mut warp.clock);
        }
        let lane_name = if access.order == Order::Weak { lane as u8 } else { SEVERAL };
        let who = who(warp, lane_name, inst.line);
        let shared = &mut self.blocks[block].shared;
        let wrong = |what| Wrong::of(lane, what);
        let (each, count) = (u32::from(access.bytes), usize::from(access.count));
        if each < 4 {
            for (at, values) in values.iter_mut().enumerate().take(count) {
                let place = address + at as u32 * each;
                values[lane] = u64::from(shared.load(&who, place, each).map_err(wrong)?);
            }
            return Ok(());
        }
        let mut words = [0; 8];
        let words = &mut words[..count * each as usize / 4];
        shared.load_words(&who, address, words).map_err(wrong)?;
        for (at, values) in values.iter_mut().enumerate().take(count) {
            values[lane] = match each {
                8 => u64::from(words[2 * at]) | u64::from(words[2 * at + 1]) << 32,
                _ => u64::from(words[at]),
            };
        }
        Ok(())
    }

    fn load_param(
        &self,
        access: Access,
        place: usize,
        lanes: std::ops::Range<usize>,
        values: &mut Values,
    ) -> Result<(), String> {
        let bytes = usize::from(access.bytes);
        for (at, values) in values.iter_mut().enumerate().take(usize::from(access.count)) {
            let from = place + at * bytes;
            let Some(found) = self.launch.params.get(from..from + bytes) else {
                return Err(format!("{bytes} bytes at byte {from} of the parameters are outside of them"));
            };
            let value = found.iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
            values[lanes.clone()].fill(value);
        }
        Ok(())
    }

    /// `ld.param` of a named parameter.
    pub(super) fn load_parameter(
        &mut self,
        warp: &mut Warp,
        inst: &Inst,
        access: Access,
        lanes: u32,
    ) -> Done {
        let mut values: Values = [[0; LANES]; 8];
        self.load_param(access, inst.offset as usize, 0..LANES, &mut values).map_err(Wrong::warp)?;
        self.deliver(warp, inst, access, lanes, &values)
    }

    /// Puts loaded elements into registers, extended to their width.
    #[inline(always)]
    fn deliver(&self, warp: &mut Warp, inst: &Inst, access: Access, lanes: u32, values: &Values) -> Done {
        let Some([Arg::Vector(registers)]) = self.program.lists.get(inst.list as usize).map(Vec::as_slice)
        else {
            return Err(Wrong::warp("a load without registers"));
        };
        let shift = 64 - 8 * u32::from(access.bytes);
        for (reg, values) in registers.iter().zip(values) {
            let extended = if access.signed && shift > 0 {
                values.map(|value| ((value << shift) as i64 >> shift) as u64)
            } else {
                *values
            };
            match *reg {
                Reg::Word(at) => warp.put_word(at, lanes, &extended.map(|value| value as u32)),
                Reg::Long(at) => warp.put_long(at, lanes, &extended),
                _ => {}
            }
        }
        Ok(())
    }

    /// `st`
    pub(super) fn store(&mut self, warp: &mut Warp, inst: &Inst, access: Access, lanes: u32) -> Done {
        let total = u64::from(access.bytes) * u64::from(access.count);
        let addresses = self.addresses(warp, inst, total, lanes)?;
        let Some([Arg::Vector(registers)]) = self.program.lists.get(inst.list as usize).map(Vec::as_slice)
        else {
            return Err(Wrong::warp("a store without registers"));
        };
        let mut values: Values = [[0; LANES]; 8];
        for (reg, values) in registers.iter().zip(&mut values) {
            match *reg {
                Reg::Word(at) => *values = warp.word(at, lanes)?.map(u64::from),
                Reg::Long(at) => *values = *warp.long(at, lanes)?,
                _ => return Err(Wrong::warp("a store of nothing")),
            }
        }
        let mut traffic = Traffic::default();
        self.progress += 1;
        for lane in lanes_of(lanes) {
            match self.place_of(access.space, addresses[lane], warp.block, lane)? {
                Target::Global(address) => {
                    self.store_global(warp, access, (lane, address), &values, &mut traffic)?;
                }
                Target::Shared(block, address) => {
                    traffic.shared |= 1 << lane;
                    self.store_shared(warp, inst, access, (lane, block, address), &values)?;
                }
                Target::Param(_) => return Err(Wrong::of(lane, "parameters cannot be written")),
            }
        }
        self.count(&traffic, &addresses, total as u32, true);
        Ok(())
    }

    #[inline(always)]
    fn store_global(
        &mut self,
        warp: &mut Warp,
        access: Access,
        (lane, address): (usize, u64),
        values: &Values,
        traffic: &mut Traffic,
    ) -> Done {
        let bytes = u64::from(access.bytes);
        let total = bytes * u64::from(access.count);
        let touch = touch_as(self.touch(warp), access);
        let found = self.memory.find(address, total, &mut self.last);
        let allocation = found.map_err(|what| Wrong::of(lane, format!("out of bounds: {what}")))?;
        let offset = address - allocation.base;
        allocation.note_write(offset, total, &touch).map_err(|what| Wrong::of(lane, what))?;
        let set = || {
            for (at, values) in values.iter().enumerate().take(usize::from(access.count)) {
                let place = offset + at as u64 * bytes;
                if bytes == 8 {
                    allocation.set_word(place, values[lane] as u32);
                    allocation.set_word(place + 4, (values[lane] >> 32) as u32);
                } else {
                    allocation.store(place, bytes, values[lane] as u32);
                }
            }
        };
        match handshake(access) {
            Some(handshake) => self.at_meeting(warp, address, handshake, set),
            None => set(),
        }
        traffic.global = true;
        for sector in offset / SECTOR_BYTES..=(offset + total - 1) / SECTOR_BYTES {
            if traffic.new_sector(allocation.base + sector * SECTOR_BYTES) {
                self.counters.dram_sectors_written +=
                    u64::from(allocation.first_write(sector, self.launch.serial));
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn store_shared(
        &mut self,
        warp: &Warp,
        inst: &Inst,
        access: Access,
        (lane, block, address): (usize, usize, u32),
        values: &Values,
    ) -> Done {
        let lane_name = if access.order == Order::Weak { lane as u8 } else { SEVERAL };
        let who = who(warp, lane_name, inst.line);
        let shared = &mut self.blocks[block].shared;
        let (step, each) = (u32::from(access.bytes).min(4), u32::from(access.bytes));
        for (at, values) in values.iter().enumerate().take(usize::from(access.count)) {
            let place = address + at as u32 * each;
            let value = values[lane];
            let narrow = if step == 4 { value as u32 } else { value as u32 & ((1 << (8 * step)) - 1) };
            shared.store(&who, place, step, narrow).map_err(|what| Wrong::of(lane, what))?;
            if each == 8 {
                let high = (value >> 32) as u32;
                shared.store(&who, place + 4, 4, high).map_err(|what| Wrong::of(lane, what))?;
            }
        }
        if access.order != Order::Weak {
            self.blocks[block].release(address, &warp.clock);
        }
        Ok(())
    }

    /// `atom` and `red`, lane by lane.
    pub(super) fn atomic(&mut self, warp: &mut Warp, inst: &Inst, atomic: Atomic, lanes: u32) -> Done {
        let addresses = self.addresses(warp, inst, u64::from(atomic.bytes), lanes)?;
        let Some([Arg::Reg(to), sources @ ..]) =
            self.program.lists.get(inst.list as usize).map(Vec::as_slice)
        else {
            return Err(Wrong::warp("an atomic without operands"));
        };
        let mut operands = [[0u64; LANES]; 2];
        for (source, operands) in sources.iter().zip(&mut operands) {
            match source {
                Arg::Reg(Reg::Word(at)) => *operands = warp.word(*at, lanes)?.map(u64::from),
                Arg::Reg(Reg::Long(at)) => *operands = *warp.long(*at, lanes)?,
                _ => return Err(Wrong::warp("an atomic of nothing")),
            }
        }
        let (mut old, mut traffic) = ([0u64; LANES], Traffic::default());
        self.progress += 1;
        for lane in lanes_of(lanes) {
            let target = self.target(atomic.space, addresses[lane], warp.block);
            let change = |value: u64| (atomic.combine)(value, operands[0][lane], operands[1][lane]);
            old[lane] = match target.map_err(|what| Wrong::of(lane, what))? {
                Target::Global(address) => {
                    self.atomic_global(warp, atomic, (lane, address), change, &mut traffic)?
                }
                Target::Shared(block, address) => {
                    traffic.shared |= 1 << lane;
                    self.atomic_shared(warp, inst, atomic, (lane, block, address), change)?
                }
                Target::Param(_) => return Err(Wrong::of(lane, "parameters cannot be written")),
            };
        }
        self.count(&traffic, &addresses, u32::from(atomic.bytes), true);
        match *to {
            Reg::Word(at) => warp.put_word(at, lanes, &old.map(|old| old as u32)),
            Reg::Long(at) => warp.put_long(at, lanes, &old),
            _ => {}
        }
        Ok(())
    }

    fn atomic_global(
        &mut self,
        warp: &mut Warp,
        atomic: Atomic,
        (lane, address): (usize, u64),
        change: impl Fn(u64) -> u64,
        traffic: &mut Traffic,
    ) -> Result<u64, Box<Wrong>> {
        let bytes = u64::from(atomic.bytes);
        let found = self.memory.find(address, bytes, &mut self.last);
        let allocation = found.map_err(|what| Wrong::of(lane, format!("out of bounds: {what}")))?;
        let offset = address - allocation.base;
        if allocation.unset(offset, bytes).is_some() {
            let what = format!("global address {address:#x} was never written: an uninitialised read");
            return Err(Wrong::of(lane, what));
        }
        let touch = if atomic.device { self.touch(warp).atomic() } else { self.touch(warp) };
        allocation.note_write(offset, bytes, &touch).map_err(|what| Wrong::of(lane, what))?;
        traffic.global = true;
        let sector = offset / SECTOR_BYTES;
        if traffic.new_sector(allocation.base + sector * SECTOR_BYTES) {
            let serial = self.launch.serial;
            self.counters.dram_sectors_read += u64::from(allocation.first_read(sector, serial));
            self.counters.dram_sectors_written += u64::from(allocation.first_write(sector, serial));
        }
        let Atomic { acquires, releases, device, .. } = atomic;
        Ok(self.at_meeting(warp, address, Handshake { acquires, releases, device }, || match bytes {
            8 => self.memory.update_long(allocation, offset, change),
            4 => u64::from(allocation.update(offset, |word| change(u64::from(word)) as u32)),
            _ => {
                let shift = 8 * (offset & 2) as u32;
                let part = |word: u32| u64::from(word >> shift & 0xffff);
                let merge = |word: u32| {
                    let new = change(part(word)) as u32 & 0xffff;
                    word & !(0xffff << shift) | new << shift
                };
                part(allocation.update(offset, merge))
            }
        }))
    }

    fn atomic_shared(
        &mut self,
        warp: &mut Warp,
        inst: &Inst,
        atomic: Atomic,
        (lane, block, address): (usize, usize, u32),
        change: impl Fn(u64) -> u64,
    ) -> Result<u64, Box<Wrong>> {
        // Atomics on one address follow one another; what came before one is known after the next.
        self.blocks[block].acquire(address, &mut warp.clock);
        let who = who(warp, SEVERAL, inst.line);
        let state = &mut self.blocks[block];
        let wrong = |what| Wrong::of(lane, what);
        let (step, bytes) = (u32::from(atomic.bytes).min(4), u32::from(atomic.bytes));
        let mut old = u64::from(state.shared.load(&who, address, step).map_err(wrong)?);
        if bytes == 8 {
            old |= u64::from(state.shared.load(&who, address + 4, 4).map_err(wrong)?) << 32;
        }
        let new = change(old);
        state.shared.store(&who, address, step, new as u32).map_err(wrong)?;
        if bytes == 8 {
            state.shared.store(&who, address + 4, 4, (new >> 32) as u32).map_err(wrong)?;
        }
        state.release(address, &warp.clock);
        Ok(old)
    }

    /// Adds a request to the counters.
    pub(super) fn count(&mut self, traffic: &Traffic, addresses: &D, bytes: u32, _writes: bool) {
        if traffic.global {
            self.counters.global_requests += 1;
            self.counters.global_sectors += traffic.count as u64;
        }
        if traffic.shared != 0 {
            self.counters.shared_requests += 1;
            self.counters.bank_conflicts += super::banks::conflicts(addresses, traffic.shared, bytes);
        }
    }
}

/// What a request touched.
pub(super) struct Traffic {
    global: bool,
    shared: u32,
    /// An aligned access of at most 32 bytes lies in one sector, so a lane needs no more.
    sectors: [u64; LANES],
    count: usize,
}

impl Default for Traffic {
    fn default() -> Traffic {
        Traffic { global: false, shared: 0, sectors: [0; LANES], count: 0 }
    }
}

impl Traffic {
    /// Notes a sector; true if the request had not touched it.
    #[inline(always)]
    fn new_sector(&mut self, sector: u64) -> bool {
        let known = &self.sectors[..self.count];
        if known.last() == Some(&sector) || known.contains(&sector) {
            return false;
        }
        if self.count < LANES {
            self.sectors[self.count] = sector;
            self.count += 1;
        }
        true
    }
}
