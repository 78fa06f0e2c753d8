//! The text form of tile programs: one line an item, and `parse(print(t)) == t` for every program that
//! [`verify_tile`](crate::verify_tile) accepts.
//!
//! ```text
//! tile @contract0 {
//!   p0: f32[T, 64] read rows "x"
//!   p1: f32[32, 64] read panels "w"
//!   p2: f32[T, 32] write rows "v3"
//!   a0 = 0..T "t"
//!   a1 = 0..32 "n"
//!   a2 = 0..64 "k"
//!   grid a0, a1
//!   s0 = mma a2 : p0[a0, a2] * p1[a1, a2]
//!   e0 = s0
//!   e1 = const 2.0
//!   e2 = max e0, e1
//!   s1 = store [] p2[a0, a1] = e2
//! }
//! ```
//!
//! A layout is `rows`, `panels` or codes in panels: `codes4x32z` are of 4 bits in groups of 32 with zeros, `codes8x64m` of 8 bits with
//! lows. Expressions and stages are numbered apart; a stage stands behind the expressions that it evaluates. An index is a sum
//! of multiples of axes, of quotients `(a0 + 1)/16` and remainders `(a0 + 1)%16`, and of u32 elements such as
//! `16*p3[a0, a2/16]`. The other stages are `reduce sum a2 : e3`, and
//! `online a2 from e1 to e2 start e3 lanes a4 : e9 * p4[a2, a4]`, where bounds and start may be left out. Comments begin with `;`.

use crate::op::Float;
use crate::text::dim;
use crate::{
    Access, Atom, Axis, AxisId, Codes, DType, Dim, Expr, ExprId, Id, Index, Layout, Load, Monoid, ParamId,
    ParseError, ScalarOp, Stage, StageId, TileParam, TileProgram, Type,
};
use std::fmt::{self, Display, Write};

/// How deep indices may be nested; no program comes near it.
const DEPTH: usize = 64;

impl Display for TileProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match is_word(&self.name) {
            true => writeln!(f, "tile @{} {{", self.name)?,
            false => writeln!(f, "tile @{:?} {{", self.name)?,
        }
        for (id, TileParam { name, ty, access, layout }) in self.params.iter() {
            writeln!(f, "  {id}: {ty} {access} {layout} {name:?}")?;
        }
        for (id, Axis { name, extent }) in self.axes.iter() {
            writeln!(f, "  {id} = 0..{extent} {name:?}")?;
        }
        writeln!(f, "  grid{}", Listed(" ", &self.grid))?;
        let mut exprs = self.exprs.iter().peekable();
        for (number, stage) in self.stages.iter().enumerate() {
            let roots = stage.roots();
            while let Some((id, expr)) = exprs.next_if(|(id, _)| roots.iter().any(|root| root >= id)) {
                writeln!(f, "  {id} = {expr}")?;
            }
            writeln!(f, "  s{number} = {stage}")?;
        }
        exprs.try_for_each(|(id, expr)| writeln!(f, "  {id} = {expr}"))?;
        writeln!(f, "}}")
    }
}

/// A prefix and items with commas between; nothing at all if there are no items.
struct Listed<'a, T>(&'static str, &'a [T]);

impl<T: Display> Display for Listed<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, item) in self.1.iter().enumerate() {
            write!(f, "{}{item}", if at == 0 { self.0 } else { ", " })?;
        }
        Ok(())
    }
}

impl Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Access::Read => "read",
            Access::Write => "write",
            Access::ReadWrite => "readwrite",
        })
    }
}

impl Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Layout::Rows => f.write_str("rows"),
            Layout::Panels => f.write_str("panels"),
            Layout::Halves => f.write_str("halves"),
            Layout::Codes(codes) => write!(f, "{codes}"),
        }
    }
}

impl Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.param, Listed("", &self.index))
    }
}

impl Display for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Atom::Axis(axis) => write!(f, "{axis}"),
            Atom::Div(index, divisor) => write!(f, "{}/{divisor}", Operand(index)),
            Atom::Mod(index, divisor) => write!(f, "{}%{divisor}", Operand(index)),
            Atom::Load(load) => write!(f, "{load}"),
        }
    }
}

/// An index before `/` or `%`: in parentheses unless it is one atom.
struct Operand<'a>(&'a Index);

impl Display for Operand<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.terms[..] {
            [(atom, 1)] if self.0.offset == 0 => write!(f, "{atom}"),
            _ => write!(f, "({})", self.0),
        }
    }
}

