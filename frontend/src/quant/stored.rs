//! A matrix as a quantised checkpoint stores it: which tensors, and what their numbers are.

/// A matrix `[N, K]`: (code − zero) · scale for every element, or a table's entry · scale, plus or less a minimum.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredMatrix {
    /// Outputs, N.
    pub rows: usize,
    /// Inputs, K.
    pub columns: usize,
    /// The numbers that stand for the elements.
    pub codes: Codes,
    /// What is subtracted from them.
    pub zeros: Zeros,
    /// What the difference is multiplied by.
    pub scales: Scales,
    /// What is added to the product.
    pub minima: Option<Minima>,
}

/// The numbers that stand for the elements of a matrix.
#[derive(Clone, Debug, PartialEq)]
pub enum Codes {
    /// A tensor of signed bytes or 8-bit floats, `[N, K]`.
    Plain {
        /// The tensor.
        name: String,
        /// Its type.
        dtype: sinter_ir::DType,
    },
    /// Bits packed along K, the lowest first: bytes of words `[N, ⌈K·bits/32⌉]`.
    AlongInputs {
        /// The tensor.
        name: String,
        /// Bits of a code.
        bits: usize,
    },
    /// Bits packed along K in words `[K·bits/32, N]` (GPTQ).
    Columns {
        /// The tensor.
        name: String,
        /// Bits of a code.
        bits: usize,
    },
    /// Eight halves of bytes a word `[K, N/8]`, of outputs 0, 2, 4, 6, 1, 3, 5, 7 (AWQ).
    Interleaved {
        /// The tensor.
        name: String,
    },
    /// Halves of bytes over all elements in row-major order; each is the number of an entry of `table`, `[16]`
    /// (bitsandbytes, MXFP4).
    Table {
        /// The tensor.
        name: String,
        /// The tensor's own shape, which has half as many elements.
        shape: Vec<usize>,
        /// The entries: a tensor, or [`FP4`].
        table: String,
        /// Whether the high half comes first.
        high_first: bool,
    },
}

/// What is subtracted from codes.
#[derive(Clone, Debug, PartialEq)]
pub enum Zeros {
    /// Nothing.
    None,
    /// The same everywhere.
    Number(f64),
    /// A tensor of signed bytes, one a group, `[N, groups]`.
    Plain {
        /// The tensor.
        name: String,
    },
    /// Bits packed along N in words `[⌈N·bits/32⌉, groups]`.
    AlongOutputs {
        /// The tensor.
        name: String,
        /// Bits of a zero.
        bits: usize,
    },
    /// Bits packed along N in words `[groups, N·bits/32]` (GPTQ).
    Columns {
        /// The tensor.
        name: String,
        /// Bits of a zero.
        bits: usize,
        /// Whether one less is stored.
        less_one: bool,
    },
    /// As the codes of AWQ, `[groups, N/8]`.
    Interleaved {
        /// The tensor.
        name: String,
    },
}

/// The factors.
#[derive(Clone, Debug, PartialEq)]
pub enum Scales {
    /// One for each row and group of columns, `[N, groups]`.
    Grouped {
        /// The tensor.
        name: String,
        /// The tensor's own shape, which has as many elements.
        shape: Vec<usize>,
        /// Groups of a row.
        groups: usize,
        /// Whether the tensor is `[groups, N]`.
        turned: bool,
        /// The tensor `[K]` that says of each column which group it is in; none if they follow one another.
        order: Option<String>,
        /// A factor of all.
        factor: f64,
    },
    /// One for the whole matrix.
    Single {
        /// The tensor.
        name: String,
        /// The tensor's own shape: no axis, or one of extent 1.
        shape: Vec<usize>,
    },
    /// One for each block of rows and columns, `[⌈N/rows⌉, ⌈K/columns⌉]`.
    Blocks {
        /// The tensor.
        name: String,
        /// Rows of a block.
        rows: usize,
        /// Columns of a block.
        columns: usize,
    },
    /// One for each group of columns of a row, which may be products.
    InBlocks(InBlocks),
    /// One for each run of elements in row-major order.
    Runs {
        /// The tensor.
        name: String,
        /// Elements of a run.
        run: usize,
        /// Scales that are quantised themselves.
        nested: Option<Nested>,
    },
    /// One power of two for each run of elements in row-major order: bytes, of which 127 stands for 1 (E8M0).
    Exponents {
        /// The tensor.
        name: String,
        /// The tensor's own shape.
        shape: Vec<usize>,
        /// Elements of a run.
        run: usize,
    },
}

/// Numbers of groups of columns: one stored number for each block of them, times a whole number for each group of a block.
#[derive(Clone, Debug, PartialEq)]
pub struct InBlocks {
    /// The tensor of f16, `[N, blocks]`.
    pub name: String,
    /// Blocks of a row.
    pub blocks: usize,
    /// The tensor of signed bytes, `[N, groups]`, and groups of a row; without it blocks are groups.
    pub factors: Option<(String, usize)>,
}

/// What is added to the products of codes and scales, or taken from them.
#[derive(Clone, Debug, PartialEq)]
pub struct Minima {
    /// The numbers, of the same groups as the scales.
    pub values: InBlocks,
    /// Whether they are added.
    pub added: bool,
}

/// Scales that are entries of a table, times a factor for each run of them, plus an offset.
#[derive(Clone, Debug, PartialEq)]
pub struct Nested {
    /// The entries, `[256]`.
    pub table: String,
    /// The factors.
    pub factors: String,
    /// Scales of a run.
    pub run: usize,
    /// What is added.
    pub offset: f64,
}

/// The name of the numbers that four bits stand for in E2M1, `[16]`.
pub const FP4: &str = "const.fp4";

/// The name of the powers of two that bytes stand for in E8M0, `[256]`.
pub const POWERS: &str = "const.powers";

/// The constants that quantised weights are made of besides shifts (OCP Microscaling Formats 1.0, 5.3.3 and 5.4.1).
pub(crate) fn tables() -> [(String, Vec<f32>); 2] {
    let halves = [0.0f32, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
    let fp4 = halves.into_iter().chain(halves.map(|x| -x)).collect();
    let powers = (0..256).map(|byte| 2f64.powi(byte - 127) as f32).collect();
    [(FP4.into(), fp4), (POWERS.into(), powers)]
}
