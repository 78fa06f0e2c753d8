//! The search for a key in one octave: the greatest whose own and all greater keys together reach a sum.

use super::item::{self, ID_BITS, MASS_BITS};
use super::{Job, THREADS};
use crate::emit::{Bit, Cache, Carry, Double, I32, I64, Int, Long};
use sinter_ir::draw::OCTAVES;

/// Bits that one round decides, and the sums that it takes.
const DIGIT: i32 = 3;
const SUMS: usize = (1 << DIGIT) - 1;
/// The lowest bit of the first round, for keys of logits and for ids.
pub(super) const FIRST_OF_KEYS: i32 = 51;
pub(super) const FIRST_OF_IDS: i32 = 18;
const _: () = assert!(FIRST_OF_KEYS % DIGIT == 0 && FIRST_OF_KEYS + DIGIT >= 32 + ID_BITS as i32);
const _: () = assert!(FIRST_OF_IDS % DIGIT == 0 && FIRST_OF_IDS + DIGIT >= ID_BITS as i32);
/// Logits of an octave that the list holds: a key and a mass each.
const LIST: i32 = 4096;
const _: () = assert!(LIST as u32 * 12 <= OCTAVES as u32 * THREADS * 4, "the list lies in the table");

/// What is searched.
pub(super) struct Query<'k> {
    /// The octave, and the exponent of the first octave.
    pub(super) octave: Int<'k>,
    pub(super) top: Double<'k>,
    /// Keys and masses below these do not count.
    pub(super) least: (Long<'k>, Double<'k>),
    /// Bits that are set in a key, and bits that are kept, before it is compared.
    pub(super) bits: (Long<'k>, Long<'k>),
    /// The sum to reach, and whether it is one of counts.
    pub(super) need: (Long<'k>, Bit<'k>),
    /// The lowest bit of the first round; below 0 nothing is decided.
    pub(super) first: Int<'k>,
    /// Whether the key itself is wanted, not one that parts the logits as it does.
    pub(super) exact: Bit<'k>,
}

/// A key that counts, as it is compared, with its count and mass.
type Item<'k> = (Long<'k>, Long<'k>);
type Sums<'k> = [Long<'k>; SUMS];

fn counted(sum: Long<'_>) -> Long<'_> {
    sum >> MASS_BITS
}

impl<'k> Query<'k> {
    /// The key with the sum from it on.
    pub(super) fn run(&self, job: &Job<'k>) -> (Long<'k>, Long<'k>) {
        let k = job.k;
        k.barrier();
        k.when(k.thread().equals(0), || k.store(job.count, k.int(0)));
        k.barrier();
        let sum = self.for_each(job, k.long(0), |all, (key, sum)| {
            k.when(sum.differs(0), || {
                let place = k.take_place(job.count);
                k.when(place.lt(LIST), || {
                    k.store(job.table.at(place << 3), key);
                    k.store(job.table.at((place << 2) + LIST * 8), sum.int());
                });
            });
            all + sum
        });
        let [all] = job.of_block([sum], |x, y| x + y);
        k.barrier();
        let count = k.load::<I32>(job.count, Cache::Any);
        k.choose(
            count.le(LIST),
            || {
                self.search(job, all, |start, body| {
                    k.range((k.thread(), count, THREADS as i32), start, |at, sums| {
                        let key = k.load::<I64>(job.table.at(at << 3), Cache::Any);
                        let mass = k.load::<I32>(job.table.at((at << 2) + LIST * 8), Cache::Any);
                        body(sums, (key, mass.unsigned_long() | (1_i64 << MASS_BITS)))
                    })
                })
            },
            // Too many for the list: they are looked for in the row in every round.
            || self.search(job, all, |start, body| self.for_each(job, start, body)),
        )
    }

    /// `body` for each of the thread's logits in the row's pieces that have some in the octave; the sum of one that does
    /// not count is 0.
    fn for_each<C: Carry<'k> + Copy>(&self, job: &Job<'k>, start: C, body: impl Fn(C, Item<'k>) -> C) -> C {
        let k = job.k;
        k.rolled_range((0, job.pieces as i32, 1), start, |piece, carried| {
            let there = job.octave_of(piece, self.top, self.octave).differs(0);
            let visit = || {
                let items = job.row.of_thread(piece);
                items.into_iter().fold(carried, |carried, (x, id)| {
                    let (exponent, mass) = job.row.weight(x);
                    let key = item::key(x, id);
                    let counts = (self.top - exponent).equals(self.octave.unsigned_long().double())
                        & k.float(f32::NEG_INFINITY).lt(x)
                        & key.ge(self.least.0)
                        & self.least.1.le(mass.unsigned_long().double());
                    let sum = mass.unsigned_long() | (1_i64 << MASS_BITS);
                    body(carried, ((key | self.bits.0) & self.bits.1, counts.select(sum, k.long(0))))
                })
            };
            k.choose(there, visit, || carried)
        })
    }

    /// Decides the key digit by digit, from the highest. The sum from `key` on always reaches what is needed, and `above`,
    /// the sum from the end of the undecided range on, never does.
    fn search(
        &self,
        job: &Job<'k>,
        all: Long<'k>,
        fold: impl FnOnce(Sums<'k>, &dyn Fn(Sums<'k>, Item<'k>) -> Sums<'k>) -> Sums<'k>,
    ) -> (Long<'k>, Long<'k>) {
        let k = job.k;
        let reaches = |sum: Long<'k>| {
            let mass = sum & ((1_i64 << MASS_BITS) - 1);
            self.need.1.select(counted(sum), mass).ge(self.need.0)
        };
        let (_, key, sum, _) = k.repeat(
            (self.first, k.long(0), all, k.long(0)),
            |(shift, _, sum, above)| {
                let one = counted(*sum - *above).equals(1) & !self.exact;
                shift.ge(0) & !one
            },
            |(shift, key, sum, above)| {
                let step = k.long(1) << shift.unsigned_long();
                let from: Sums<'k> = std::array::from_fn(|at| key + step * (at as i64 + 1));
                let add = |sums: Sums<'k>, (key, more): Item<'k>| {
                    std::array::from_fn(|at| sums[at] + key.ge(from[at]).select(more, k.long(0)))
                };
                let sums = job.of_block(fold([k.long(0); SUMS], &add), |x, y| x + y);
                k.barrier();
                let mut chosen = (key, sum, sums[0]);
                for at in 0..SUMS {
                    let reached = reaches(sums[at]);
                    let next = if at + 1 < SUMS { sums[at + 1] } else { above };
                    chosen.0 = reached.select(from[at], chosen.0);
                    chosen.1 = reached.select(sums[at], chosen.1);
                    chosen.2 = reached.select(next, chosen.2);
                }
                (shift - DIGIT, chosen.0, chosen.1, chosen.2)
            },
        );
        (key, sum)
    }
}
