//! Attention to be tested: programs of many forms, and steps of sequences whose keys and values lie in pages.

use crate::launch::{Stream, alone, decode, encode, plan_of, run};
use sinter_codegen_schedule::codes::Format;
use sinter_ir::{
    Access, Arg, Binding, DType, DevicePtr, GpuDevice, GpuError, GpuKernel, PAGE, Real, Target, Tensor,
    TileProgram,
};
use std::fmt::Write;

/// What a token sees besides what its query says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mask {
    /// All positions up to its own.
    Causal,
    /// So many positions up to its own.
    Window(u32),
    /// The positions that a table marks: any of its whole context.
    Table,
    /// All tokens of its sequence that are in the step; keys and values are no pages then.
    Sequence,
}

/// A form of attention.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    /// The element type of queries, and of keys and values if they are no codes.
    pub dtype: &'static str,
    /// What keys and values are codes of.
    pub codes: Option<Format>,
    /// Heads of keys and values.
    pub heads: u32,
    /// Query heads of each.
    pub group: u32,
    /// The extents of queries and keys, and of values.
    pub widths: (u32, u32),
    /// The mask.
    pub mask: Mask,
    /// Whether scores are capped at 2, grow with the position by a slope of each head, and the softmax has that slope as one
    /// score more.
    pub capped: bool,
}

impl Form {
    /// The program.
    pub fn program(&self) -> TileProgram {
        let Form { dtype, heads, group, widths: (depth, lanes), mask, .. } = *self;
        let all = heads * group;
        let paged = mask != Mask::Sequence;
        let (stored, layout) = match self.codes {
            None => (dtype, "rows"),
            Some(Format::Int8) => ("i8", "rows"),
            Some(Format::E4m3) => ("f8e4m3", "rows"),
            Some(Format::Int4) => ("i8", "halves"),
        };
        let (rows, context) = if paged { ("N", "16P") } else { ("T", "T") };
        let row = if paged { "a2%16 + 16*p1[p0[a0], a2/16]" } else { "a2" };
        let head = if group > 1 { format!("{group}*a1 + a4") } else { "a1".into() };
        let text = format!(
            "tile @attend {{
  p0: u32[T] read rows \"seq\"
  p1: u32[S, P] read rows \"table\"
  p2: {stored}[{rows}, {heads}, {lanes}] read {layout} \"values\"
  p3: u32[T] read rows \"positions\"
  p4: {dtype}[T, {all}, {depth}] read rows \"queries\"
  p5: {stored}[{rows}, {heads}, {depth}] read {layout} \"keys\"
  p6: {dtype}[T, {all}, {lanes}] write rows \"out\"
  p7: f32[{all}] read rows \"slopes\"
  p8: u32[T, {context}] read rows \"visible\"
{}  a0 = 0..T \"t\"
  a1 = 0..{heads} \"h\"
  a2 = 0..{context} \"c\"
  a3 = 0..{lanes} \"d\"
  a4 = 0..{group} \"g\"
  a5 = 0..{depth} \"k\"
  grid a0, a1{}
  s0 = mma a5 : p4[a0, {head}, a5] * p5[{row}, a1, a5]
{}  s1 = online a2{}{} lanes a3 : e20 * p2[{row}, a1, a3]{}
  e40 = s1
  e41 = cast {dtype} e40
  s2 = store [a3] p6[a0, {head}, a3] = e41
}}
",
            match self.codes {
                None => String::new(),
                Some(_) => format!(
                    "  p9: f32[{rows}, {heads}, 1] read rows \"key_scales\"
  p10: f32[{rows}, {heads}, 1] read rows \"value_scales\"
"
                ),
            },
            if group > 1 { ", a4" } else { "" },
            self.score(&head, row),
            match mask {
                Mask::Causal => " to e32",
                Mask::Window(_) => " from e35 to e32",
                Mask::Table | Mask::Sequence => "",
            },
            if self.capped { " start e4" } else { "" },
            if self.codes.is_some() { " * e36" } else { "" },
        );
        let text = renumbered(&text);
        TileProgram::parse(&text).unwrap_or_else(|error| panic!("{error:?} in\n{text}"))
    }

    /// The lines of the score and of its bounds.
    fn score(&self, head: &str, row: &str) -> String {
        let mut text = String::from("  e0 = s0\n");
        let mut line = |line: &str| writeln!(text, "  {line}").expect("a string takes it");
        let mut last = "e0";
        if self.codes.is_some() {
            line(&format!("e37 = load p9[{row}, a1, 0]\n  e38 = mul e0, e37"));
            last = "e38";
        }
        if self.capped {
            line(&format!("e1 = tanh {last}"));
            line("e2 = const 2.0");
            line("e3 = mul e1, e2");
            line(&format!("e4 = load p7[{head}]"));
            line("e5 = index a2");
            line("e6 = cast f32 e5");
            line("e7 = mul e4, e6");
            line("e8 = add e3, e7");
            last = "e8";
        }
        match self.mask {
            Mask::Causal | Mask::Window(_) => {
                line("e10 = index a2");
                line("e11 = index p3[a0]");
                line("e12 = le e10, e11");
            }
            Mask::Table => line("e12 = index p8[a0, a2]\n  e13 = const 1.0\n  e14 = eq e12, e13"),
            Mask::Sequence => line("e11 = index p0[a0]\n  e12 = index p0[a2]\n  e13 = eq e11, e12"),
        }
        let mut seen = match self.mask {
            Mask::Table => "e14",
            Mask::Sequence => "e13",
            Mask::Causal | Mask::Window(_) => "e12",
        };
        if let Mask::Window(window) = self.mask {
            line(&format!("e15 = index a2 + {window}\n  e16 = lt e11, e15\n  e17 = and e12, e16"));
            seen = "e17";
        }
        line("e19 = const -inf");
        line(&format!("e20 = select {seen}, {last}, e19"));
        if matches!(self.mask, Mask::Causal | Mask::Window(_)) {
            line("e32 = index p3[a0] + 1");
        }
        if let Mask::Window(window) = self.mask {
            line(&format!("e33 = index {window}\n  e34 = max e32, e33\n  e35 = sub e34, e33"));
        }
        if self.codes.is_some() {
            line(&format!("e36 = load p10[{row}, a1, 0]"));
        }
        text
    }
}

