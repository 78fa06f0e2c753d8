//! The instructions that neither an intrinsic nor an operation covers, written as PTX text: one typed function each.

use super::body::Body;
use super::value::{Global, I32, Int, Scalar, Shared, V};
use melior::dialect::llvm::r#type as llvm;
use melior::ir::{Type, Value};

impl<'k> Body<'k> {
    /// PTX text with `$0`, `$1`, ... for results and operands, and LLVM's constraints (`=r`, `l`, ...). `effects` says
    /// that it does more than compute its results.
    pub(super) fn ptx(
        &self,
        text: &str,
        constraints: &str,
        operands: &[Value<'k, 'k>],
        result: Type<'k>,
        effects: bool,
    ) -> Value<'k, 'k> {
        let mut attributes = vec![("asm_string", self.text(text)), ("constraints", self.text(constraints))];
        if effects {
            attributes.push(("has_side_effects", self.unit()));
        }
        self.op("llvm.inline_asm", operands, result, &attributes)
    }

    /// 16 bytes that are read once and by nobody else: past the first cache, to be evicted first (PTX ISA, `ld`).
    pub fn load_once(&'k self, from: Global<'k>) -> [Int<'k>; 4] {
        let text = "ld.global.nc.L1::no_allocate.L2::256B.v4.b32 {$0, $1, $2, $3}, [$4];";
        let result = llvm::r#struct(self.context(), &[I32::mlir(self.context()); 4], false);
        self.fields(self.ptx(text, "=r,=r,=r,=r,l", &[from.raw()], result, false))
    }

    /// Adds 1 to a number in shared memory and gives the one before: `atom.add`. It orders nothing else.
    pub fn take_place(&'k self, counter: Shared<'k>) -> Int<'k> {
        let text = "atom.relaxed.cta.shared::cta.add.u32 $0, [$1], 1;";
        let ty = I32::mlir(self.context());
        V::new(self, self.ptx(text, "=r,l,~{memory}", &[counter.raw()], ty, true))
    }

    /// Adds 1 to a counter that goes from 0 to `last` and back to 0, and gives the number before: `atom.inc`. What the
    /// block wrote before a barrier is visible to whoever counts later, and what others wrote before counting to this
    /// block after its next barrier (PTX ISA, memory consistency model).
    pub fn count_up(&'k self, counter: Global<'k>, last: Int<'k>) -> Int<'k> {
        let text = "atom.acq_rel.gpu.global.inc.u32 $0, [$1], $2;";
        let ty = I32::mlir(self.context());
        V::new(self, self.ptx(text, "=r,l,r,~{memory}", &[counter.raw(), last.raw()], ty, true))
    }
}
