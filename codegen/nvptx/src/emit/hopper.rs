//! What Hopper brought: mbarriers, tensor copies, products of a warpgroup (PTX ISA, "mbarrier",
//! "cp.async.bulk.tensor", "wgmma").

use super::body::Body;
use super::value::{Bit, F32, Float, I1, I64, Int, Long, Param, Ptr, Scalar, Shared, V};
use melior::dialect::llvm::r#type as llvm;

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
    /// Begins to copy a box of a tensor of two dimensions from shared memory to these coordinates, the innermost first, and
    /// ends a group of such copies. What is outside the tensor is not written. One thread does it.
    pub fn store_box(&'k self, to: Param<'k>, (inner, outer): (Int<'k>, Int<'k>), from: Shared<'k>) {
        let (hint, no) = (self.long(0), self.bit(false));
        let operands = [from.raw(), to.raw(), inner.raw(), outer.raw(), hint.raw(), no.raw()];
        self.call_for_effect("llvm.nvvm.cp.async.bulk.tensor.s2g.tile.2d", &operands);
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

    /// The descriptor of a matrix in shared memory whose rows are 128 bytes along the summed axis, turned in pieces of 16
    /// bytes as tensor copies turn them within 128 bytes. The address is a multiple of 1,024 (PTX ISA, matrix descriptor
    /// format: 8 rows are 1,024 bytes apart).
    pub fn matrix(&'k self, at: Shared<'k>) -> Long<'k> {
        const TURNED: i64 = 1 << 62 | (1024 >> 4) << 32 | 1 << 16;
        ((at.address() & 0x3_ffff_i64) >> 4_i64) | TURNED
    }

    /// Zeros in registers of their own, made here and not later: a register that a product of the warpgroup changes may not
    /// be written after [`Body::begin_products`].
    pub fn zeros_in_place(&'k self, count: usize) -> Vec<Float<'k>> {
        let text = "mov.b32 $0, 0f00000000;";
        let zero = |_| V::new(self, self.ptx(text, "=f", &[], F32::mlir(self.context()), true));
        (0..count).map(zero).collect()
    }

    /// Adds the product of 64 rows and `2 · sums.len()` columns and 16 elements along the summed axis:
    /// `wgmma.mma_async.m64nNk16` with operands in shared memory, of f16 or bf16. All threads of a warpgroup do it between
    /// [`Body::begin_products`] and [`Body::end_products`].
    pub fn warpgroup_product(
        &'k self,
        f16: bool,
        sums: &[Float<'k>],
        (a, b): (Long<'k>, Long<'k>),
    ) -> Vec<Float<'k>> {
        let count = sums.len();
        let registers: Vec<String> = (0..count).map(|at| format!("${at}")).collect();
        let kind = if f16 { "f16" } else { "bf16" };
        let text = format!(
            "wgmma.mma_async.sync.aligned.m64n{}k16.f32.{kind}.{kind} {{{}}}, ${}, ${}, 1, 1, 1, 0, 0;",
            count * 2,
            registers.join(", "),
            count * 2,
            count * 2 + 1
        );
        // Each sum is both read and written.
        let results = (0..count).map(|_| "=f".to_string());
        let operands = (0..count).map(|at| at.to_string());
        let constraints: Vec<_> = results.chain(operands).chain(["l".into(), "l".into()]).collect();
        let operands: Vec<_> = sums.iter().map(|sum| sum.raw()).chain([a.raw(), b.raw()]).collect();
        let ty = llvm::r#struct(self.context(), &vec![F32::mlir(self.context()); count], false);
        self.all_fields(self.ptx(&text, &constraints.join(","), &operands, ty, true), count)
    }
}
