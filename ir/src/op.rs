//! The op table. One row gives the variant, its text name, its attributes and their parser; the type rule is in
//! `infer`, the meaning in `eval`.

use crate::{DType, Dim, ScalarOp};
use std::fmt;

/// A 64-bit float that is compared and hashed by its bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Float(u64);

impl Float {
    /// Wraps a number.
    pub fn new(value: f64) -> Self {
        Self(value.to_bits())
    }
    /// The number.
    pub fn get(self) -> f64 {
        f64::from_bits(self.0)
    }
}

impl fmt::Debug for Float {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.get())
    }
}

/// How a reduction combines elements.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize)]
pub enum Monoid {
    /// Sum, from 0.
    Sum,
    /// Maximum, from −∞.
    Max,
}

impl Monoid {
    /// The name in the text forms.
    pub fn name(self) -> &'static str {
        match self {
            Monoid::Sum => "sum",
            Monoid::Max => "max",
        }
    }
    /// The monoid of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Monoid::Sum, Monoid::Max].into_iter().find(|monoid| monoid.name() == name)
    }
}

/// The labels of a contraction, as in Einstein notation: `tk,nk->tn`. A label that is in both operands but not in the
/// result is summed over; one that is in one operand alone must be in the result.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Einsum {
    /// Labels of the first operand's axes.
    pub a: String,
    /// Labels of the second operand's axes.
    pub b: String,
    /// Labels of the result's axes.
    pub out: String,
}

impl Einsum {
    /// Reads `a,b->out`; none if it is not of that form with lower-case labels.
    pub fn parse(text: &str) -> Option<Self> {
        let (operands, out) = text.split_once("->")?;
        let (a, b) = operands.split_once(',')?;
        let plain = |labels: &str| labels.bytes().all(|label| label.is_ascii_lowercase());
        (plain(a) && plain(b) && plain(out)).then(|| Self { a: a.into(), b: b.into(), out: out.into() })
    }
    /// The labels that are summed over, in the order of the first operand.
    pub fn summed(&self) -> String {
        self.a.chars().filter(|label| !self.out.contains(*label)).collect()
    }
    /// Whether every rule of the notation holds: no label twice in an operand, sums over both, nothing dropped.
    pub fn is_valid(&self) -> bool {
        let distinct = |s: &str| s.chars().enumerate().all(|(i, c)| !s[..i].contains(c));
        distinct(&self.a)
            && distinct(&self.b)
            && distinct(&self.out)
            && self.a.chars().all(|c| self.out.contains(c) || self.b.contains(c))
            && self.b.chars().all(|c| self.out.contains(c) || self.a.contains(c))
            && self.out.chars().all(|c| self.a.contains(c) || self.b.contains(c))
    }
}

impl fmt::Display for Einsum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}->{}", self.a, self.b, self.out)
    }
}

/// One attribute of an op, as it stands between brackets in the text form.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Attr {
    /// A quoted string.
    Text(String),
    /// An extent or a whole number.
    Dim(Dim),
    /// A list of extents or axes.
    Dims(Vec<Dim>),
    /// A number.
    Float(Float),
    /// A bare word: an element type or a monoid.
    Word(String),
}

impl fmt::Display for Attr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Attr::Text(text) => write!(f, "{text:?}"),
            Attr::Dim(dim) => write!(f, "{dim}"),
            Attr::Dims(dims) => {
                let dims: Vec<_> = dims.iter().map(Dim::to_string).collect();
                write!(f, "({})", dims.join(", "))
            }
            Attr::Float(value) => write!(f, "{value:?}"),
            Attr::Word(word) => f.write_str(word),
        }
    }
}

/// A field type of the op table.
trait Field: Sized {
    fn to_attr(&self) -> Attr;
    fn from_attr(attr: &Attr) -> Option<Self>;
}

impl Field for String {
    fn to_attr(&self) -> Attr {
        Attr::Text(self.clone())
    }
    fn from_attr(attr: &Attr) -> Option<Self> {
        if let Attr::Text(text) = attr { Some(text.clone()) } else { None }
    }
}
impl Field for Einsum {
    fn to_attr(&self) -> Attr {
        Attr::Text(self.to_string())
    }
    fn from_attr(attr: &Attr) -> Option<Self> {
        if let Attr::Text(text) = attr { Einsum::parse(text) } else { None }
    }
}
impl Field for Dim {
    fn to_attr(&self) -> Attr {
        Attr::Dim(*self)
    }
    fn from_attr(attr: &Attr) -> Option<Self> {
        if let Attr::Dim(dim) = attr { Some(*dim) } else { None }
    }
}
impl Field for usize {
    fn to_attr(&self) -> Attr {
        Attr::Dim(Dim::of(*self))
    }
    fn from_attr(attr: &Attr) -> Option<Self> {
        if let Attr::Dim(dim) = attr { dim.as_const().map(|value| value as usize) } else { None }
    }
}
impl Field for Vec<Dim> {
    fn to_attr(&self) -> Attr {
        Attr::Dims(self.clone())
    }
    fn from_attr(attr: &Attr) -> Option<Self> {
        if let Attr::Dims(dims) = attr { Some(dims.clone()) } else { None }
    }
}
impl Field for Vec<usize> {
    fn to_attr(&self) -> Attr {
        Attr::Dims(self.iter().map(|axis| Dim::of(*axis)).collect())
    }
    fn from_attr(attr: &Attr) -> Option<Self> {
        let Attr::Dims(dims) = attr else { return None };
        dims.iter().map(|dim| dim.as_const().map(|value| value as usize)).collect()
    }
}
impl Field for Float {
    fn to_attr(&self) -> Attr {
        Attr::Float(*self)
    }
    fn from_attr(attr: &Attr) -> Option<Self> {
        match attr {
            Attr::Float(value) => Some(*value),
            Attr::Dim(dim) => dim.as_const().map(|value| Float::new(value as f64)),
            _ => None,
        }
    }
}
impl Field for DType {
    fn to_attr(&self) -> Attr {
        Attr::Word(self.name().into())
    }
    fn from_attr(attr: &Attr) -> Option<Self> {
        if let Attr::Word(word) = attr { DType::from_name(word) } else { None }
    }
}
impl Field for Monoid {
    fn to_attr(&self) -> Attr {
        Attr::Word(self.name().into())
    }
    fn from_attr(attr: &Attr) -> Option<Self> {
        if let Attr::Word(word) = attr { Monoid::from_name(word) } else { None }
    }
}

