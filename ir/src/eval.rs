//! The naive evaluator: the meaning of every op, one function each, in f32 or f64. Slow and plain on purpose.

use crate::{Binding, DType, Einsum, Float8, Graph, Monoid, Op, ScalarOp, ValueId};

/// The number type that the evaluator computes in.
pub trait Real: Copy + PartialEq + std::fmt::Debug {
    /// The nearest number of this type.
    fn from_f64(value: f64) -> Self;
    /// The same number in double precision.
    fn to_f64(self) -> f64;
    /// x + y
    fn add(self, other: Self) -> Self;
    /// x − y
    fn sub(self, other: Self) -> Self;
    /// x · y
    fn mul(self, other: Self) -> Self;
    /// x / y
    fn div(self, other: Self) -> Self;
    /// f(x), computed in double precision.
    fn apply(self, f: fn(f64) -> f64) -> Self {
        Self::from_f64(f(self.to_f64()))
    }
    /// The value as stored in `dtype`. In f64 mode floats are left alone: there the evaluator computes over the reals.
    fn stored(self, dtype: DType) -> Self;
}

impl Real for f32 {
    fn from_f64(value: f64) -> Self {
        value as f32
    }
    fn to_f64(self) -> f64 {
        self as f64
    }
    fn add(self, other: Self) -> Self {
        self + other
    }
    fn sub(self, other: Self) -> Self {
        self - other
    }
    fn mul(self, other: Self) -> Self {
        self * other
    }
    fn div(self, other: Self) -> Self {
        self / other
    }
    fn stored(self, dtype: DType) -> Self {
        match dtype {
            DType::F32 | DType::Bool => self,
            DType::Bf16 => half::bf16::from_f32(self).to_f32(),
            DType::F16 => half::f16::from_f32(self).to_f32(),
            DType::U32 => self.trunc().max(0.0),
            DType::U8 => f32::from(self as u8),
            DType::I8 => f32::from(self as i8),
            DType::I32 => self as i32 as f32,
            DType::F8e4m3 | DType::F8e5m2 | DType::F8e8m0 => match Float8::of(dtype) {
                Some(format) => format.decode(format.encode(self)),
                None => self,
            },
        }
    }
}

impl Real for f64 {
    fn from_f64(value: f64) -> Self {
        value
    }
    fn to_f64(self) -> f64 {
        self
    }
    fn add(self, other: Self) -> Self {
        self + other
    }
    fn sub(self, other: Self) -> Self {
        self - other
    }
    fn mul(self, other: Self) -> Self {
        self * other
    }
    fn div(self, other: Self) -> Self {
        self / other
    }
    fn stored(self, dtype: DType) -> Self {
        match dtype {
            DType::U32 => self.trunc().max(0.0),
            DType::U8 => f64::from(self as u8),
            DType::I8 => f64::from(self as i8),
            DType::I32 => f64::from(self as i32),
            _ => self,
        }
    }
}

/// A dense row-major tensor; integers and truth values are held as numbers.
#[derive(Clone, PartialEq, Debug)]
pub struct Tensor<R> {
    /// The extents, outermost first.
    pub shape: Vec<usize>,
    /// The elements.
    pub data: Vec<R>,
}

impl<R: Real> Tensor<R> {
    /// A tensor of these elements. Panics if their number is not the product of the extents.
    pub fn new(shape: Vec<usize>, data: Vec<R>) -> Self {
        assert_eq!(shape.iter().product::<usize>(), data.len(), "elements of shape {shape:?}");
        Self { shape, data }
    }
    /// A tensor whose element at each position is computed.
    pub fn from_fn(shape: &[usize], mut f: impl FnMut(&[usize]) -> R) -> Self {
        let mut position = vec![0; shape.len()];
        let count: usize = shape.iter().product();
        let mut data = Vec::with_capacity(count);
        for _ in 0..count {
            data.push(f(&position));
            advance(&mut position, shape);
        }
        Self { shape: shape.into(), data }
    }
    /// The element at a position, where an axis of extent 1 or a missing leading axis repeats.
    fn at(&self, position: &[usize]) -> R {
        let skip = position.len() - self.shape.len();
        self.data[offset(&self.shape, position[skip..].iter().zip(&self.shape).map(|(p, extent)| p % extent))]
    }
}

