//! Operations: what a row of the table of forms does, ready to run.

use crate::forms::copies::Async;
use crate::forms::memory::{Access, Atomic};
use crate::forms::tensor::Tensor;
use crate::forms::{D, W};

/// An operation. Those with a function do all lanes at once; the lanes that take no part keep their old result.
#[derive(Clone)]
pub enum Op {
    /// One word to a word.
    Word1(fn(&W, &mut W)),
    /// Two words.
    Word2(fn(&W, &W, &mut W)),
    /// Three words.
    Word3(fn(&W, &W, &W, &mut W)),
    /// Four words.
    Word4(fn((&W, &W, &W, &W), &mut W)),
    /// One long word of 64 bits.
    Long1(fn(&D, &mut D)),
    /// Two long words.
    Long2(fn(&D, &D, &mut D)),
    /// Three long words.
    Long3(fn(&D, &D, &D, &mut D)),
    /// A long word from a word.
    LongFromWord(fn(&W, &mut D)),
    /// A word from a long word.
    WordFromLong(fn(&D, &mut W)),
    /// A long word from two words.
    LongFromWords(fn(&W, &W, &mut D)),
    /// A long word from two words and a long word.
    LongMad(fn(&W, &W, &D, &mut D)),
    /// A long word shifted by a word.
    LongShift(fn(&D, &W, &mut D)),
    /// A long word and two words.
    LongField(fn(&D, &W, &W, &mut D)),
    /// A predicate from two words: bit `i` for lane `i`.
    TestWord(fn(&W, &W) -> u32),
    /// A predicate from two long words.
    TestLong(fn(&D, &D) -> u32),
    /// A predicate from one.
    Predicate1(fn(u32) -> u32),
    /// A predicate from two.
    Predicate2(fn(u32, u32) -> u32),
    /// `selp` of words.
    SelectWord,
    /// `selp` of long words.
    SelectLong,
    /// `mov` of a word. A value that was never set may be moved, and stays unset.
    MoveWord,
    /// `mov` of a long word.
    MoveLong,
    /// An address of shared memory to a generic one.
    ToGeneric,
    /// And back.
    FromGeneric,
    /// `mov` between a register and its parts; the list has the destinations, then the sources.
    Parts,
    /// A jump: `d` is the target, `a` where both ways meet again.
    Branch,
    /// The end of a thread.
    Exit,
    /// `trap`
    Trap,
    /// Nothing that has an effect here.
    Nothing,
    /// Loads of parameters: `c` is the place in bytes.
    LoadParameter(Access),
    /// A load: `a` is the address register, `offset` is in the list of offsets.
    Load(Access),
    /// A store.
    Store(Access),
    /// `atom` and `red`
    Atomic(Atomic),
    /// `shfl.sync`
    Shuffle(Shuffle),
    /// `vote.sync`
    Vote(Vote),
    /// `activemask`
    ActiveMask,
    /// `redux.sync`
    Reduce(fn(u32, u32) -> u32),
    /// `elect.sync`
    Elect,
    /// `bar.sync` and `barrier.sync`: `a` is the barrier, `b` the threads; aligned or not.
    Barrier(bool),
    /// `bar.arrive`
    BarrierArrive,
    /// `bar.warp.sync`
    WarpSync,
    /// Fences of the generic proxy that order accesses of other clusters.
    Fence,
    /// `fence.proxy.async`
    ProxyFence {
        /// Whether it orders accesses of shared memory; one of global memory alone does not.
        shared: bool,
    },
    /// `mma.sync`, `wgmma` and the matrix loads and stores.
    Tensor(Tensor),
    /// Asynchronous copies and mbarriers.
    Async(Async),
    /// `nanosleep`
    Sleep,
    /// `createpolicy`: a value that changes no result.
    Policy,
    /// `barrier.cluster.arrive`
    ClusterArrive {
        /// Whether what came before is seen by those who wait.
        releases: bool,
    },
    /// `barrier.cluster.wait`
    ClusterWait,
}

impl Op {
    /// Whether it works on registers alone, whose numbers stand in the instruction itself.
    pub(super) fn is_arithmetic(&self) -> bool {
        matches!(
            self,
            Op::Word1(_)
                | Op::Word2(_)
                | Op::Word3(_)
                | Op::Word4(_)
                | Op::WordFromLong(_)
                | Op::Long1(_)
                | Op::Long2(_)
                | Op::Long3(_)
                | Op::LongFromWord(_)
                | Op::LongFromWords(_)
                | Op::LongMad(_)
                | Op::LongShift(_)
                | Op::LongField(_)
                | Op::TestWord(_)
                | Op::TestLong(_)
                | Op::Predicate1(_)
                | Op::Predicate2(_)
                | Op::SelectWord
                | Op::SelectLong
                | Op::MoveWord
                | Op::MoveLong
                | Op::ToGeneric
                | Op::FromGeneric
        )
    }
}

/// How `shfl.sync` picks its source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shuffle {
    /// `.up`
    Up,
    /// `.down`
    Down,
    /// `.bfly`
    Butterfly,
    /// `.idx`
    Index,
}

/// What `vote.sync` says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Vote {
    /// `.all`
    All,
    /// `.any`
    Any,
    /// `.uni`
    Uniform,
    /// `.ballot`
    Ballot,
}

/// What stands before an instruction: a predicate, and whether it is negated.
pub type Guard = Option<(u32, bool)>;

/// An instruction, ready to run. Registers are numbers into the file of their width; immediates and special registers are
/// registers as well, set before the kernel starts.
#[derive(Clone)]
pub struct Inst {
    /// What it does.
    pub op: Op,
    /// Who does it.
    pub guard: Guard,
    /// The destination.
    pub d: u32,
    /// The sources.
    pub a: u32,
    /// The second.
    pub b: u32,
    /// The third.
    pub c: u32,
    /// Bytes added to an address.
    pub offset: i64,
    /// The position of more registers in the program's lists.
    pub list: u32,
    /// The class for the counters.
    pub class: u8,
    /// The PTX line.
    pub line: u32,
}