impl Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (atom, factor)) in self.terms.iter().enumerate() {
            f.write_str(match (at, *factor < 0) {
                (0, false) => "",
                (0, true) => "-",
                (_, false) => " + ",
                (_, true) => " - ",
            })?;
            match (factor.unsigned_abs(), atom) {
                (1, _) => write!(f, "{atom}")?,
                (factor, Atom::Div(..) | Atom::Mod(..)) => write!(f, "{factor}*({atom})")?,
                (factor, _) => write!(f, "{factor}*{atom}")?,
            }
        }
        match (self.terms.is_empty(), self.offset) {
            (true, offset) => write!(f, "{offset}"),
            (false, 0) => Ok(()),
            (false, offset) => {
                write!(f, " {} {}", if offset < 0 { "-" } else { "+" }, offset.unsigned_abs())
            }
        }
    }
}

impl Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expr::Const(value) if value.get().is_nan() => write!(f, "const nan {}", value.get().to_bits()),
            Expr::Const(value) => write!(f, "const {value:?}"),
            Expr::Index(index) => write!(f, "index {index}"),
            Expr::Load(load) => write!(f, "load {load}"),
            Expr::Stage(stage) => write!(f, "{stage}"),
            Expr::Apply(op, args) => write!(f, "{}{}", op.name(), Listed(" ", args)),
            Expr::Cast(dtype, arg) => write!(f, "cast {dtype} {arg}"),
        }
    }
}

impl Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stage::Reduce { axis, monoid, value } => write!(f, "reduce {} {axis} : {value}", monoid.name()),
            Stage::Mma { axis, a, b } => write!(f, "mma {axis} : {a} * {b}"),
            Stage::Online { axis, from, to, start, score, lanes, value, factor } => {
                write!(f, "online {axis}")?;
                from.iter().try_for_each(|from| write!(f, " from {from}"))?;
                to.iter().try_for_each(|to| write!(f, " to {to}"))?;
                start.iter().try_for_each(|start| write!(f, " start {start}"))?;
                write!(f, " lanes {lanes} : {score} * {value}")?;
                factor.iter().try_for_each(|factor| write!(f, " * {factor}"))
            }
            Stage::Store { axes, param, index, value } => {
                write!(f, "store [{}] {param}[{}] = {value}", Listed("", axes), Listed("", index))
            }
        }
    }
}

impl TileProgram {
    /// Reads the text form. What is mentioned must exist: parameters, axes and operands above the line, stages anywhere.
    pub fn parse(text: &str) -> Result<TileProgram, ParseError> {
        let mut tile = TileProgram::default();
        let mut promised = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let error = |reason: String| ParseError { line: number + 1, reason };
            let mut scanner = Scanner { rest: line, tile: &tile, promised: None };
            if scanner.at_end() || scanner.eat("}") {
                continue;
            }
            let item = scanner.item().map_err(error)?;
            if !scanner.at_end() {
                return Err(error(format!("the end of the line, found {:?}", scanner.rest)));
            }
            promised.extend(scanner.promised.map(|stage| (number + 1, stage)));
            match item {
                Item::Name(name) => tile.name = name,
                Item::Param(param) => drop(tile.params.push(param)),
                Item::Axis(axis) => drop(tile.axes.push(axis)),
                Item::Grid(axes) => tile.grid = axes,
                Item::Expr(expr) => drop(tile.exprs.push(expr)),
                Item::Stage(stage) => tile.stages.push(stage),
            }
        }
        match promised.iter().find(|(_, stage)| stage.0 as usize >= tile.stages.len()) {
            Some((line, stage)) => Err(ParseError { line: *line, reason: format!("there is no {stage}") }),
            None => Ok(tile),
        }
    }
}

/// What one line says.
enum Item {
    Name(String),
    Param(TileParam),
    Axis(Axis),
    Grid(Vec<AxisId>),
    Expr(Expr),
    Stage(Stage),
}

/// A position in one line of a program whose earlier lines are read.
struct Scanner<'a> {
    rest: &'a str,
    tile: &'a TileProgram,
    /// The stage that the line uses before it stands anywhere.
    promised: Option<StageId>,
}

type Read<T> = Result<T, String>;

impl<'a> Scanner<'a> {
    fn at_end(&mut self) -> bool {
        self.rest = self.rest.trim_start();
        self.rest.is_empty() || self.rest.starts_with(';')
    }