fn offset(shape: &[usize], position: impl Iterator<Item = usize>) -> usize {
    shape.iter().zip(position).fold(0, |offset, (extent, p)| offset * extent + p)
}

/// Moves to the next position in row-major order.
fn advance(position: &mut [usize], shape: &[usize]) {
    for (p, extent) in position.iter_mut().zip(shape).rev() {
        *p += 1;
        if *p < *extent {
            return;
        }
        *p = 0;
    }
}

/// Why a graph has no value on these inputs.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EvalError {
    /// A leaf is not given.
    #[error("{value}: {name:?} is not given")]
    Missing {
        /// The node.
        value: ValueId,
        /// The leaf's name.
        name: String,
    },
    /// A leaf has another shape than declared.
    #[error("{value}: {name:?} has shape {found:?}, declared {wanted:?}")]
    Shape {
        /// The node.
        value: ValueId,
        /// The leaf's name.
        name: String,
        /// The declared shape.
        wanted: Vec<usize>,
        /// The given shape.
        found: Vec<usize>,
    },
    /// A gather or scatter index is outside its rows.
    #[error("{value}: index {index} in {rows} rows")]
    Index {
        /// The node.
        value: ValueId,
        /// The index.
        index: usize,
        /// The number of rows.
        rows: usize,
    },
}

/// Evaluates a graph under a binding of the symbols; `leaf` gives inputs, weights and states by name.
/// Returns the outputs in order.
pub fn evaluate<R: Real>(
    graph: &Graph,
    binding: &Binding,
    leaf: &dyn Fn(&str) -> Option<Tensor<R>>,
) -> Result<Vec<(String, Tensor<R>)>, EvalError> {
    let mut values: Vec<Tensor<R>> = Vec::with_capacity(graph.nodes.len());
    for (value, node) in graph.nodes.iter() {
        let shape: Vec<usize> = node.ty.shape.iter().map(|dim| dim.eval(binding) as usize).collect();
        let tensor = if let Some(name) = node.op.leaf_name() {
            let missing = || EvalError::Missing { value, name: name.into() };
            let tensor = leaf(name).ok_or_else(missing)?;
            if tensor.shape != shape {
                return Err(EvalError::Shape {
                    value,
                    name: name.into(),
                    wanted: shape,
                    found: tensor.shape,
                });
            }
            tensor
        } else {
            let args: Vec<&Tensor<R>> = node.args.iter().map(|arg| &values[arg.0 as usize]).collect();
            evaluate_op(&node.op, &args, &shape, value)?
        };
        values.push(tensor);
    }
    Ok(graph.outputs.iter().map(|(name, value)| (name.clone(), values[value.0 as usize].clone())).collect())
}

