//! Instructions that LLVM has an intrinsic for. Each is one typed function; their names follow the PTX ISA.

use super::body::{Body, K};
use super::value::I64;
use super::value::{Bit, F32, Float, Global, I32, Int, Long, Operand, Scalar, Shared, V};
use melior::dialect::llvm::r#type as llvm;
use melior::ir::{Type, Value};

/// All lanes of a warp.
const ALL_LANES: i32 = -1;

impl<'k> Body<'k> {
    fn raw_call(
        &self,
        name: &str,
        operands: &[Value<'k, 'k>],
    ) -> [(&'static str, melior::ir::Attribute<'k>); 3] {
        [
            ("intrin", self.text(name)),
            ("operandSegmentSizes", self.segments(&[operands.len() as i32, 0])),
            ("op_bundle_sizes", self.segments(&[])),
        ]
    }

    /// A call of an LLVM intrinsic whose result has a type that only LLVM knows. LLVM aborts the process on an intrinsic
    /// that the target cannot do, so every caller is a typed function with a test.
    pub(super) fn intrinsic(
        &self,
        name: &str,
        operands: &[Value<'k, 'k>],
        result: Option<Type<'k>>,
    ) -> Value<'k, 'k> {
        let result = result.expect("an intrinsic with a result");
        self.op("llvm.call_intrinsic", operands, result, &self.raw_call(name, operands))
    }