    fn eat(&mut self, token: &str) -> bool {
        self.rest = self.rest.trim_start();
        let found = self.rest.strip_prefix(token);
        self.rest = found.unwrap_or(self.rest);
        found.is_some()
    }

    fn expect(&mut self, token: &str) -> Read<()> {
        if self.eat(token) { Ok(()) } else { Err(self.wanted(format_args!("{token:?}"))) }
    }

    fn wanted(&self, what: impl Display) -> String {
        format!("wanted {what}, found {:?}", self.rest)
    }

    fn word(&mut self) -> &'a str {
        self.rest = self.rest.trim_start();
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    /// The thing of `all` that a word names.
    fn one_of<T: Copy>(&mut self, what: &str, all: &[T], name: impl Fn(T) -> String) -> Read<T> {
        let before = self.rest.trim_start();
        let word = self.word();
        all.iter().copied().find(|thing| name(*thing) == word).ok_or_else(|| {
            let names: Vec<String> = all.iter().map(|thing| name(*thing)).collect();
            format!("wanted {what}, one of {}, found {before:?}", names.join(", "))
        })
    }

    /// An id, such as `e7`, below `limit`.
    fn id<I: Id + Display>(&mut self, limit: usize) -> Read<I> {
        let before = self.rest.trim_start();
        let word = self.word();
        let prefix = &I::new(0).to_string()[..1];
        let number = word.strip_prefix(prefix).and_then(|digits| digits.parse::<u32>().ok());
        match number {
            Some(number) if (number as usize) < limit => Ok(I::new(number as usize)),
            Some(_) => Err(format!("{word} is not defined here")),
            None => Err(format!("wanted an id such as {prefix}0, found {before:?}")),
        }
    }

    fn axis(&mut self) -> Read<AxisId> {
        self.id(self.tile.axes.len())
    }

    fn expr(&mut self) -> Read<ExprId> {
        self.id(self.tile.exprs.len())
    }

    fn list<T>(&mut self, end: &str, mut item: impl FnMut(&mut Self) -> Read<T>) -> Read<Vec<T>> {
        let mut items = Vec::new();
        let done = |scanner: &mut Self| if end.is_empty() { scanner.at_end() } else { scanner.eat(end) };
        while !done(self) {
            if !items.is_empty() {
                self.expect(",")?;
            }
            items.push(item(self)?);
        }
        Ok(items)
    }

    fn quoted(&mut self) -> Read<String> {
        self.expect("\"")?;
        let mut text = String::new();
        let mut chars = self.rest.chars();
        while let Some(c) = chars.next() {
            match c {
                '"' => {
                    self.rest = chars.as_str();
                    return Ok(text);
                }
                '\\' => {
                    let escaped = unescape(&mut chars).ok_or_else(|| self.wanted("an escape of a string"))?;
                    let _ = text.write_char(escaped);
                }
                c => text.push(c),
            }
        }
        Err(self.wanted("a closing quote"))
    }

    fn dim(&mut self) -> Read<Dim> {
        let before = self.rest.trim_start();
        dim(self.word()).ok_or_else(|| format!("wanted an extent such as 4 or 2T, found {before:?}"))
    }

    fn dtype(&mut self) -> Read<DType> {
        self.one_of("an element type", &DType::ALL, |dtype| dtype.name().into())
    }

    fn item(&mut self) -> Read<Item> {
        if self.eat("tile @") {
            let quoted = self.rest.starts_with('"');
            let name = if quoted { self.quoted()? } else { self.word().into() };
            self.expect("{")?;
            return Ok(Item::Name(name));
        }
        if self.eat("grid") {
            return Ok(Item::Grid(self.list("", Self::axis)?));
        }
        let (params, axes) = (self.tile.params.len(), self.tile.axes.len());
        let (exprs, stages) = (self.tile.exprs.len(), self.tile.stages.len());
        match self.rest.trim_start().chars().next() {
            Some('p') => {
                self.next::<ParamId>(params)?;
                self.expect(":")?;
                self.param().map(Item::Param)
            }
            Some('a') => {
                self.next::<AxisId>(axes)?;
                self.expect("=")?;
                self.expect("0..")?;
                let extent = self.dim()?;
                Ok(Item::Axis(Axis { name: self.quoted()?, extent }))
            }
            Some('e') => {
                self.next::<ExprId>(exprs)?;
                self.expect("=")?;
                self.scalar().map(Item::Expr)
            }
            Some('s') => {
                self.next::<StageId>(stages)?;
                self.expect("=")?;
                self.stage().map(Item::Stage)
            }
            _ => Err(self.wanted("a parameter, an axis, the grid, an expression or a stage")),
        }
    }