/// Evaluates one op on operands; `shape` is the result's, `value` the place that errors name.
pub fn evaluate_op<R: Real>(
    op: &Op,
    args: &[&Tensor<R>],
    shape: &[usize],
    value: ValueId,
) -> Result<Tensor<R>, EvalError> {
    Ok(match op {
        Op::Input { name, .. } | Op::Param { name, .. } | Op::State { name, .. } => {
            return Err(EvalError::Missing { value, name: name.clone() });
        }
        Op::Const { value, dtype } => Tensor::new(vec![], vec![R::from_f64(value.get()).stored(*dtype)]),
        Op::Iota { .. } => Tensor::from_fn(shape, |p| R::from_f64(p[0] as f64)),
        Op::Map(scalar) => map(*scalar, args, shape),
        Op::Cast { dtype } => {
            Tensor::new(shape.into(), args[0].data.iter().map(|element| element.stored(*dtype)).collect())
        }
        Op::Bitcast { dtype } => bitcast(*dtype, args[0], shape),
        Op::Contract { spec } => contract(spec, args[0], args[1], shape),
        Op::Attend { spec } => contract(spec, &softmax(args[0], args.get(2).copied(), spec), args[1], shape),
        Op::Reduce { monoid, axis } => reduce(*monoid, *axis, args[0], shape),
        Op::Reshape { .. } => Tensor::new(shape.into(), args[0].data.clone()),
        Op::Transpose { perm } => Tensor::from_fn(shape, |p| {
            let mut source = vec![0; p.len()];
            perm.iter().zip(p).for_each(|(axis, p)| source[*axis] = *p);
            args[0].at(&source)
        }),
        Op::Broadcast { .. } => Tensor::from_fn(shape, |p| args[0].at(p)),
        Op::Slice { axis, start, .. } => Tensor::from_fn(shape, |p| {
            let mut source = p.to_vec();
            source[*axis] += start;
            args[0].at(&source)
        }),
        Op::Concat { axis } => concat(*axis, args, shape),
        Op::Gather {} => gather(args[0], args[1], shape, value)?,
        Op::Scatter {} => scatter(args, value)?,
        Op::TopK { k } => top_k(*k, args[0], shape),
    })
}

fn map<R: Real>(scalar: ScalarOp, args: &[&Tensor<R>], shape: &[usize]) -> Tensor<R> {
    let mut operands = vec![R::from_f64(0.0); args.len()];
    Tensor::from_fn(shape, |p| {
        operands.iter_mut().zip(args).for_each(|(operand, tensor)| *operand = tensor.at(p));
        scalar.eval(&operands)
    })
}

fn bitcast<R: Real>(dtype: DType, x: &Tensor<R>, shape: &[usize]) -> Tensor<R> {
    let bytes: Vec<u8> = x.data.iter().map(|byte| byte.to_f64() as u8).collect();
    let data = bytes.chunks_exact(dtype.bytes()).map(|bytes| R::from_f64(dtype.read(bytes))).collect();
    Tensor::new(shape.into(), data)
}

fn contract<R: Real>(spec: &Einsum, a: &Tensor<R>, b: &Tensor<R>, shape: &[usize]) -> Tensor<R> {
    let summed: Vec<char> = spec.summed().chars().collect();
    let extents: Vec<usize> =
        summed.iter().map(|label| spec.a.find(*label).map_or(1, |axis| a.shape[axis])).collect();
    let labels: Vec<char> = spec.out.chars().chain(summed).collect();
    let order = |operand: &str| -> Vec<usize> {
        operand.chars().map(|label| labels.iter().position(|l| *l == label).unwrap_or(0)).collect()
    };
    let (order_a, order_b) = (order(&spec.a), order(&spec.b));
    Tensor::from_fn(shape, |p| {
        let mut position = [p, &vec![0; extents.len()]].concat();
        let mut sum = R::from_f64(0.0);
        for _ in 0..extents.iter().product() {
            let x = a.data[offset(&a.shape, order_a.iter().map(|label| position[*label]))];
            let y = b.data[offset(&b.shape, order_b.iter().map(|label| position[*label]))];
            sum = sum.add(x.mul(y));
            advance(&mut position[p.len()..], &extents);
        }
        sum
    })
}

