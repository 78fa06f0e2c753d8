//! The body of a kernel while it is being written.

use super::value::{F32, F64, Global, I1, I8, I16, I32, I64, Int, Operand, Param, Ptr, Scalar, V};
use melior::Context;
use melior::ir::attribute::{
    DenseI32ArrayAttribute, DenseI64ArrayAttribute, FlatSymbolRefAttribute, FloatAttribute, IntegerAttribute,
    StringAttribute, TypeAttribute,
};
use melior::ir::operation::OperationBuilder;
use melior::ir::r#type::IntegerType;
use melior::ir::{
    Attribute, Block, BlockLike, BlockRef, Identifier, Location, Region, RegionLike, Type, TypeLike, Value,
};
use sinter_ir::{GpuParam, Sym};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

/// The one context argument of all code that writes kernels.
pub type K<'k> = &'k Body<'k>;

/// The name of the dynamic shared memory.
pub(super) const SHARED: &str = "shared_memory";

/// The body of a kernel: where the next operation goes, and what was asked for besides.
pub struct Body<'k> {
    context: &'k Context,
    location: Location<'k>,
    region: &'k Region<'k>,
    block: Cell<BlockRef<'k, 'k>>,
    params: &'k [GpuParam],
    /// The value of each parameter; [`GpuParam::Symbols`] stands for five.
    values: Vec<Value<'k, 'k>>,
    attributes: RefCell<BTreeMap<&'static str, Attribute<'k>>>,
    pub(super) shared_bytes: Cell<u32>,
    pub(super) failure: RefCell<Option<String>>,
}

impl<'k> Body<'k> {
    /// Opens the entry block with one argument for each parameter.
    pub(super) fn new(context: &'k Context, region: &'k Region<'k>, params: &'k [GpuParam]) -> Self {
        let location = Location::unknown(context);
        let types: Vec<_> = param_types(context, params).into_iter().map(|ty| (ty, location)).collect();
        let block = region.append_block(Block::new(&types));
        let argument = |at| block.argument(at).expect("the block has this argument").into();
        let values = (0..types.len()).map(argument).collect();
        Self {
            context,
            location,
            region,
            block: Cell::new(block),
            params,
            values,
            attributes: RefCell::default(),
            shared_bytes: Cell::new(0),
            failure: RefCell::default(),
        }
    }

    /// Gives the kernel up, with a reason; what is written afterwards does not matter.
    pub fn fail(&self, reason: String) {
        self.failure.borrow_mut().get_or_insert(reason);
    }

