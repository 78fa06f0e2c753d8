//! From a kernel's body to PTX: MLIR module, verified; LLVM module, optimised; text.

use super::body::{Body, K, SHARED, param_types};
use super::value::{I8, I32, I64, Scalar};
use crate::Error;
use inkwell::OptimizationLevel;
use inkwell::attributes::AttributeLoc;
use inkwell::passes::PassBuilderOptions;
use inkwell::targets::{CodeModel, FileType, InitializationConfig, RelocMode, TargetMachine, TargetTriple};
use melior::Context;
use melior::dialect::llvm::{self, attributes::Linkage, r#type as types};
use melior::ir::attribute::{
    ArrayAttribute, DenseI32ArrayAttribute, IntegerAttribute, StringAttribute, TypeAttribute,
};
use melior::ir::operation::{OperationBuilder, OperationLike};
use melior::ir::{Attribute, BlockLike, Identifier, Location, Module, Operation, Region};
use sinter_ir::{GpuParam, Target};
use std::cell::RefCell;
use std::rc::Rc;

/// The version of the PTX ISA that is printed: the first that has all that Hopper brought.
const PTX_VERSION: &str = "+ptx80";

/// What the outside of a kernel looks like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The name of the entry.
    pub name: String,
    /// The parameters in order.
    pub params: Vec<GpuParam>,
    /// Threads in a block.
    pub threads: u32,
    /// A limit on the registers of a thread.
    pub max_registers: Option<u32>,
    /// So many blocks should fit a multiprocessor at least.
    pub min_blocks: Option<u32>,
}

/// A kernel as text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Assembled {
    /// The PTX module.
    pub ptx: String,
    /// The shared memory that the body asked for.
    pub shared_bytes: u32,
}

/// The stages of a kernel, for dumps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stages {
    /// The MLIR module as it was written.
    pub mlir: String,
    /// The LLVM module after optimisation.
    pub llvm: String,
    /// The PTX module.
    pub ptx: String,
}

/// Turns bodies into PTX for one target. Making one takes a few milliseconds, so use it for many kernels.
pub struct Assembler {
    context: Context,
    target: Target,
    machine: TargetMachine,
    complaints: Rc<RefCell<Vec<String>>>,
    /// The stages of every kernel, if they are wanted.
    kept: Option<RefCell<Vec<(String, Stages)>>>,
}

#[allow(unsafe_code, reason = "the registration is written in C++, for MLIR has no C interface for it")]
mod register {
    unsafe extern "C" {
        fn sinterRegisterDialects(context: mlir_sys::MlirContext);
    }

    /// Registers the dialects that kernels are written in.
    pub(super) fn dialects(context: &melior::Context) {
        // SAFETY: the context is alive, and registration keeps no reference to anything else.
        unsafe { sinterRegisterDialects(context.to_raw()) }
    }
}

impl Assembler {
    /// An assembler for a target.
    pub fn new(target: Target) -> Result<Self, Error> {
        let context = Context::new_with_threading(false);
        register::dialects(&context);
        let complaints = Rc::new(RefCell::new(Vec::new()));
        let heard = complaints.clone();
        context.attach_diagnostic_handler(move |diagnostic| {
            heard.borrow_mut().push(diagnostic.to_string());
            true
        });
        inkwell::targets::Target::initialize_nvptx(&InitializationConfig::default());
        let triple = TargetTriple::create("nvptx64-nvidia-cuda");
        let llvm = |reason: String| Error::Llvm { kernel: target.to_string(), reason };
        let machine = inkwell::targets::Target::from_triple(&triple)
            .map_err(|error| llvm(error.to_string()))?
            .create_target_machine(
                &triple,
                target.name(),
                PTX_VERSION,
                OptimizationLevel::Aggressive,
                RelocMode::Default,
                CodeModel::Default,
            )
            .ok_or_else(|| llvm("LLVM has no such target".into()))?;
        Ok(Self { context, target, machine, complaints, kept: None })
    }

    /// The same assembler, which keeps the stages of every kernel for dumps.
    pub fn keeping_stages(mut self) -> Self {
        self.kept = Some(RefCell::default());
        self
    }

    /// The stages that were kept, with the kernels' names.
    pub fn kept_stages(self) -> Vec<(String, Stages)> {
        self.kept.map(RefCell::into_inner).unwrap_or_default()
    }

    /// What is assembled for.
    pub fn target(&self) -> Target {
        self.target
    }

