//! The mbarrier object (PTX ISA, "Parallel synchronization and communication instructions: mbarrier").
//!
//! A phase ends when its pending count and its tx-count are both zero; the next one begins with the pending count at
//! the expected count.

/// The most that a count can be (PTX ISA, "Contents of the mbarrier object").
pub const MOST: i64 = (1 << 20) - 1;

/// An mbarrier object.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Mbarrier {
    phase: u64,
    expected: i64,
    pending: i64,
    transactions: i64,
}

/// What a barrier cannot do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum MbarrierError {
    /// A count of arrivals that no barrier takes.
    #[error("an mbarrier is given {0} arrivals; it takes 1 to {MOST}")]
    Count(i64),
    /// More arrivals than a phase expects.
    #[error("{count} arrive at an mbarrier whose phase waits for {pending} more")]
    Arrivals {
        /// How many arrive.
        count: i64,
        /// How many the phase still waits for.
        pending: i64,
    },
    /// An arrival that must not end the phase would.
    #[error("an arrival with .noComplete would end the mbarrier's phase")]
    Completes,
    /// A tx-count beyond what the barrier can hold.
    #[error("an mbarrier's tx-count becomes {bytes}; it holds -{MOST} to {MOST}")]
    Transactions {
        /// The count that results.
        bytes: i64,
    },
    /// A wait for a phase that is neither the current one nor the one before.
    #[error("a wait for phase {wanted} of an mbarrier that is in phase {current}")]
    Phase {
        /// The phase that is waited for.
        wanted: u64,
        /// The phase of the barrier.
        current: u64,
    },
}

impl Mbarrier {
    /// `mbarrier.init`: a barrier in phase 0 that waits for `count` arrivals in each phase.
    pub fn new(count: u32) -> Result<Mbarrier, MbarrierError> {
        let expected = i64::from(count);
        if !(1..=MOST).contains(&expected) {
            return Err(MbarrierError::Count(expected));
        }
        Ok(Mbarrier { phase: 0, expected, pending: expected, transactions: 0 })
    }
    /// The number of the current, incomplete phase.
    pub fn phase(&self) -> u64 {
        self.phase
    }
    /// Arrivals that the current phase still waits for.
    pub fn pending(&self) -> i64 {
        self.pending
    }
    /// Bytes that the current phase still waits for; below zero if more came than were announced so far.
    pub fn transactions(&self) -> i64 {
        self.transactions
    }

    /// `mbarrier.arrive`: the phase that was arrived at, which is what the instruction returns as its state.
    pub fn arrive(&mut self, count: u32) -> Result<u64, MbarrierError> {
        let (phase, count) = (self.phase, i64::from(count));
        if count < 1 {
            return Err(MbarrierError::Count(count));
        }
        if count > self.pending {
            return Err(MbarrierError::Arrivals { count, pending: self.pending });
        }
        self.pending -= count;
        self.end_phase();
        Ok(phase)
    }
    /// `mbarrier.arrive.noComplete`.
    pub fn arrive_no_complete(&mut self, count: u32) -> Result<u64, MbarrierError> {
        if i64::from(count) == self.pending {
            return Err(MbarrierError::Completes);
        }
        self.arrive(count)
    }
    /// `mbarrier.arrive_drop`: arrives, and later phases expect as many fewer.
    pub fn arrive_drop(&mut self, count: u32) -> Result<u64, MbarrierError> {
        if i64::from(count) > self.pending {
            return Err(MbarrierError::Arrivals { count: i64::from(count), pending: self.pending });
        }
        self.expected -= i64::from(count);
        self.arrive(count)
    }
    /// `mbarrier.arrive.expect_tx`: announces bytes, then arrives once.
    pub fn arrive_expect(&mut self, bytes: u32) -> Result<u64, MbarrierError> {
        self.expect(bytes)?;
        self.arrive(1)
    }
    /// `mbarrier.expect_tx`: the phase waits for so many more bytes.
    pub fn expect(&mut self, bytes: u32) -> Result<(), MbarrierError> {
        self.count_bytes(i64::from(bytes))
    }
    /// `mbarrier.complete_tx`, which copies do when their bytes are there.
    pub fn complete(&mut self, bytes: u32) -> Result<(), MbarrierError> {
        self.count_bytes(-i64::from(bytes))?;
        self.end_phase();
        Ok(())
    }
    /// `mbarrier.test_wait` with the state that an arrival returned: whether that phase is over.
    pub fn test(&self, state: u64) -> Result<bool, MbarrierError> {
        if state != self.phase && Some(state) != self.phase.checked_sub(1) {
            return Err(MbarrierError::Phase { wanted: state, current: self.phase });
        }
        Ok(state != self.phase)
    }
    /// `mbarrier.test_wait.parity`: whether the phase of that parity, which is the current one or the one before, is
    /// over. Before the first phase ends, parity 1 counts as over.
    pub fn test_parity(&self, parity: u32) -> bool {
        self.phase & 1 != u64::from(parity & 1)
    }

    fn count_bytes(&mut self, bytes: i64) -> Result<(), MbarrierError> {
        let bytes = self.transactions + bytes;
        if bytes.abs() > MOST {
            return Err(MbarrierError::Transactions { bytes });
        }
        self.transactions = bytes;
        Ok(())
    }
    fn end_phase(&mut self) {
        if self.pending == 0 && self.transactions == 0 {
            self.phase += 1;
            self.pending = self.expected;
        }
    }
}