    /// The id that a line defines: the first free one.
    fn next<I: Id + Display>(&mut self, count: usize) -> Read<()> {
        let before = self.rest.trim_start();
        match self.id::<I>(usize::MAX)? {
            id if id.index() == count => Ok(()),
            _ => Err(format!("the next one is {}, found {before:?}", I::new(count))),
        }
    }

    fn param(&mut self) -> Read<TileParam> {
        let dtype = self.dtype()?;
        self.expect("[")?;
        let ty = Type::new(dtype, self.list("]", Self::dim)?);
        let accesses = [Access::Read, Access::Write, Access::ReadWrite];
        let access = self.one_of("an access", &accesses, |access| access.to_string())?;
        let layout = self.layout()?;
        Ok(TileParam { name: self.quoted()?, ty, access, layout })
    }

    fn layout(&mut self) -> Read<Layout> {
        let before = self.rest;
        if let Some(codes) = Codes::parse(self.word()) {
            return Ok(Layout::Codes(codes));
        }
        self.rest = before;
        self.one_of("a layout", &[Layout::Rows, Layout::Panels, Layout::Halves], |layout| layout.to_string())
    }

    fn scalar(&mut self) -> Read<Expr> {
        let before = self.rest.trim_start();
        match self.word() {
            "const" => self.number().map(Expr::Const),
            "index" => self.index(DEPTH).map(Expr::Index),
            "load" => self.load(DEPTH).map(Expr::Load),
            "cast" => Ok(Expr::Cast(self.dtype()?, self.expr()?)),
            name => match ScalarOp::from_name(name) {
                Some(op) => {
                    let args = self.list("", Self::expr)?;
                    let (wanted, found) = (op.arity(), args.len());
                    let fits = wanted == found;
                    if fits {
                        Ok(Expr::Apply(op, args))
                    } else {
                        Err(format!("{name} takes {wanted} operands, found {found}"))
                    }
                }
                None => {
                    self.rest = before;
                    let stage =
                        self.id(usize::MAX).map_err(|_| format!("wanted an expression, found {before:?}"))?;
                    self.promised = Some(stage);
                    Ok(Expr::Stage(stage))
                }
            },
        }
    }

    fn number(&mut self) -> Read<Float> {
        self.rest = self.rest.trim_start();
        let end = self.rest.find([' ', ';']).unwrap_or(self.rest.len());
        let (token, rest) = self.rest.split_at(end);
        if token == "nan" {
            self.rest = rest;
            let bits = self.word().parse().map_err(|_| "wanted the bits of a NaN")?;
            return Ok(Float::new(f64::from_bits(bits)));
        }
        let value = token.parse().map_err(|_| self.wanted("a number"))?;
        self.rest = rest;
        Ok(Float::new(value))
    }

    fn load(&mut self, depth: usize) -> Read<Load> {
        let param = self.id(self.tile.params.len())?;
        self.expect("[")?;
        Ok(Load { param, index: self.list("]", |scanner| scanner.index(depth))? })
    }

    /// A sum of terms.
    fn index(&mut self, depth: usize) -> Read<Index> {
        let depth = depth.checked_sub(1).ok_or("the index is nested too deeply")?;
        let mut sum = Index::default();
        let mut sign = if self.eat("-") { -1 } else { 1 };
        loop {
            let (factor, term) = self.term(depth)?;
            let scaled = scaled(&term, i128::from(sign) * i128::from(factor));
            sum = scaled
                .and_then(|term| checked_sum(&sum, &term))
                .ok_or("a number does not fit into 64 bits")?;
            sign = match (self.eat("+"), self.eat("-")) {
                (true, _) => 1,
                (_, true) => -1,
                _ => return Ok(sum),
            };
        }
    }

    /// `7`, `a0/16` or `7*a0`.
    fn term(&mut self, depth: usize) -> Read<(u64, Index)> {
        let digit = self.rest.trim_start().starts_with(|c: char| c.is_ascii_digit());
        let number = if digit { Some(self.natural()?) } else { None };
        match number {
            Some(number) if !self.eat("*") => Ok((number, Index::constant(1))),
            _ => Ok((number.unwrap_or(1), self.factor(depth)?)),
        }
    }