    /// The kernel with this outside and this body.
    pub fn kernel(&self, entry: &Entry, body: impl for<'k> FnOnce(K<'k>)) -> Result<Assembled, Error> {
        let (module, shared_bytes) = self.module(entry, body)?;
        let mlir = self.kept.as_ref().map(|_| module.as_operation().to_string());
        self.optimised(entry, &module, |module| {
            let ptx = self.machine.write_to_memory_buffer(module, FileType::Assembly);
            let ptx = ptx.map_err(|error| error.to_string())?;
            let ptx = String::from_utf8_lossy(ptx.as_slice()).trim_end_matches('\0').to_string();
            if let (Some(kept), Some(mlir)) = (&self.kept, mlir) {
                let stages = Stages { mlir, llvm: module.print_to_string().to_string(), ptx: ptx.clone() };
                kept.borrow_mut().push((entry.name.clone(), stages));
            }
            Ok(Assembled { ptx, shared_bytes })
        })
    }

    /// The MLIR module, verified, and the shared memory that the body asked for.
    fn module(&self, entry: &Entry, body: impl for<'k> FnOnce(K<'k>)) -> Result<(Module<'_>, u32), Error> {
        let context = &self.context;
        let location = Location::unknown(context);
        let module = Module::new(location);
        let region = Region::new();
        let shared_bytes = {
            let kernel = Body::new(context, &region, &entry.params);
            body(&kernel);
            kernel.effect("llvm.return", &[], &[]);
            if let Some(reason) = kernel.failure.take() {
                return Err(Error::Unsupported { kernel: entry.name.clone(), reason });
            }
            kernel.shared_bytes.get()
        };
        if shared_bytes > 0 {
            module.body().append_operation(self.shared_memory());
        }
        module.body().append_operation(self.function(entry, region));
        if !module.as_operation().verify() {
            return Err(Error::Mlir { kernel: entry.name.clone(), reason: self.reason() });
        }
        Ok((module, shared_bytes))
    }

    fn reason(&self) -> String {
        self.complaints.borrow_mut().drain(..).collect::<Vec<_>>().join("; ")
    }

    fn operation<'c>(
        &'c self,
        name: &str,
        attributes: &[(&str, Attribute<'c>)],
        region: Region<'c>,
    ) -> Operation<'c> {
        let named = |(name, value): &(&str, Attribute<'c>)| (Identifier::new(&self.context, name), *value);
        let attributes: Vec<_> = attributes.iter().map(named).collect();
        OperationBuilder::new(name, Location::unknown(&self.context))
            .add_attributes(&attributes)
            .add_regions([region])
            .build()
            .expect("an operation with explicit types can be made")
    }

    /// The external array that stands for dynamic shared memory.
    fn shared_memory(&self) -> Operation<'_> {
        let (context, integer) =
            (&self.context, |value| IntegerAttribute::new(I64::mlir(&self.context), value));
        let attributes = [
            ("sym_name", StringAttribute::new(context, SHARED).into()),
            ("global_type", TypeAttribute::new(types::array(I8::mlir(context), 0)).into()),
            ("linkage", llvm::attributes::linkage(context, Linkage::External)),
            ("addr_space", IntegerAttribute::new(I32::mlir(context), 3).into()),
            ("alignment", integer(1024).into()),
        ];
        self.operation("llvm.mlir.global", &attributes, Region::new())
    }

    fn function<'c>(&'c self, entry: &Entry, region: Region<'c>) -> Operation<'c> {
        let context = &self.context;
        let ty = types::function(types::void(context), &param_types(context, &entry.params), false);
        let integer = |value: u32| IntegerAttribute::new(I32::mlir(context), i64::from(value)).into();
        let mut attributes = vec![
            ("sym_name", StringAttribute::new(context, &entry.name).into()),
            ("function_type", TypeAttribute::new(ty).into()),
            ("nvvm.kernel", Attribute::unit(context)),
            ("nvvm.reqntid", DenseI32ArrayAttribute::new(context, &[entry.threads as i32]).into()),
            ("arg_attrs", self.argument_attributes(&entry.params)),
        ];
        attributes.extend(entry.max_registers.map(|most| ("nvvm.maxnreg", integer(most))));
        attributes.extend(entry.min_blocks.map(|least| ("nvvm.minctasm", integer(least))));
        self.operation("llvm.func", &attributes, region)
    }

    /// Tensor maps are passed by value and never change.
    fn argument_attributes(&self, params: &[GpuParam]) -> Attribute<'_> {
        let parse = |text| Attribute::parse(&self.context, text).expect("the text of an attribute");
        let none = parse("{}");
        let map = parse("{llvm.byval = !llvm.array<128 x i8>, llvm.align = 64 : i64, nvvm.grid_constant}");
        let mut all = Vec::new();
        for param in params {
            match param {
                GpuParam::Symbols => all.extend(sinter_ir::Sym::ALL.map(|_| none)),
                GpuParam::TensorMap(_) => all.push(map),
                GpuParam::Address(_) | GpuParam::Scratch => all.push(none),
            }
        }
        ArrayAttribute::new(&self.context, &all).into()
    }

    /// Calls `print` with the optimised LLVM module.
    fn optimised<T>(
        &self,
        entry: &Entry,
        module: &Module<'_>,
        print: impl FnOnce(&inkwell::module::Module<'_>) -> Result<T, String>,
    ) -> Result<T, Error> {
        let context = inkwell::context::Context::create();
        let Some(translated) = translate(module, &context) else {
            return Err(Error::Mlir { kernel: entry.name.clone(), reason: self.reason() });
        };
        let llvm = |reason: String| Error::Llvm { kernel: entry.name.clone(), reason };
        translated.set_triple(&self.machine.get_triple());
        translated.set_data_layout(&self.machine.get_target_data().get_data_layout());
        if let Some(function) = translated.get_function(&entry.name) {
            // A choice among many constants would become a table of addresses, which a GPU jumps through lane by lane.
            let attribute = context.create_string_attribute("no-jump-tables", "true");
            function.add_attribute(AttributeLoc::Function, attribute);
        }
        translated
            .run_passes("default<O3>", &self.machine, PassBuilderOptions::create())
            .map_err(|error| llvm(error.to_string()))?;
        print(&translated).map_err(llvm)
    }
}

/// The LLVM module of an MLIR module.
#[allow(unsafe_code, reason = "a module passes from MLIR's C interface to LLVM's")]
fn translate<'l>(
    module: &Module<'_>,
    context: &'l inkwell::context::Context,
) -> Option<inkwell::module::Module<'l>> {
    // SAFETY: both contexts are alive, the two crates' types name the same C structures of the one LLVM that is linked,
    // and the translation gives the module's only owner.
    unsafe {
        let raw = mlir_sys::mlirTranslateModuleToLLVMIR(module.as_operation().to_raw(), context.raw() as _);
        (!raw.is_null()).then(|| inkwell::module::Module::new(raw as _))
    }
}