/// The softmax of scores and of one more score of each row, if there is one, along the summed label of `spec`; a row
/// without any finite score is all zero.
fn softmax<R: Real>(scores: &Tensor<R>, start: Option<&Tensor<R>>, spec: &Einsum) -> Tensor<R> {
    let axis = spec.a.find(&spec.summed()).unwrap_or(0);
    let mut kept = scores.shape.clone();
    kept[axis] = 1;
    let mut max = reduce(Monoid::Max, axis, scores, &kept);
    if let Some(start) = start {
        max = map(ScalarOp::Max, &[&max, start], &kept);
    }
    let exp = |of: &Tensor<R>, shape: &[usize]| {
        Tensor::from_fn(shape, |p| match max.at(p).to_f64() {
            f64::NEG_INFINITY => R::from_f64(0.0),
            _ => of.at(p).sub(max.at(p)).apply(f64::exp),
        })
    };
    let (first, exp) = (start.map(|start| exp(start, &kept)), exp(scores, &scores.shape));
    let mut sum = reduce(Monoid::Sum, axis, &exp, &kept);
    if let Some(first) = first {
        sum = map(ScalarOp::Add, &[&sum, &first], &kept);
    }
    Tensor::from_fn(&scores.shape, |p| match sum.at(p).to_f64() {
        0.0 => R::from_f64(0.0),
        _ => exp.at(p).div(sum.at(p)),
    })
}

fn reduce<R: Real>(monoid: Monoid, axis: usize, x: &Tensor<R>, shape: &[usize]) -> Tensor<R> {
    Tensor::from_fn(shape, |p| {
        let mut position = p.to_vec();
        let start = R::from_f64(if monoid == Monoid::Sum { 0.0 } else { f64::NEG_INFINITY });
        (0..x.shape[axis]).fold(start, |folded, index| {
            position[axis] = index;
            let element = x.at(&position);
            match monoid {
                Monoid::Sum => folded.add(element),
                Monoid::Max => ScalarOp::Max.eval(&[folded, element]),
            }
        })
    })
}

fn concat<R: Real>(axis: usize, args: &[&Tensor<R>], shape: &[usize]) -> Tensor<R> {
    Tensor::from_fn(shape, |p| {
        let mut position = p.to_vec();
        for tensor in args {
            if position[axis] < tensor.shape[axis] {
                return tensor.at(&position);
            }
            position[axis] -= tensor.shape[axis];
        }
        unreachable!("the type rule makes the operands cover the axis")
    })
}

fn checked<R: Real>(index: R, rows: usize, value: ValueId) -> Result<usize, EvalError> {
    let index = index.to_f64() as usize;
    if index < rows { Ok(index) } else { Err(EvalError::Index { value, index, rows }) }
}

fn gather<R: Real>(
    x: &Tensor<R>,
    indices: &Tensor<R>,
    shape: &[usize],
    value: ValueId,
) -> Result<Tensor<R>, EvalError> {
    let width: usize = x.shape[1..].iter().product();
    let mut data = Vec::with_capacity(indices.data.len() * width);
    for index in &indices.data {
        let row = checked(*index, x.shape[0], value)?;
        data.extend_from_slice(&x.data[row * width..(row + 1) * width]);
    }
    Ok(Tensor::new(shape.into(), data))
}

fn scatter<R: Real>(args: &[&Tensor<R>], value: ValueId) -> Result<Tensor<R>, EvalError> {
    let (mut out, width) = (args[0].clone(), args[0].shape[1..].iter().product::<usize>());
    for (number, index) in args[1].data.iter().enumerate() {
        let row = checked(*index, out.shape[0], value)?;
        out.data[row * width..(row + 1) * width]
            .copy_from_slice(&args[2].data[number * width..(number + 1) * width]);
    }
    Ok(out)
}

fn top_k<R: Real>(k: usize, x: &Tensor<R>, shape: &[usize]) -> Tensor<R> {
    let width = x.shape.last().copied().unwrap_or(1).max(1);
    let mut data = Vec::new();
    for row in x.data.chunks(width) {
        let mut order: Vec<usize> = (0..width).collect();
        // The two zeros are one number.
        let number = |at: &usize| row[*at].to_f64() + 0.0;
        order.sort_by(|i, j| number(j).total_cmp(&number(i)).then(i.cmp(j)));
        data.extend(order[..k].iter().map(|index| R::from_f64(*index as f64)));
    }
    Tensor::new(shape.into(), data)
}
