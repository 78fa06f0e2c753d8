//! What Hopper brought: mbarriers, tensor copies, products of a warpgroup (PTX ISA, "mbarrier",
//! "cp.async.bulk.tensor", "wgmma").

use super::body::Body;
use super::value::{Bit, F32, Float, I1, I32, I64, Int, Long, Param, Ptr, Scalar, Shared, V};
use melior::dialect::llvm::r#type as llvm;
use melior::ir::Value;

/// Registers of a thread that copies, and of one that multiplies: together what a multiprocessor has for one copying and two
/// multiplying warpgroups.
pub const REGISTERS: (u32, u32) = (40, 232);
/// The registers of a thread at the start of such a block, from which all warpgroups get their own. The assembler wants that
/// many for the sums of 256 columns.
pub const REGISTERS_AT_START: u32 = (REGISTERS.0 + 2 * REGISTERS.1) / 3;

/// The first operand of a product of a warpgroup: in shared memory, or the four registers of each warp's 16 rows as
/// `mma.m16n8k16` has them.
#[derive(Clone, Copy)]
pub enum Left<'k> {
    /// A matrix in shared memory whose rows lie along the summed axis.
    Matrix(Long<'k>),
    /// Registers, which must not change before the product has ended.
    Registers([Int<'k>; 4]),
}

/// The second operand: a matrix in shared memory.
#[derive(Clone, Copy)]
pub enum Right<'k> {
    /// Its rows, those of the result's columns, lie along the summed axis.
    AlongSum(Long<'k>),
    /// Its rows lie along the result's columns.
    AlongColumns(Long<'k>),
}

impl<'k> Body<'k> {
    /// Makes 8 bytes of shared memory an mbarrier whose phases end with so many arrivals.
    pub fn init_barrier(&'k self, at: Shared<'k>, arrivals: i32) {
        self.call_for_effect("llvm.nvvm.mbarrier.init.shared", &[at.raw(), self.int(arrivals).raw()]);
    }
    /// Shows the mbarriers that this thread made to asynchronous copies; a barrier of the block must follow.
    pub fn show_barriers(&'k self) {
        self.call_for_effect("llvm.nvvm.fence.mbarrier_init.release.cluster", &[]);
        self.call_for_effect("llvm.nvvm.fence.proxy.async.shared_cta", &[]);
    }
    /// Orders this thread's view of global memory before its asynchronous copies: what other kernels wrote by plain stores
    /// may be read by tensor copies only after it.
    pub fn show_global_to_copies(&'k self) {
        self.call_for_effect("llvm.nvvm.fence.proxy.async.global", &[]);
    }
    /// Arrives at an mbarrier.
    pub fn arrive(&'k self, at: Shared<'k>) {
        let operands = [at.raw(), self.int(1).raw()];
        self.call::<I64>("llvm.nvvm.mbarrier.arrive.scope.cta.space.cta", &operands);
    }
    /// Arrives at an mbarrier whose phase ends only when so many bytes more were copied.
    pub fn arrive_expecting(&'k self, at: Shared<'k>, bytes: i32) {
        let operands = [at.raw(), self.int(bytes).raw()];
        self.call::<I64>("llvm.nvvm.mbarrier.arrive.expect.tx.scope.cta.space.cta", &operands);
    }
    /// Waits until the phase of this parity is over.
    pub fn wait_for_phase(&'k self, at: Shared<'k>, parity: Int<'k>) {
        let over = || -> Bit<'k> {
            let name = "llvm.nvvm.mbarrier.try.wait.parity.scope.cta.space.cta";
            self.call::<I1>(name, &[at.raw(), parity.raw()])
        };
        self.repeat((), |()| !over(), |()| ());
    }

    /// Begins to copy the box of a tensor of two dimensions at these coordinates, the innermost first; the mbarrier counts
    /// its bytes. What is outside the tensor becomes zeros. One thread does it.
    pub fn copy_box(
        &'k self,
        to: Shared<'k>,
        from: Param<'k>,
        (inner, outer): (Int<'k>, Int<'k>),
        barrier: Shared<'k>,
    ) {
        let to: V<'k, Ptr<7>> = to.space();
        let no = self.bit(false);
        let operands = [
            to.raw(),
            barrier.raw(),
            from.raw(),
            inner.raw(),
            outer.raw(),
            self.short(0).raw(),
            self.long(0).raw(),
            no.raw(),
            no.raw(),
            self.int(0).raw(),
        ];
        self.call_for_effect("llvm.nvvm.cp.async.bulk.tensor.g2s.tile.2d", &operands);
    }

    /// Orders this thread's writes of shared memory before asynchronous copies and products that read it: `fence.proxy.async`.
    /// A barrier among those who wrote and the one who starts the copy must follow.
    pub fn show_shared_to_copies(&'k self) {
        self.call_for_effect("llvm.nvvm.fence.proxy.async.shared_cta", &[]);
    }
    /// Four 8×8 matrices of 16-bit elements: `stmatrix.x4`. Lane `8i + r` gives the address of row `r` of matrix `i`.
    pub fn store_matrices(&'k self, to: Shared<'k>, [a, b, c, d]: [Int<'k>; 4]) {
        let operands = [to.raw(), a.raw(), b.raw(), c.raw(), d.raw()];
        self.call_for_effect("llvm.nvvm.stmatrix.sync.aligned.m8n8.x4.b16", &operands);
    }
    /// Begins to copy a box of a tensor of two dimensions from shared memory to these coordinates, the innermost first. What is
    /// outside the tensor is not written. One thread does it.
    pub fn store_box(&'k self, to: Param<'k>, (inner, outer): (Int<'k>, Int<'k>), from: Shared<'k>) {
        let (hint, no) = (self.long(0), self.bit(false));
        let operands = [from.raw(), to.raw(), inner.raw(), outer.raw(), hint.raw(), no.raw()];
        self.call_for_effect("llvm.nvvm.cp.async.bulk.tensor.s2g.tile.2d", &operands);
    }
    /// Ends a group of such copies, which may be empty.
    pub fn end_stored_boxes(&'k self) {
        self.call_for_effect("llvm.nvvm.cp.async.bulk.commit.group", &[]);
    }
    /// Waits until of this thread's groups of copies from shared memory at most `pending` still read it.
    pub fn wait_for_stored_boxes(&'k self, pending: i32) {
        self.call_for_effect("llvm.nvvm.cp.async.bulk.wait.group.read", &[self.int(pending).raw()]);
    }

    /// Gives registers back, down to so many a thread; all threads of a warpgroup do it.
    pub fn fewer_registers(&'k self, count: i32) {
        self.call_for_effect("llvm.nvvm.setmaxnreg.dec.sync.aligned.u32", &[self.int(count).raw()]);
    }
    /// Waits for registers, up to so many a thread; all threads of a warpgroup do it.
    pub fn more_registers(&'k self, count: i32) {
        self.call_for_effect("llvm.nvvm.setmaxnreg.inc.sync.aligned.u32", &[self.int(count).raw()]);
    }

    /// Orders registers before the products of a warpgroup that follow: `wgmma.fence`.
    pub fn begin_products(&'k self) {
        self.call_for_effect("llvm.nvvm.wgmma.fence.sync.aligned", &[]);
    }
    /// Ends a group of products and waits until at most `pending` groups are under way.
    pub fn end_products(&'k self, pending: i32) {
        self.call_for_effect("llvm.nvvm.wgmma.commit_group.sync.aligned", &[]);
        self.call_for_effect(
            "llvm.nvvm.wgmma.wait_group.sync.aligned",
            &[self.long(i64::from(pending)).raw()],
        );
    }

    /// The descriptor of a matrix in shared memory whose rows are 32, 64 or 128 bytes, turned in pieces of 16 bytes as tensor
    /// copies turn them. Rows follow each other; more columns than a row has are `further` bytes on. The address is a
    /// multiple of 8 rows (PTX ISA, matrix descriptor format).
    pub fn matrix(&'k self, at: Shared<'k>, (row_bytes, further): (u32, u32)) -> Long<'k> {
        let turn: u64 = match row_bytes {
            32 => 3,
            64 => 2,
            _ => 1,
        };
        let fixed = turn << 62 | u64::from(row_bytes / 2) << 32 | u64::from(further / 16) << 16;
        ((at.address() & 0x3_ffff_i64) >> 4_i64) | fixed as i64
    }

    /// Zeros in registers of their own, made here and not later: a register that a product of the warpgroup changes may not
    /// be written after [`Body::begin_products`].
    pub fn zeros_in_place(&'k self, count: usize) -> Vec<Float<'k>> {
        let text = "mov.b32 $0, 0f00000000;";
        let zero = |_| V::new(self, self.ptx(text, "=f", &[], F32::mlir(self.context()), true));
        (0..count).map(zero).collect()
    }

    /// Adds the product of 64 rows and `2 · sums.len()` columns and 16 elements along the summed axis:
    /// `wgmma.mma_async.m64nNk16` of f16 or bf16. All threads of a warpgroup do it between [`Body::begin_products`] and
    /// [`Body::end_products`].
    pub fn warpgroup_product(
        &'k self,
        f16: bool,
        sums: &[Float<'k>],
        (left, right): (Left<'k>, Right<'k>),
    ) -> Vec<Float<'k>> {
        self.product(f16, (sums.len(), Some(sums)), (left, right))
    }

    /// The same of bf16 from 0 instead of sums, with so many columns.
    pub fn first_warpgroup_product(
        &'k self,
        columns: usize,
        operands: (Left<'k>, Right<'k>),
    ) -> Vec<Float<'k>> {
        self.product(false, (columns / 2, None), operands)
    }

    fn product(
        &'k self,
        f16: bool,
        (count, sums): (usize, Option<&[Float<'k>]>),
        (left, right): (Left<'k>, Right<'k>),
    ) -> Vec<Float<'k>> {
        let list =
            |from: usize, to: usize| (from..to).map(|at| format!("${at}")).collect::<Vec<_>>().join(", ");
        // Sums are both read and written: as results they come first, as operands next.
        let first = count + sums.map_or(0, <[_]>::len);
        let (a, a_major, a_operands) = match left {
            Left::Matrix(a) => (format!("${first}"), "0, ", vec![a.raw()]),
            Left::Registers(a) => (format!("{{{}}}", list(first, first + 4)), "", a.map(V::raw).to_vec()),
        };
        let (b, b_major) = match right {
            Right::AlongSum(b) => (b, 0),
            Right::AlongColumns(b) => (b, 1),
        };
        let kind = if f16 { "f16" } else { "bf16" };
        let text = format!(
            "wgmma.mma_async.sync.aligned.m64n{}k16.f32.{kind}.{kind} {{{}}}, {a}, ${}, {}, 1, 1, {a_major}{b_major};",
            count * 2,
            list(0, count),
            first + a_operands.len(),
            u32::from(sums.is_some()),
        );
        let letter = if a_operands.len() == 1 { "l" } else { "r" };
        let constraints: Vec<String> = (0..count)
            .map(|_| "=f".to_string())
            .chain((0..first - count).map(|at| at.to_string()))
            .chain(a_operands.iter().map(|_| letter.to_string()))
            .chain(["l".to_string()])
            .collect();
        let sums = sums.unwrap_or_default().iter().map(|sum| sum.raw());
        let operands: Vec<_> = sums.chain(a_operands).chain([b.raw()]).collect();
        let ty = llvm::r#struct(self.context(), &vec![F32::mlir(self.context()); count], false);
        self.all_fields(self.ptx(&text, &constraints.join(","), &operands, ty, true), count)
    }

    /// [`Body::begin_products`] for products that read and change these registers: nothing that computes them comes after it.
    pub fn begin_products_on(
        &'k self,
        sums: &[Float<'k>],
        operands: &[[Int<'k>; 4]],
    ) -> (Vec<Float<'k>>, Vec<[Int<'k>; 4]>) {
        let words: Vec<Int<'k>> = operands.iter().flatten().copied().collect();
        let (sums, words) = self.through("wgmma.fence.sync.aligned;", sums, &words);
        (sums, words.as_chunks().0.to_vec())
    }

    /// Ends a group of products and waits for all of them: their sums, which nothing reads before.
    pub fn products_done(&'k self, sums: &[Float<'k>]) -> Vec<Float<'k>> {
        self.call_for_effect("llvm.nvvm.wgmma.commit_group.sync.aligned", &[]);
        self.through("wgmma.wait_group.sync.aligned 0;", sums, &[]).0
    }

    /// An instruction that these values pass on their way, so that what makes them comes before it and what reads them after.
    fn through(
        &'k self,
        text: &str,
        floats: &[Float<'k>],
        words: &[Int<'k>],
    ) -> (Vec<Float<'k>>, Vec<Int<'k>>) {
        let count = floats.len() + words.len();
        let results = floats.iter().map(|_| "=f".to_string()).chain(words.iter().map(|_| "=r".to_string()));
        let operands = (0..count).map(|at| at.to_string());
        let constraints: Vec<_> = results.chain(operands).chain(["~{memory}".into()]).collect();
        let operands: Vec<Value<'k, 'k>> =
            floats.iter().map(|value| value.raw()).chain(words.iter().map(|value| value.raw())).collect();
        let types = floats
            .iter()
            .map(|_| F32::mlir(self.context()))
            .chain(words.iter().map(|_| I32::mlir(self.context())));
        let ty = llvm::r#struct(self.context(), &types.collect::<Vec<_>>(), false);
        let result = self.ptx(text, &constraints.join(","), &operands, ty, true);
        let words = (floats.len()..count).map(|at| self.field(result, at)).collect();
        ((0..floats.len()).map(|at| self.field(result, at)).collect(), words)
    }
}