    fn natural(&mut self) -> Read<u64> {
        let before = self.rest.trim_start();
        self.word().parse().map_err(|_| format!("wanted a whole number, found {before:?}"))
    }

    /// An axis, an element or a parenthesis, and what it is divided by.
    fn factor(&mut self, depth: usize) -> Read<Index> {
        let mut index = if self.eat("(") {
            let inner = self.index(depth)?;
            self.expect(")")?;
            inner
        } else if self.rest.trim_start().starts_with('p') {
            Index::atom(Atom::Load(Box::new(self.load(depth)?)))
        } else {
            Index::axis(self.axis()?)
        };
        for _ in 0..DEPTH {
            let atom: fn(Box<Index>, u64) -> Atom = match (self.eat("/"), self.eat("%")) {
                (true, _) => Atom::Div,
                (_, true) => Atom::Mod,
                _ => return Ok(index),
            };
            match self.natural()? {
                0 => return Err("a division by zero".into()),
                divisor => index = Index::atom(atom(Box::new(index), divisor)),
            }
        }
        Err("the index is nested too deeply".into())
    }

    fn stage(&mut self) -> Read<Stage> {
        let before = self.rest.trim_start();
        match self.word() {
            "reduce" => {
                let monoids = [Monoid::Sum, Monoid::Max];
                let monoid = self.one_of("a monoid", &monoids, |monoid| monoid.name().into())?;
                let axis = self.axis()?;
                self.expect(":")?;
                Ok(Stage::Reduce { axis, monoid, value: self.expr()? })
            }
            "mma" => {
                let axis = self.axis()?;
                self.expect(":")?;
                let a = self.load(DEPTH)?;
                self.expect("*")?;
                Ok(Stage::Mma { axis, a, b: self.load(DEPTH)? })
            }
            "online" => {
                let axis = self.axis()?;
                let from = if self.eat("from ") { Some(self.expr()?) } else { None };
                let to = if self.eat("to ") { Some(self.expr()?) } else { None };
                let start = if self.eat("start ") { Some(self.expr()?) } else { None };
                self.expect("lanes ")?;
                let lanes = self.axis()?;
                self.expect(":")?;
                let score = self.expr()?;
                self.expect("*")?;
                let value = self.load(DEPTH)?;
                let factor = if self.eat("*") { Some(self.expr()?) } else { None };
                Ok(Stage::Online { axis, from, to, start, score, lanes, value, factor })
            }
            "store" => {
                self.expect("[")?;
                let axes = self.list("]", Self::axis)?;
                let Load { param, index } = self.load(DEPTH)?;
                self.expect("=")?;
                Ok(Stage::Store { axes, param, index, value: self.expr()? })
            }
            _ => Err(format!("wanted mma, reduce, online or store, found {before:?}")),
        }
    }
}

fn is_word(name: &str) -> bool {
    name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_')
}

/// The character that an escape of Rust's string form stands for.
fn unescape(chars: &mut std::str::Chars<'_>) -> Option<char> {
    match chars.next()? {
        'n' => Some('\n'),
        'r' => Some('\r'),
        't' => Some('\t'),
        '0' => Some('\0'),
        'u' => {
            let (digits, rest) = chars.as_str().strip_prefix('{')?.split_once('}')?;
            *chars = rest.chars();
            char::from_u32(u32::from_str_radix(digits, 16).ok()?)
        }
        c @ ('"' | '\'' | '\\') => Some(c),
        _ => None,
    }
}

/// The multiple, unless it overflows.
fn scaled(index: &Index, factor: i128) -> Option<Index> {
    let times = |value: i64| i64::try_from(i128::from(value).checked_mul(factor)?).ok();
    let offset = times(index.offset)?;
    let mut terms = Vec::with_capacity(index.terms.len());
    for (atom, value) in &index.terms {
        terms.push((atom.clone(), times(*value)?));
    }
    terms.retain(|(_, factor)| *factor != 0);
    Some(Index { terms, offset })
}

/// The sum, unless it overflows.
fn checked_sum(a: &Index, b: &Index) -> Option<Index> {
    a.offset.checked_add(b.offset)?;
    for (atom, factor) in &b.terms {
        let known = a.terms.iter().find(|(other, _)| other == atom);
        known.map_or(Some(0), |(_, other)| other.checked_add(*factor))?;
    }
    Some(a.plus(b))
}