macro_rules! ops {
    ($($(#[$doc:meta])* $name:literal $arity:expr, $variant:ident { $($field:ident: $ty:ty),* };)*) => {
        /// An operation on tensors.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Op {
            /// A scalar function of every element. Operands have equal rank and equal extents, or extent 1; a rank-0
            /// operand goes with any shape.
            Map(ScalarOp),
            $($(#[$doc])* #[allow(missing_docs, reason = "the fields are named in the row's text")] $variant { $($field: $ty),* },)*
        }

        /// The names of all ops but the scalar functions, in table order.
        pub const OP_NAMES: &[&str] = &[$($name),*];

        impl Op {
            /// The name in the text form.
            pub fn name(&self) -> &'static str {
                match self { Op::Map(scalar) => scalar.name(), $(Op::$variant { .. } => $name,)* }
            }
            /// The attributes in the order of the text form.
            pub fn attrs(&self) -> Vec<Attr> {
                match self {
                    Op::Map(_) => Vec::new(),
                    $(Op::$variant { $($field),* } => vec![$(Field::to_attr($field)),*],)*
                }
            }
            /// The op of that name with those attributes.
            pub fn from_parts(name: &str, attrs: &[Attr]) -> Option<Op> {
                if let Some(scalar) = ScalarOp::from_name(name) {
                    return attrs.is_empty().then_some(Op::Map(scalar));
                }
                let mut attrs = attrs.iter();
                let op = match name {
                    $($name => Op::$variant { $($field: <$ty as Field>::from_attr(attrs.next()?)?),* },)*
                    _ => return None,
                };
                attrs.next().is_none().then_some(op)
            }
            /// The number of operands; none if any number will do.
            pub fn arity(&self) -> Option<usize> {
                match self { Op::Map(scalar) => Some(scalar.arity()), $(Op::$variant { .. } => $arity,)* }
            }
        }
    };
}

ops! {
    /// A tensor given anew at each step.
    "input" Some(0), Input { name: String, shape: Vec<Dim>, dtype: DType };
    /// A weight, the same at every step.
    "param" Some(0), Param { name: String, shape: Vec<Dim>, dtype: DType };
    /// A tensor that lives from step to step, changed by `scatter`: the KV cache.
    "state" Some(0), State { name: String, shape: Vec<Dim>, dtype: DType };
    /// A number, of rank 0.
    "const" Some(0), Const { value: Float, dtype: DType };
    /// 0, 1, 2, … `len`−1, as u32.
    "iota" Some(0), Iota { len: Dim };
    /// The same values in another element type.
    "cast" Some(1), Cast { dtype: DType };
    /// The bytes along the last axis seen as one element of another type, little endian; the axis is gone. Of a type of one
    /// byte, each byte by itself.
    "bitcast" Some(1), Bitcast { dtype: DType };
    /// A sum of products over shared labels, accumulated in f32.
    "contract" Some(2), Contract { spec: Einsum };
    /// All elements along `axis` combined into one; the axis stays, with extent 1.
    "reduce" Some(1), Reduce { monoid: Monoid, axis: usize };
    /// The same elements in row-major order under another shape.
    "reshape" Some(1), Reshape { shape: Vec<Dim> };
    /// The axes in another order: axis `i` of the result is axis `perm[i]` of the operand.
    "transpose" Some(1), Transpose { perm: Vec<usize> };
    /// Axes of extent 1 repeated to `shape`.
    "broadcast" Some(1), Broadcast { shape: Vec<Dim> };
    /// `len` elements along `axis` from `start` on.
    "slice" Some(1), Slice { axis: usize, start: usize, len: usize };
    /// The operands one after the other along `axis`.
    "concat" None, Concat { axis: usize };
    /// Rows of the first operand by the indices of the second: `x[i…]`. An index out of range is an error.
    "gather" Some(2), Gather {};
    /// The first operand with its rows at the second operand's indices replaced by the third's rows.
    "scatter" Some(3), Scatter {};
    /// The `k` greatest along the last axis: their indices, greatest first, ties to the lower index.
    "topk" Some(1), TopK { k: usize };
    /// A contraction whose first operand goes through a softmax over the one summed label first: the cascaded
    /// reduction (max, sum of exponentials, weighted sum) that one pass over the label can compute. A third operand, with
    /// extent 1 along the summed label, is one score more whose weight goes to nothing: the maximum starts there, and the
    /// sum with 1. Found by rewriting.
    "attend" None, Attend { spec: Einsum };
}

impl Op {
    /// Whether it only renames positions: no arithmetic, no data-dependent index.
    pub fn is_view(&self) -> bool {
        matches!(self, Op::Reshape { .. } | Op::Transpose { .. } | Op::Broadcast { .. } | Op::Slice { .. })
    }
    /// The name of an input, a weight or a state.
    pub fn leaf_name(&self) -> Option<&str> {
        match self {
            Op::Input { name, .. } | Op::Param { name, .. } | Op::State { name, .. } => Some(name),
            _ => None,
        }
    }
}