    pub(super) fn context(&self) -> &'k Context {
        self.context
    }

    /// Appends an operation with any number of results.
    fn append(
        &self,
        name: &str,
        operands: &[Value<'k, 'k>],
        results: &[Type<'k>],
        attributes: &[(&str, Attribute<'k>)],
        successors: &[&Block<'k>],
    ) -> Option<Value<'k, 'k>> {
        let named = |(name, value): &(&str, Attribute<'k>)| (Identifier::new(self.context, name), *value);
        let attributes: Vec<_> = attributes.iter().map(named).collect();
        let operation = OperationBuilder::new(name, self.location)
            .add_operands(operands)
            .add_results(results)
            .add_attributes(&attributes)
            .add_successors(successors)
            .build()
            .expect("an operation with explicit types can be made");
        self.block.get().append_operation(operation).result(0).ok().map(Into::into)
    }

    /// An operation with one result.
    pub(super) fn op(
        &self,
        name: &str,
        operands: &[Value<'k, 'k>],
        result: Type<'k>,
        attributes: &[(&str, Attribute<'k>)],
    ) -> Value<'k, 'k> {
        self.append(name, operands, &[result], attributes, &[]).expect("the operation has a result")
    }

    /// An operation without a result.
    pub(super) fn effect(
        &self,
        name: &str,
        operands: &[Value<'k, 'k>],
        attributes: &[(&str, Attribute<'k>)],
    ) {
        self.append(name, operands, &[], attributes, &[]);
    }

    /// A new block with arguments of these types.
    pub(super) fn new_block(&self, types: &[Type<'k>]) -> BlockRef<'k, 'k> {
        let arguments: Vec<_> = types.iter().map(|ty| (*ty, self.location)).collect();
        self.region.append_block(Block::new(&arguments))
    }

    /// The next operations go to `block`.
    pub(super) fn enter(&self, block: BlockRef<'k, 'k>) {
        self.block.set(block);
    }

    /// Ends the block with a jump; `annotation` is that of a loop.
    pub(super) fn jump(
        &self,
        block: BlockRef<'k, 'k>,
        operands: &[Value<'k, 'k>],
        annotation: Option<&'static str>,
    ) {
        let annotation = annotation.map(|text| ("loop_annotation", self.attribute(text)));
        self.append("llvm.br", operands, &[], annotation.as_slice(), &[&*block]);
    }

    /// Ends the block with a choice; only `no` gets operands.
    pub(super) fn branch(
        &self,
        condition: V<'k, I1>,
        yes: BlockRef<'k, 'k>,
        no: BlockRef<'k, 'k>,
        operands: &[Value<'k, 'k>],
    ) {
        let all: Vec<_> = [condition.raw].into_iter().chain(operands.iter().copied()).collect();
        let segments = [("operandSegmentSizes", self.segments(&[1, 0, operands.len() as i32]))];
        self.append("llvm.cond_br", &all, &[], &segments, &[&*yes, &*no]);
    }

    /// The attribute that this text denotes.
    pub(super) fn attribute(&self, text: &'static str) -> Attribute<'k> {
        let parse = || Attribute::parse(self.context, text).expect("the text of an attribute");
        *self.attributes.borrow_mut().entry(text).or_insert_with(parse)
    }

    pub(super) fn unit(&self) -> Attribute<'k> {
        Attribute::unit(self.context)
    }

    pub(super) fn text(&self, text: &str) -> Attribute<'k> {
        StringAttribute::new(self.context, text).into()
    }

    pub(super) fn symbol_name(&self, name: &str) -> Attribute<'k> {
        FlatSymbolRefAttribute::new(self.context, name).into()
    }

    pub(super) fn ty_attribute(&self, ty: Type<'k>) -> Attribute<'k> {
        TypeAttribute::new(ty).into()
    }

    pub(super) fn segments(&self, sizes: &[i32]) -> Attribute<'k> {
        DenseI32ArrayAttribute::new(self.context, sizes).into()
    }

    pub(super) fn positions(&self, values: &[i64]) -> Attribute<'k> {
        DenseI64ArrayAttribute::new(self.context, values).into()
    }

    pub(super) fn integer<T: Scalar>(&self, value: i64) -> Attribute<'k> {
        IntegerAttribute::new(T::mlir(self.context), value).into()
    }

    pub(super) fn number(&self, value: f32) -> Attribute<'k> {
        FloatAttribute::new(self.context, F32::mlir(self.context), f64::from(value)).into()
    }

    pub(super) fn wide_number(&self, value: f64) -> Attribute<'k> {
        FloatAttribute::new(self.context, F64::mlir(self.context), value).into()
    }

    pub(super) fn constant<T: Scalar>(&'k self, value: Attribute<'k>) -> V<'k, T> {
        V::new(self, self.op("llvm.mlir.constant", &[], T::mlir(self.context), &[("value", value)]))
    }
    /// A constant 32-bit integer.
    pub fn int(&'k self, value: i32) -> V<'k, I32> {
        value.value(self)
    }
    /// A constant 64-bit integer.
    pub fn long(&'k self, value: i64) -> V<'k, I64> {
        value.value(self)
    }
    /// A constant 16-bit integer.
    pub fn short(&'k self, value: i32) -> V<'k, I16> {
        value.value(self)
    }
    /// A constant 8-bit integer.
    pub fn byte(&'k self, value: i32) -> V<'k, I8> {
        value.value(self)
    }
    /// A constant float.
    pub fn float(&'k self, value: f32) -> V<'k, F32> {
        value.value(self)
    }
    /// A constant 64-bit float.
    pub fn double(&'k self, value: f64) -> V<'k, F64> {
        value.value(self)
    }
    /// A constant truth value.
    pub fn bit(&'k self, value: bool) -> V<'k, I1> {
        value.value(self)
    }

    /// The value of the first parameter that `wanted` picks, plus `extra` positions.
    fn param<T: Scalar>(&'k self, extra: usize, wanted: impl Fn(&GpuParam) -> bool) -> V<'k, T> {
        let mut at = 0;
        for param in self.params {
            if wanted(param) {
                return V::new(self, self.values[at + extra]);
            }
            at += if *param == GpuParam::Symbols { Sym::ALL.len() } else { 1 };
        }
        self.fail("the body asks for a parameter that its entry does not declare".into());
        V::new(self, self.op("llvm.mlir.poison", &[], T::mlir(self.context), &[]))
    }

    /// The address of an argument of the launch. The entry must declare it.
    pub fn address(&'k self, arg: usize) -> Global<'k> {
        self.param(0, |param| *param == GpuParam::Address(arg))
    }
    /// The value of a symbol. The entry must declare [`GpuParam::Symbols`].
    pub fn symbol(&'k self, sym: Sym) -> Int<'k> {
        self.param(sym.index(), |param| *param == GpuParam::Symbols)
    }
    /// The launch's scratch memory. The entry must declare it.
    pub fn scratch(&'k self) -> Global<'k> {
        self.param(0, |param| *param == GpuParam::Scratch)
    }
    /// The address of the tensor map over an argument. The entry must declare it.
    pub fn tensor_map(&'k self, arg: usize) -> Param<'k> {
        let wanted = |param: &GpuParam| matches!(param, GpuParam::TensorMap(map) if map.arg == arg);
        self.param(0, wanted)
    }
}

/// The types of a kernel's arguments.
pub(super) fn param_types<'c>(context: &'c Context, params: &[GpuParam]) -> Vec<Type<'c>> {
    let mut types = Vec::new();
    for param in params {
        match param {
            GpuParam::Address(_) | GpuParam::Scratch => types.push(Ptr::<1>::mlir(context)),
            GpuParam::Symbols => types.extend(Sym::ALL.map(|_| Type::from(IntegerType::new(context, 32)))),
            GpuParam::TensorMap(_) => types.push(Ptr::<0>::mlir(context)),
        }
    }
    debug_assert!(types.iter().all(|ty| !ty.is_none()));
    types
}