    /// A call of an LLVM intrinsic with a result.
    pub fn call<T: Scalar>(&'k self, name: &str, operands: &[Value<'k, 'k>]) -> V<'k, T> {
        V::new(self, self.intrinsic(name, operands, Some(T::mlir(self.context()))))
    }

    /// A call of an LLVM intrinsic with several results of one type.
    pub fn call_many<T: Scalar, const N: usize>(
        &'k self,
        name: &str,
        operands: &[Value<'k, 'k>],
    ) -> [V<'k, T>; N] {
        let element = T::mlir(self.context());
        let result =
            self.intrinsic(name, operands, Some(llvm::r#struct(self.context(), &[element; N], false)));
        self.fields(result)
    }

    /// A field of a structure.
    pub(super) fn field<T: Scalar>(&'k self, value: Value<'k, 'k>, at: usize) -> V<'k, T> {
        let position = [("position", self.positions(&[at as i64]))];
        V::new(self, self.op("llvm.extractvalue", &[value], T::mlir(self.context()), &position))
    }

    /// The fields of a structure of `N` equal types.
    pub(super) fn fields<T: Scalar, const N: usize>(&'k self, value: Value<'k, 'k>) -> [V<'k, T>; N] {
        std::array::from_fn(|at| self.field(value, at))
    }

    /// The same for any number of fields.
    pub(super) fn all_fields<T: Scalar>(&'k self, value: Value<'k, 'k>, count: usize) -> Vec<V<'k, T>> {
        (0..count).map(|at| self.field(value, at)).collect()
    }

    /// A call of an LLVM intrinsic without a result.
    pub fn call_for_effect(&'k self, name: &str, operands: &[Value<'k, 'k>]) {
        self.effect("llvm.call_intrinsic", operands, &self.raw_call(name, operands));
    }

    fn special(&'k self, name: &str) -> Int<'k> {
        self.call(name, &[])
    }

    /// The thread in its block, `tid.x`.
    pub fn thread(&'k self) -> Int<'k> {
        self.special("llvm.nvvm.read.ptx.sreg.tid.x")
    }
    /// The block in its grid, `ctaid.x`.
    pub fn block(&'k self) -> Int<'k> {
        self.special("llvm.nvvm.read.ptx.sreg.ctaid.x")
    }
    /// The number of blocks, `nctaid.x`.
    pub fn blocks(&'k self) -> Int<'k> {
        self.special("llvm.nvvm.read.ptx.sreg.nctaid.x")
    }
    /// The thread in its warp, if the block's threads are numbered along x alone, as ours are.
    pub fn lane(&'k self) -> Int<'k> {
        self.thread() & 31
    }
    /// The warp in its block.
    pub fn warp(&'k self) -> Int<'k> {
        self.thread() >> 5
    }
    /// The same value, known to be equal in all lanes of the warp: `shfl.sync.idx` from lane 0.
    pub fn uniform(&'k self, value: Int<'k>) -> Int<'k> {
        let (all, from, clamp) = (self.int(ALL_LANES), self.int(0), self.int(31));
        self.call("llvm.nvvm.shfl.sync.idx.i32", &[all.raw, value.raw, from.raw, clamp.raw])
    }

    /// Waits until all threads of the block are here, and makes their writes visible: `barrier.sync 0`.
    pub fn barrier(&'k self) {
        self.call_for_effect("llvm.nvvm.barrier.cta.sync.aligned.all", &[self.int(0).raw]);
    }
    /// The same for `threads` threads, a multiple of 32, that use the barrier `id` of 1 to 15.
    pub fn barrier_of(&'k self, id: i32, threads: i32) {
        let operands = [self.int(id).raw, self.int(threads).raw];
        self.call_for_effect("llvm.nvvm.barrier.cta.sync.aligned.count", &operands);
    }
    /// Waits until all lanes of the warp are here: `bar.warp.sync`.
    pub fn warp_barrier(&'k self) {
        self.call_for_effect("llvm.nvvm.bar.warp.sync", &[self.int(ALL_LANES).raw]);
    }

    /// Whether a condition holds in all lanes of the warp: `vote.sync.all`. All lanes take part.
    pub fn all_lanes(&'k self, condition: Bit<'k>) -> Bit<'k> {
        self.call("llvm.nvvm.vote.all.sync", &[self.int(ALL_LANES).raw, condition.raw])
    }

    /// In which lanes of the warp a condition holds, a bit each: `vote.sync.ballot`. All lanes take part.
    pub fn lanes_where(&'k self, condition: Bit<'k>) -> Int<'k> {
        self.call("llvm.nvvm.vote.ballot.sync", &[self.int(ALL_LANES).raw, condition.raw])
    }

    /// Copies 16 bytes from global to shared memory past the first cache: `cp.async.cg`. Both addresses are multiples
    /// of 16.
    pub fn copy_async(&'k self, to: Shared<'k>, from: Global<'k>) {
        self.call_for_effect("llvm.nvvm.cp.async.cg.shared.global.16", &[to.raw, from.raw]);
    }
    /// The same, but only the first `bytes` are read and zeros follow.
    pub fn copy_async_first(&'k self, to: Shared<'k>, from: Global<'k>, bytes: Int<'k>) {
        let operands = [to.raw, from.raw, bytes.raw];
        self.call_for_effect("llvm.nvvm.cp.async.cg.shared.global.16.s", &operands);
    }
    /// Copies 4, 8 or 16 bytes, of which the first `present` are read and zeros follow: `cp.async`. Both addresses are
    /// multiples of the size.
    pub fn copy_async_part(&'k self, to: Shared<'k>, from: Global<'k>, (bytes, present): (u32, Int<'k>)) {
        let name = match bytes {
            16 => "llvm.nvvm.cp.async.cg.shared.global.16.s",
            8 => "llvm.nvvm.cp.async.ca.shared.global.8.s",
            _ => "llvm.nvvm.cp.async.ca.shared.global.4.s",
        };
        self.call_for_effect(name, &[to.raw, from.raw, present.raw]);
    }
    /// Ends a group of asynchronous copies.
    pub fn copy_commit(&'k self) {
        self.call_for_effect("llvm.nvvm.cp.async.commit.group", &[]);
    }
    /// Waits until at most `pending` groups of this thread are under way.
    pub fn copy_wait(&'k self, pending: i32) {
        self.call_for_effect("llvm.nvvm.cp.async.wait.group", &[self.int(pending).raw]);
    }

    /// Four 8×8 matrices of 16-bit elements: `ldmatrix.x4`. Lane `8i + r` gives the address of row `r` of matrix `i`.
    pub fn load_matrices(&'k self, from: Shared<'k>) -> [Int<'k>; 4] {
        self.call_many("llvm.nvvm.ldmatrix.sync.aligned.m8n8.x4.b16", &[from.raw])
    }
    /// The same, each matrix transposed.
    pub fn load_matrices_transposed(&'k self, from: Shared<'k>) -> [Int<'k>; 4] {
        self.call_many("llvm.nvvm.ldmatrix.sync.aligned.m8n8.x4.trans.b16", &[from.raw])
    }

    /// `a · b + c` of bf16 with f32 accumulators: `mma.sync.m16n8k16.row.col` (PTX ISA, matrix fragments for
    /// mma.m16n8k16).
    pub fn mma_bf16(&'k self, a: [Int<'k>; 4], b: [Int<'k>; 2], c: [Float<'k>; 4]) -> [Float<'k>; 4] {
        let operands: Vec<_> = a.iter().chain(&b).map(|v| v.raw).chain(c.iter().map(|v| v.raw)).collect();
        self.call_many("llvm.nvvm.mma.m16n8k16.row.col.bf16", &operands)
    }

    /// The same of f16.
    pub fn mma_f16(&'k self, a: [Int<'k>; 4], b: [Int<'k>; 2], c: [Float<'k>; 4]) -> [Float<'k>; 4] {
        let pair = Type::vector(&[2], Type::float16(self.context()));
        let halves = a.iter().chain(&b).map(|v| self.op("llvm.bitcast", &[v.raw], pair, &[]));
        let operands: Vec<_> = halves.chain(c.iter().map(|v| v.raw)).collect();
        self.call_many("llvm.nvvm.mma.m16n8k16.row.col.f32.f32", &operands)
    }

    /// Waits until the launch before has ended and its writes are visible: `griddepcontrol.wait`, sm_90 and up.
    pub fn wait_for_launch(&'k self) {
        self.call_for_effect("llvm.nvvm.griddepcontrol.wait", &[]);
    }
    /// Lets the next launch start: `griddepcontrol.launch_dependents`, sm_90 and up.
    pub fn let_next_launch_start(&'k self) {
        self.call_for_effect("llvm.nvvm.griddepcontrol.launch.dependents", &[]);
    }
}

/// What lanes exchange.
pub trait Shuffled: Scalar {
    /// The suffix of the intrinsic.
    const SUFFIX: &'static str;
}
impl Shuffled for I32 {
    const SUFFIX: &'static str = "i32";
}
impl Shuffled for F32 {
    const SUFFIX: &'static str = "f32";
}

impl<'k, T: Shuffled> V<'k, T> {
    fn shuffle(self, mode: &str, lane: Int<'k>) -> Self {
        let k: K<'k> = self.k;
        let name = format!("llvm.nvvm.shfl.sync.{mode}.{}", T::SUFFIX);
        k.call(&name, &[k.int(ALL_LANES).raw, self.raw, lane.raw, k.int(31).raw])
    }
    /// The value of the lane whose number differs in these bits: `shfl.sync.bfly`. All lanes take part.
    pub fn of_lane_xor(self, bits: i32) -> Self {
        self.shuffle("bfly", self.k.int(bits))
    }
    /// The value of lane number `lane` modulo 32: `shfl.sync.idx`. All lanes take part.
    pub fn of_lane(self, lane: Int<'k>) -> Self {
        self.shuffle("idx", lane)
    }
}

impl<'k> Int<'k> {
    /// Any four of the bytes of two words, numbered from 0 in this one and from 4 in the other: the digits of `chosen`, the
    /// lowest byte last (PTX ISA, `prmt`).
    pub fn bytes(self, other: impl Operand<'k, I32>, chosen: i32) -> Self {
        let k = self.k;
        k.call("llvm.nvvm.prmt", &[self.raw, other.value(k).raw, k.int(chosen).raw])
    }
}

impl<'k> Long<'k> {
    /// The upper and the lower word as one number.
    pub fn of_words(upper: Int<'k>, lower: Int<'k>) -> Self {
        (upper.unsigned_long() << 32) | lower.unsigned_long()
    }
    /// The value of the lane whose number differs in these bits. All lanes take part.
    pub fn of_lane_xor(self, bits: i32) -> Self {
        Self::of_words((self >> 32).int().of_lane_xor(bits), self.int().of_lane_xor(bits))
    }
    /// The product of two unsigned 32-bit numbers.
    pub fn product(x: Int<'k>, y: Int<'k>) -> Self {
        let (x, y): (V<'k, I64>, V<'k, I64>) = (x.unsigned_long(), y.unsigned_long());
        x * y
    }
}
