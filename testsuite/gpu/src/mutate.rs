//! Planted miscompiles: changes of a compiled program, in its PTX or in what stands around it.

use sinter_ir::GpuProgram;

/// Which of the lines that fit are changed.
#[derive(Clone, Copy)]
pub enum Which {
    /// The first.
    First,
    /// The last.
    Last,
    /// Every one.
    All,
}

/// A change.
pub enum Edit {
    /// In the lines of kernels whose name begins so that contain a text, the text becomes another.
    Text(&'static str, &'static str, &'static str),
    /// Lines that contain a text go.
    Drop(&'static str, &'static str),
    /// The operands at these places change places (`true`), or the second becomes a copy of the first.
    Operands(&'static str, &'static str, (usize, usize), bool),
    /// The last operand, a number, becomes greater by so much.
    Number(&'static str, &'static str, i64),
    /// The last operand becomes another.
    Becomes(&'static str, &'static str, &'static str),
    /// Anything else; false if there is nothing to change.
    Whole(fn(&mut GpuProgram) -> bool),
}

/// Changes the text of the lines that fit.
fn lines(
    program: &mut GpuProgram,
    (kernels, text): (&str, &str),
    which: Which,
    change: &dyn Fn(&str) -> Option<String>,
) -> bool {
    let fits = |line: &str| line.contains(text) && change(line).is_some_and(|changed| changed != line);
    let mut places = Vec::new();
    for (at, kernel) in
        program.kernels.iter().enumerate().filter(|(_, kernel)| kernel.name.starts_with(kernels))
    {
        places.extend(
            kernel.ptx.lines().enumerate().filter(|(_, line)| fits(line)).map(|(line, _)| (at, line)),
        );
    }
    let chosen: Vec<(usize, usize)> = match which {
        Which::First => places.iter().take(1).copied().collect(),
        Which::Last => places.last().copied().into_iter().collect(),
        Which::All => places,
    };
    for (at, number) in &chosen {
        let kernel = &mut program.kernels[*at];
        let replaced = |(here, line): (usize, &str)| {
            if here == *number { change(line).unwrap_or_default() } else { line.into() }
        };
        kernel.ptx = kernel.ptx.lines().enumerate().map(replaced).collect::<Vec<String>>().join("\n");
    }
    !chosen.is_empty()
}

/// A line with its operands changed.
fn operands(line: &str, change: impl Fn(&mut Vec<String>) -> Option<()>) -> Option<String> {
    let (name, rest) = line.trim().split_once(['\t', ' '])?;
    let mut operands: Vec<String> =
        rest.trim_end_matches(';').split(',').map(|operand| operand.trim().into()).collect();
    change(&mut operands)?;
    Some(format!("\t{name} \t{};", operands.join(", ")))
}

impl Edit {
    /// Changes a program; false if there is nothing to change.
    pub fn apply(&self, which: Which, program: &mut GpuProgram) -> bool {
        match *self {
            Edit::Text(kernels, from, to) => {
                lines(program, (kernels, from), which, &|line| Some(line.replace(from, to)))
            }
            Edit::Drop(kernels, text) => lines(program, (kernels, text), which, &|_| Some(String::new())),
            Edit::Operands(kernels, text, (first, second), swap) => {
                lines(program, (kernels, text), which, &|line| {
                    operands(line, |all| {
                        let (a, b) = (all.get(first)?.clone(), all.get(second)?.clone());
                        if swap {
                            all[first] = b;
                        }
                        all[second] = a;
                        Some(())
                    })
                })
            }
            Edit::Number(kernels, text, more) => lines(program, (kernels, text), which, &|line| {
                operands(line, |all| {
                    let last = all.last_mut()?;
                    *last = (last.parse::<i64>().ok()? + more).to_string();
                    Some(())
                })
            }),
            Edit::Becomes(kernels, text, other) => lines(program, (kernels, text), which, &|line| {
                operands(line, |all| {
                    *all.last_mut()? = other.into();
                    Some(())
                })
            }),
            Edit::Whole(change) => change(program),
        }
    }
}
