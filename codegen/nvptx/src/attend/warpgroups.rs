//! Attention of many tokens on Hopper: a block has a tile of rows, each of its warpgroups 64 of them, and goes through all of
//! their context (J. Shah and others, FlashAttention-3, 2024). One warp brings keys and values (`ring`); scores come from
//! `wgmma` with queries in registers, or in shared memory where registers are too few, and weights stay in registers as its
//! operands. While one warpgroup computes weights, the other multiplies.
//!
//! Hopper's tensor cores add 16 products to a sum at once, in `wgmma` as in `mma.sync`, and the steps come in the same
//! order, so the bits are those of `tiles` and `splits`. Weights are added up by `mma.sync` here too.

use super::Job;
use super::fragment::{self, Products, State, Weights};
use super::kept::Kept;
use super::point::Point;
use super::query;
use super::ring::{Ring, Side};
use super::rows::{Range, Row, Tokens};
use crate::emit::{Carry, Float, Int, K, Left, Right, Shared};
use sinter_codegen_schedule::attend::{BoxedRows, GROUP_ROWS, POSITIONS, SPLIT, query_in_shared};

/// Registers of a thread that copies, and of one that multiplies: as many together as where contractions trade them. Whoever
/// copies looks for sequences and pages too.
const REGISTERS: (i32, i32) = (56, 224);

/// Queries of a warpgroup's rows.
enum Query<'k> {
    /// In registers, an operand for each 16 of the depth.
    Registers(Vec<[Int<'k>; 4]>),
    /// In shared memory, in parts as keys are.
    Shared(Shared<'k>),
}

pub(super) fn write<'k>(k: K<'k>, job: &Job<'_>, (groups, stages): (u32, u32)) {
    let point = Point::new(k, job);
    let (_, room) = super::room(job);
    let tokens = Tokens { k, job, point: &point, room };
    let room_for_queries = Query::room(k, job, groups);
    let ring = Ring::new(k, job, stages);
    k.when(k.thread().equals(0), || ring.init(groups * 4));
    k.barrier();
    // With one multiplying warpgroup there are registers enough.
    let trades = groups > 1;
    let group = k.uniform(k.thread() >> 7);
    k.when(group.equals(0), || {
        if trades {
            k.fewer_registers(REGISTERS.0);
        }
        k.when(k.warp().equals(0), || {
            k.show_global_to_copies();
            each_sequence(&tokens, (k.int(0), k.int(0)), |(first, end), progress| {
                ring.produce(&tokens.scope(first), tokens.range(first, end), progress)
            });
        });
    });
    k.when(group.differs(0), || {
        if trades {
            k.more_registers(REGISTERS.1);
        }
        let multiplier = Multiplier::new(job, &point, &tokens, (&ring, groups, room_for_queries));
        each_sequence(&tokens, k.int(0), |of, count| multiplier.sequence(of, count));
    });
}

/// Calls `body` for the tokens of each sequence of the tile, from the first to before the last, with what it carries.
fn each_sequence<'k, C: Carry<'k>>(
    tokens: &Tokens<'_, '_, 'k>,
    start: C,
    body: impl FnOnce((Int<'k>, Int<'k>), C) -> C,
) {
    let (k, all) = (tokens.k, tokens.count());
    if !tokens.may_differ() {
        body((k.int(0), all), start);
        return;
    }
    k.repeat(
        (k.int(0), start),
        |(first, _)| first.lt(all),
        |(first, carried)| {
            let end = tokens.same_context(first);
            let carried = body((first, end), carried);
            (end, carried)
        },
    );
}

/// A multiplying warpgroup.
struct Multiplier<'p, 'a, 'k> {
    k: K<'k>,
    job: &'p Job<'a>,
    tokens: &'p Tokens<'p, 'a, 'k>,
    ring: &'p Ring<'p, 'a, 'k>,
    rows: [Row<'a, 'k>; 2],
    query: Query<'k>,
    kept: Kept<'k>,
}

