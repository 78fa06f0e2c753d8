//! Machine code: one Cranelift module for all kernels of a plan, from declaration to addresses that can be called.
#![allow(unsafe_code, reason = "addresses of generated code become functions, and its memory is given back")]

use crate::CodegenError;
use crate::calls::{Calls, Imports, symbols};
use crate::micro::{Isa, kernels, quant::quant_kernels};
use cranelift_codegen::{
    ir::{AbiParam, types},
    settings::{self, Configurable},
};
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{FuncId, Linkage, Module};
use sinter_ir::KernelEntry;
use std::mem::ManuallyDrop;
use std::sync::Arc;

/// Kernels in the making.
pub(crate) struct Code {
    module: JITModule,
    imports: Imports,
}

/// Why Cranelift refuses, as text.
fn refusal(kernel: &str, reason: impl std::fmt::Debug) -> CodegenError {
    CodegenError::Cranelift { kernel: kernel.into(), reason: format!("{reason:?}") }
}

impl Code {
    /// An empty module for this machine, whose kernels call the micro-kernels of `isa`.
    pub(crate) fn new(isa: Isa) -> Result<Self, CodegenError> {
        let (kernels, quant) = (kernels(isa)?, quant_kernels(isa)?);
        let mut flags = settings::builder();
        let check = if cfg!(debug_assertions) { "true" } else { "false" };
        for (name, value) in [("opt_level", "speed"), ("is_pic", "false"), ("enable_verifier", check)] {
            flags.set(name, value).map_err(|error| refusal(name, error))?;
        }
        let machine = cranelift_native::builder().map_err(|error| refusal("machine", error))?;
        let machine =
            machine.finish(settings::Flags::new(flags)).map_err(|error| refusal("machine", error))?;
        let mut builder = JITBuilder::with_isa(machine, cranelift_module::default_libcall_names());
        builder.symbols(symbols(kernels, quant));
        let mut module = JITModule::new(builder);
        let imports = Imports::declare(&mut module).map_err(|error| refusal("imports", error))?;
        Ok(Self { module, imports })
    }

    /// Adds a kernel whose body `emit` writes.
    pub(crate) fn define(
        &mut self,
        name: &str,
        number: usize,
        emit: impl FnOnce(Calls<'_>, &mut cranelift_codegen::ir::Function),
    ) -> Result<FuncId, CodegenError> {
        let mut context = self.context();
        emit(Calls::new(&mut self.module, &self.imports), &mut context.func);
        let symbol = format!("kernel.{number}.{name}");
        let id = self.module.declare_function(&symbol, Linkage::Export, &context.func.signature);
        let id = id.map_err(|error| refusal(name, error))?;
        self.module.define_function(id, &mut context).map_err(|error| refusal(name, error))?;
        self.module.clear_context(&mut context);
        Ok(id)
    }

    /// The text of a kernel's intermediate form.
    pub(crate) fn text(
        &mut self,
        emit: impl FnOnce(Calls<'_>, &mut cranelift_codegen::ir::Function),
    ) -> String {
        let mut context = self.context();
        emit(Calls::new(&mut self.module, &self.imports), &mut context.func);
        context.func.display().to_string()
    }

    /// A context with the signature of [`KernelEntry`].
    fn context(&self) -> cranelift_codegen::Context {
        let mut context = self.module.make_context();
        context.func.signature.params.extend([AbiParam::new(types::I64); 5]);
        context
    }

    /// Links everything that was defined.
    pub(crate) fn finish(
        mut self,
        functions: &[FuncId],
    ) -> Result<(Vec<KernelEntry>, Arc<Ready>), CodegenError> {
        self.module.finalize_definitions().map_err(|error| refusal("module", error))?;
        let entry = |id: &FuncId| {
            let address = self.module.get_finalized_function(*id);
            // SAFETY: the function was emitted with the signature and calling convention of a kernel's entry, and its
            // memory is executable and lives as long as the `Ready` that every kernel holds.
            unsafe { std::mem::transmute::<*const u8, KernelEntry>(address) }
        };
        let entries = functions.iter().map(entry).collect();
        Ok((entries, Arc::new(Ready(ManuallyDrop::new(self.module)))))
    }
}

/// Finished code, which lives until the last kernel is dropped.
pub(crate) struct Ready(ManuallyDrop<JITModule>);

// SAFETY: the module is never looked at again: it is only kept, and taken apart by the one that drops it last.
unsafe impl Send for Ready {}
// SAFETY: as above.
unsafe impl Sync for Ready {}

impl Drop for Ready {
    fn drop(&mut self) {
        // SAFETY: nothing uses the module after this, and no kernel is left that could be called.
        unsafe { ManuallyDrop::take(&mut self.0).free_memory() };
    }
}