/// The same text with expressions numbered one after another.
fn renumbered(text: &str) -> String {
    let mut names: Vec<String> = Vec::new();
    for line in text.lines() {
        let name = line.trim_start().split(' ').next().unwrap_or_default();
        if name.starts_with('e') && name[1..].parse::<u32>().is_ok() {
            names.push(name.into());
        }
    }
    let mut parts: Vec<String> = Vec::new();
    let mut word = String::new();
    for letter in text.chars().chain([' ']) {
        if letter.is_ascii_alphanumeric() {
            word.push(letter);
            continue;
        }
        let known = names.iter().position(|name| *name == word);
        parts.push(known.map_or(word.clone(), |at| format!("e{at}")));
        parts.push(letter.into());
        word.clear();
    }
    parts.concat()
}

/// Numbers of a row as they are stored: codes of half a byte two to a number, and what is there where nothing was written.
fn stored_codes(codes: Option<Format>, stream: &mut Stream, count: u32) -> Vec<f32> {
    let whole = |stream: &mut Stream, most: usize| stream.below(2 * most + 1) as f32 - most as f32;
    match codes {
        None => Vec::new(),
        Some(Format::Int8) => (0..count).map(|_| whole(stream, 127)).collect(),
        Some(Format::E4m3) => (0..count).map(|_| (stream.number() * 448.0).stored(DType::F8e4m3)).collect(),
        // Each is the code plus 8, so that none of them is 0.
        Some(Format::Int4) => {
            let mut half = || whole(stream, 7) + 8.0;
            (0..count / 2).map(|_| half() + 16.0 * half()).collect()
        }
    }
}

/// What a row is that was never written.
fn unwritten(codes: Option<Format>) -> f32 {
    match codes {
        None | Some(Format::E4m3) => f32::NAN,
        Some(Format::Int8) => -128.0,
        Some(Format::Int4) => 0.0,
    }
}

/// Sequences with all of their queries, keys and values.
pub struct World {
    form: Form,
    /// By sequence and position: queries of all heads, keys and values of their heads, and the scales of both.
    rows: Vec<Vec<[Vec<f32>; 5]>>,
    slopes: Vec<f32>,
}