impl<'p, 'a, 'k> Multiplier<'p, 'a, 'k> {
    fn new(
        job: &'p Job<'a>,
        point: &Point<'a, 'k>,
        tokens: &'p Tokens<'p, 'a, 'k>,
        (ring, groups, room): (&'p Ring<'p, 'a, 'k>, u32, Option<Shared<'k>>),
    ) -> Self {
        let k = tokens.k;
        let (heads, _) = super::room(job);
        // The first four warps copy.
        let own = k.thread() - 128;
        let first = (own >> 5) * 16 + (k.lane() >> 2);
        let rows = [first, first + 8].map(|row| Row::new(job, point, row, heads));
        let query = Query::load((job, &rows), room, (own >> 5, groups));
        let kept = Kept::new(job, own, groups * 128);
        Multiplier { k, job, tokens, ring, rows, query, kept }
    }

    /// The tokens from `first` to before `end`, which have one context.
    fn sequence(&self, (first, end): (Int<'k>, Int<'k>), count: Int<'k>) -> Int<'k> {
        let k = self.k;
        let range = self.tokens.range(first, end);
        let fragments = (self.job.attend.sizes.lanes / 8) as usize;
        self.kept.keep(&fragment::beginning(self.job, &self.rows, fragments));
        let (from, to) = range.blocks();
        let in_split = (SPLIT / POSITIONS) as i32;
        let (_, count) = k.repeat(
            (from, count),
            |(at, _)| at.lt(to),
            |(at, count)| {
                let last = ((at.divided(in_split) + 1) * in_split).least(to);
                let start = (fragment::nothing(k, fragments), count);
                let (state, count) = k.rolled_range((at, last, 1), start, |at, (state, count)| {
                    (self.block((range, at), state, count), count + 1)
                });
                self.kept.merge(&state);
                (last, count)
            },
        );
        self.kept.store(self.job, &self.rows, (first, end));
        count
    }

    /// A block of positions, the one of that number in the ring.
    fn block(&self, (range, at): (Range<'k>, Int<'k>), state: State<'k>, count: Int<'k>) -> State<'k> {
        let k = self.k;
        let (stage, parity) = self.ring.place(count);
        k.wait_for_phase(self.ring.full(Side::Keys, stage), parity);
        let products = Products { sums: self.products(stage), scales: None };
        self.read(Side::Keys, stage);
        let scores = fragment::score(self.job, &self.rows, range, at * POSITIONS as i32, products);
        let (weights, (max, sum, acc)) = fragment::step(&scores, state, None);
        k.wait_for_phase(self.ring.full(Side::Values, stage), parity);
        let acc = self.weighted(stage, &weights, &acc);
        self.read(Side::Values, stage);
        (max, sum, acc)
    }

    /// Tells that this warp is done with a stage.
    fn read(&self, side: Side, stage: Int<'k>) {
        let k = self.k;
        k.when(k.lane().equals(0), || k.arrive(self.ring.empty(side, stage)));
    }

    /// The products of queries and keys, as fragments of eight columns.
    fn products(&self, stage: Int<'k>) -> Vec<[Float<'k>; 4]> {
        let k = self.k;
        let (keys, (part_bytes, further)) = self.ring.rows(Side::Keys, stage);
        let keys = k.matrix(keys, (part_bytes, 16));
        let left = |step: u32, at: i64| match &self.query {
            Query::Registers(operands) => Left::Registers(operands[step as usize]),
            Query::Shared(from) => Left::Matrix(k.matrix(*from, (part_bytes, 16)) + at),
        };
        k.begin_products();
        let mut sums: Vec<Float<'k>> = Vec::new();
        for step in 0..self.job.attend.sizes.depth / 16 {
            // A step is 32 bytes of a part; addresses count 16.
            let (part, within) = (step * 32 / part_bytes, step * 32 % part_bytes);
            let at = i64::from((part * further + within) / 16);
            let operands = (left(step, at), Right::AlongSum(keys + at));
            sums = if step == 0 {
                k.first_warpgroup_product(POSITIONS as usize, operands)
            } else {
                k.warpgroup_product(false, &sums, operands)
            };
        }
        k.products_done(&sums).as_chunks().0.to_vec()
    }

    /// Adds the weighted values.
    fn weighted(&self, stage: Int<'k>, weights: &Weights<'k>, acc: &[[Float<'k>; 4]]) -> Vec<[Float<'k>; 4]> {
        let k = self.k;
        let (values, (part_bytes, further)) = self.ring.rows(Side::Values, stage);
        let values = k.matrix(values, (part_bytes, further));
        let (mut acc, weights) = k.begin_products_on(acc.as_flattened(), weights);
        for (step, weights) in weights.into_iter().enumerate() {
            // 16 rows further; addresses count 16.
            let values = values + (step as u32 * part_bytes) as i64;
            acc = k.warpgroup_product(false, &acc, (Left::Registers(weights), Right::AlongColumns(values)));
        }
        k.products_done(&acc).as_chunks().0.to_vec()
    }
}

impl<'k> Query<'k> {
    /// Shared memory for the queries of so many warpgroups, if registers are too few.
    fn room(k: K<'k>, job: &Job<'_>, groups: u32) -> Option<Shared<'k>> {
        let sizes = job.attend.sizes;
        query_in_shared(sizes).then(|| k.shared(groups * GROUP_ROWS * sizes.depth * 2, 1024))
    }

    /// Loads the queries of the rows of a warp, which is numbered among those that multiply.
    fn load(
        (job, rows): (&Job<'_>, &[Row<'_, 'k>; 2]),
        room: Option<Shared<'k>>,
        (warp, groups): (Int<'k>, u32),
    ) -> Self {
        let (k, depth) = (warp.kernel(), job.attend.sizes.depth);
        let steps = depth / 16;
        let boxed = BoxedRows::new(depth);
        let (Some(room), Some(BoxedRows { part_bytes, .. })) = (room, boxed) else {
            return Query::Registers((0..steps).map(|step| query::operand(job, rows, step)).collect());
        };
        let own = room.at((warp >> 2) * (GROUP_ROWS * depth * 2) as i32);
        // Matrix `i` of an operand: the lower rows if it is odd, the upper depths from the third on.
        let (matrix, within) = (k.lane() >> 3, k.lane() & 7);
        let row = (warp & 3) * 16 + (matrix & 1) * 8 + within;
        for step in 0..steps {
            let (part, within) = (step * 32 / part_bytes, step * 32 % part_bytes);
            let at = row * part_bytes as i32 + (matrix >> 1) * 16 + within as i32;
            let turned = at ^ (((at >> 7) & (part_bytes as i32 / 16 - 1)) << 4);
            let to = own.at((part * GROUP_ROWS * part_bytes) as i32).at(turned);
            k.store_matrices(to, query::operand(job, rows, step));
        }
        k.show_shared_to_copies();
        k.barrier_of(1, (groups * 128) as i32);
        Query::Shared(own)
    }
}