/// A token of a step: its sequence and its position.
pub type Token = (usize, usize);

/// A number for what a table of visible positions is made of.
fn mixed(values: [usize; 3]) -> u64 {
    values.iter().fold(7, |sum, value| (sum ^ *value as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 3)
}

impl World {
    /// Sequences of these lengths.
    pub fn new(form: Form, lengths: &[usize], seed: u64) -> World {
        let mut stream = Stream(seed);
        let stored = if form.dtype == "bf16" { DType::Bf16 } else { DType::F32 };
        let mut numbers = |count: u32, scale: f32| -> Vec<f32> {
            (0..count).map(|_| (stream.number() * scale).stored(stored)).collect()
        };
        let Form { heads, group, widths: (depth, lanes), .. } = form;
        let mut coded = Stream(seed ^ 0x5eed);
        let mut row = || {
            let queries = numbers(heads * group * depth, 1.0);
            let Some(codes) = form.codes else {
                return [queries, numbers(heads * depth, 1.0), numbers(heads * lanes, 1.0), vec![], vec![]];
            };
            let [keys, values] =
                [depth, lanes].map(|width| stored_codes(form.codes, &mut coded, heads * width));
            // The greatest of a row is at most 1.
            let greatest = [127.0, 448.0, 7.0][codes as usize];
            let [of_keys, of_values] =
                [(); 2].map(|()| (0..heads).map(|_| (coded.number() + 1.0) / (2.0 * greatest)).collect());
            [queries, keys, values, of_keys, of_values]
        };
        let rows = lengths.iter().map(|length| (0..*length).map(|_| row()).collect()).collect();
        let slopes = (0..heads * group).map(|_| stream.number() * 0.05).collect();
        World { form, rows, slopes }
    }

    /// Puts a number in place of the values of a position, or of their scales.
    pub fn set_values(&mut self, (sequence, position): Token, value: f32) {
        let which = if self.form.codes.is_some() { 4 } else { 2 };
        self.rows[sequence][position][which].fill(value);
    }

    /// The step in which these tokens are computed. Sequences and pages are numbered by the seed; what the step has not yet
    /// seen is no number, and unused places of the table name no page; but with a table of visible positions, which gives no
    /// bounds, both are as in a cleared cache.
    pub fn step(&self, tokens: &[Token], seed: u64) -> (Binding, Vec<Tensor<f32>>) {
        let mut stream = Stream(seed);
        let mut order: Vec<usize> = Vec::new();
        for (sequence, _) in tokens {
            if !order.contains(sequence) {
                order.insert(stream.below(order.len() + 1), *sequence);
            }
        }
        let page = PAGE as usize;
        let seen = |sequence: usize| {
            let seen = tokens.iter().filter(|token| token.0 == sequence).map(|token| token.1 + 1);
            let seen = seen.max().unwrap_or(0);
            if self.form.mask == Mask::Table { self.rows[sequence].len() } else { seen }
        };
        let needed = |sequence: usize| seen(sequence).div_ceil(page);
        let most = order.iter().map(|sequence| needed(*sequence)).max().unwrap_or(0);
        let pages = if self.form.mask == Mask::Table { most } else { most + stream.below(2) };
        let pool = order.iter().map(|sequence| needed(*sequence)).sum::<usize>() + 2;
        let mut free: Vec<usize> = (0..pool).collect();
        let nowhere = if self.form.mask == Mask::Table { 0.0 } else { 1_000_000.0 };
        let mut table = vec![vec![nowhere; pages]; order.len()];
        let mut owners = vec![None; pool];
        for (number, sequence) in order.iter().enumerate() {
            for (at, entry) in table[number].iter_mut().enumerate().take(needed(*sequence)) {
                let taken = free.swap_remove(stream.below(free.len()));
                *entry = taken as f32;
                owners[taken] = Some((*sequence, at * page));
            }
        }
        let binding =
            Binding::new(tokens.len() as u64, order.len() as u64, pages as u64, (pool * page) as u64);
        let paged = |which: usize, width: usize| -> Vec<f32> {
            let written = if which < 3 { unwritten(self.form.codes) } else { f32::NAN };
            let unseen = if self.form.mask == Mask::Table { 0.0 } else { written };
            let row = |slot: usize| {
                let (sequence, first) = owners[slot / page]?;
                let position = first + slot % page;
                (position < seen(sequence)).then(|| self.rows[sequence][position][which].clone())
            };
            (0..pool * page).flat_map(|slot| row(slot).unwrap_or(vec![unseen; width])).collect()
        };
        let of_tokens = |which: usize| -> Vec<f32> {
            tokens.iter().flat_map(|(sequence, at)| self.rows[*sequence][*at][which].clone()).collect()
        };
        let Form { heads, widths: (depth, lanes), mask, .. } = self.form;
        let rows = |which: usize, width: u32| match mask {
            Mask::Sequence => of_tokens(which),
            _ if which < 3 && self.form.codes == Some(Format::Int4) => {
                paged(which, (heads * width / 2) as usize)
            }
            _ => paged(which, (heads * width) as usize),
        };
        let number = |sequence: usize| order.iter().position(|known| *known == sequence).unwrap_or(0) as f32;
        let data = [
            tokens.iter().map(|token| number(token.0)).collect(),
            table.concat(),
            rows(2, lanes),
            tokens.iter().map(|token| token.1 as f32).collect(),
            of_tokens(0),
            rows(1, depth),
            Vec::new(),
            self.slopes.clone(),
            self.visible(tokens, &binding),
            rows(3, 1),
            rows(4, 1),
        ];
        (binding, self.tensors(&binding, data))
    }

    /// The table of visible positions: those of its own length, more or less at random by token and position.
    fn visible(&self, tokens: &[Token], binding: &Binding) -> Vec<f32> {
        if self.form.mask == Mask::Sequence {
            return vec![0.0; tokens.len() * tokens.len()];
        }
        let context = (binding.values[2] * PAGE) as usize;
        let one = |(sequence, position): &Token, at: usize| {
            let gap = (at / 64 + sequence + position).is_multiple_of(3);
            let seen = at < self.rows[*sequence].len()
                && !gap
                && !mixed([*sequence, *position, at]).is_multiple_of(4);
            f32::from(seen)
        };
        tokens.iter().flat_map(|token| (0..context).map(move |at| one(token, at))).collect()
    }

    fn tensors(&self, binding: &Binding, data: [Vec<f32>; 11]) -> Vec<Tensor<f32>> {
        let program = self.form.program();
        let tensor = |(param, data): (&sinter_ir::TileParam, Vec<f32>)| {
            let shape: Vec<usize> =
                param.stored().shape.iter().map(|dim| dim.eval(binding) as usize).collect();
            let count = shape.iter().product();
            Tensor::new(shape, if data.is_empty() { vec![0.0; count] } else { data })
        };
        program.params.values().zip(data).map(tensor).collect()
    }
}

/// Runs one kernel of a program on copies of its parameters: what it leaves in the result.
pub fn launch(
    device: &mut dyn GpuDevice,
    (kernel, program): (&GpuKernel, &TileProgram),
    (binding, params): &(Binding, Vec<Tensor<f32>>),
) -> Result<Vec<f32>, GpuError> {
    let args = plan_of(program).steps[0].args.clone();
    let whole = alone(program, Target::Sm80, kernel.clone());
    let mut places: Vec<(Arg, DevicePtr)> = Vec::new();
    let (mut out, mut written) = (Vec::new(), None);
    for ((param, tensor), arg) in program.params.values().zip(params).zip(args) {
        let bytes = encode(param, tensor);
        let at = device.alloc(bytes.len() as u64)?;
        if param.access == Access::Read {
            device.write(at, &bytes)?;
        } else {
            out = vec![0; bytes.len()];
            written = Some((at, param.ty.dtype));
        }
        places.push((arg, at));
    }
    let place = |arg: Arg| places.iter().find(|known| known.0 == arg).map_or(DevicePtr(0), |known| known.1);
    run(device, &whole, binding, &place)?;
    let Some((at, dtype)) = written else { return Ok(Vec::new()) };
    device.read(at, &mut out)?;
    for (_, at) in places {
        device.free(at)?;
    }
    Ok(decode(dtype, &out))
}
