//! The type rules: the type of an op's result from those of its operands, or why there is none.

use crate::{DType, Dim, Einsum, Op, ScalarOp, Sym, Type};

/// The result type of `op` on operands of the given types. The error says which rule is broken.
pub fn infer(op: &Op, args: &[&Type]) -> Result<Type, String> {
    if let Some(arity) = op.arity()
        && args.len() != arity
    {
        return Err(format!("{} takes {arity} operands, found {}", op.name(), args.len()));
    }
    match op {
        Op::Input { shape, dtype, .. } | Op::Param { shape, dtype, .. } | Op::State { shape, dtype, .. } => {
            Ok(Type::new(*dtype, shape.clone()))
        }
        Op::Const { dtype, .. } => Ok(Type::new(*dtype, [])),
        Op::Iota { len } => Ok(Type::new(DType::U32, [*len])),
        Op::Map(scalar) => map(*scalar, args),
        Op::Cast { dtype } => Ok(Type::new(*dtype, args[0].shape.clone())),
        Op::Bitcast { dtype } => bitcast(*dtype, args[0]),
        Op::Contract { spec } => contract(spec, args[0], args[1]),
        Op::Attend { spec } if spec.summed().len() != 1 => Err("attend sums over exactly one label".into()),
        Op::Attend { spec } => attend(spec, args),
        Op::Reduce { axis, .. } => reduce(*axis, args[0]),
        Op::Reshape { shape } => reshape(shape, args[0]),
        Op::Transpose { perm } => transpose(perm, args[0]),
        Op::Broadcast { shape } => broadcast(shape, args[0]),
        Op::Slice { axis, start, len } => slice(*axis, *start, *len, args[0]),
        Op::Concat { axis } => concat(*axis, args),
        Op::Gather {} => gather(args[0], args[1]),
        Op::Scatter {} => scatter(args[0], args[1], args[2]),
        Op::TopK { k } => top_k(*k, args[0]),
    }
}

fn map(scalar: ScalarOp, args: &[&Type]) -> Result<Type, String> {
    let rank = args.iter().map(|ty| ty.rank()).max().unwrap_or(0);
    let mut shape = vec![Dim::ONE; rank];
    for ty in args.iter().filter(|ty| ty.rank() > 0) {
        if ty.rank() != rank {
            return Err(format!("operands of {} differ in rank: {ty} against rank {rank}", scalar.name()));
        }
        for (axis, (out, dim)) in shape.iter_mut().zip(&ty.shape).enumerate() {
            match (*out == Dim::ONE, *dim == Dim::ONE) {
                (true, _) => *out = *dim,
                (false, true) => {}
                (false, false) if out == dim => {}
                _ => return Err(format!("axis {axis} of {}: {out} against {dim}", scalar.name())),
            }
        }
    }
    Ok(Type::new(map_dtype(scalar, args)?, shape))
}

fn map_dtype(scalar: ScalarOp, args: &[&Type]) -> Result<DType, String> {
    let values = if scalar == ScalarOp::Select { &args[1..] } else { args };
    if scalar == ScalarOp::Select && args[0].dtype != DType::Bool {
        return Err(format!("the first operand of select is bool, found {}", args[0].dtype));
    }
    let dtype = values[0].dtype;
    if let Some(other) = values.iter().find(|ty| ty.dtype != dtype) {
        return Err(format!("operands of {} differ in type: {dtype} against {}", scalar.name(), other.dtype));
    }
    let legal = match scalar {
        ScalarOp::And | ScalarOp::Or | ScalarOp::Not => dtype == DType::Bool,
        ScalarOp::Idiv | ScalarOp::Mod => dtype == DType::U32,
        ScalarOp::Shr | ScalarOp::Bitand => matches!(dtype, DType::U32 | DType::U8),
        _ => dtype == DType::F32 || (scalar.takes_integers() && dtype == DType::U32),
    };
    match legal {
        true if scalar.is_predicate() => Ok(DType::Bool),
        true => Ok(dtype),
        false => Err(format!("{} is not defined on {dtype}", scalar.name())),
    }
}

fn contract(spec: &Einsum, a: &Type, b: &Type) -> Result<Type, String> {
    if !spec.is_valid() {
        return Err(format!("{spec} is not a contraction"));
    }
    if spec.a.len() != a.rank() || spec.b.len() != b.rank() {
        return Err(format!("{spec} does not label {a} and {b}"));
    }
    if [a, b].iter().any(|ty| !ty.dtype.is_float() || ty.dtype.is_float8()) {
        return Err(format!("a contraction takes floats of 16 or 32 bits, found {a} and {b}"));
    }
    let extent = |label: char| -> Result<Dim, String> {
        let from_a = spec.a.find(label).map(|axis| a.shape[axis]);
        let from_b = spec.b.find(label).map(|axis| b.shape[axis]);
        match (from_a, from_b) {
            (Some(x), Some(y)) if x != y => Err(format!("label {label} of {spec} is {x} and {y}")),
            (x, y) => x.or(y).ok_or_else(|| format!("label {label} of {spec} is nowhere")),
        }
    };
    spec.summed().chars().try_for_each(|label| extent(label).map(drop))?;
    Ok(Type::new(DType::F32, spec.out.chars().map(extent).collect::<Result<Vec<_>, _>>()?))
}

fn bitcast(dtype: DType, ty: &Type) -> Result<Type, String> {
    if ty.dtype != DType::U8 {
        return Err(format!("a bitcast takes u8, found {ty}"));
    }
    match (dtype.bytes(), ty.shape.split_last()) {
        (1, _) => Ok(Type::new(dtype, ty.shape.clone())),
        (bytes, Some((last, outer))) if *last == Dim::of(bytes) => Ok(Type::new(dtype, outer)),
        (bytes, _) => Err(format!("{dtype} has {bytes} bytes, the last axis of {ty} has not")),
    }
}

fn attend(spec: &Einsum, args: &[&Type]) -> Result<Type, String> {
    let (scores, values) = match args {
        [scores, values] | [scores, values, _] => (scores, values),
        _ => return Err(format!("attend takes 2 or 3 operands, found {}", args.len())),
    };
    let result = contract(spec, scores, values)?;
    let Some(start) = args.get(2) else { return Ok(result) };
    let fits = |(axis, (dim, of)): (usize, (&Dim, &Dim))| {
        *dim == Dim::ONE || dim == of && Some(axis) != spec.a.find(&spec.summed())
    };
    let shapes = start.shape.iter().zip(&scores.shape);
    if start.dtype != DType::F32 || start.rank() != scores.rank() || !shapes.enumerate().all(fits) {
        return Err(format!("{start} is not one score for each row of {scores}"));
    }
    Ok(result)
}

fn axis_of(axis: usize, ty: &Type) -> Result<Dim, String> {
    ty.shape.get(axis).copied().ok_or_else(|| format!("{ty} has no axis {axis}"))
}

fn reduce(axis: usize, ty: &Type) -> Result<Type, String> {
    axis_of(axis, ty)?;
    if ty.dtype != DType::F32 {
        return Err(format!("a reduction takes f32, found {ty}"));
    }
    let mut shape = ty.shape.clone();
    shape[axis] = Dim::ONE;
    Ok(Type::new(ty.dtype, shape))
}

/// The constant factor and how often each symbol occurs.
fn volume(shape: &[Dim]) -> Option<(u64, [u32; Sym::ALL.len()])> {
    let mut symbols = [0; Sym::ALL.len()];
    let mut coeff = 1u64;
    for dim in shape {
        coeff = coeff.checked_mul(dim.coeff)?;
        if let Some(sym) = dim.sym {
            symbols[sym.index()] += 1;
        }
    }
    Some((coeff, symbols))
}

fn reshape(shape: &[Dim], ty: &Type) -> Result<Type, String> {
    match (volume(shape), volume(&ty.shape)) {
        (Some(wanted), Some(found)) if wanted == found => Ok(Type::new(ty.dtype, shape)),
        _ => Err(format!("{ty} has not the elements of {}", Type::new(ty.dtype, shape))),
    }
}

fn transpose(perm: &[usize], ty: &Type) -> Result<Type, String> {
    let mut sorted = perm.to_vec();
    sorted.sort_unstable();
    if sorted != (0..ty.rank()).collect::<Vec<_>>() {
        return Err(format!("{perm:?} is no permutation of the axes of {ty}"));
    }
    Ok(Type::new(ty.dtype, perm.iter().map(|axis| ty.shape[*axis]).collect::<Vec<_>>()))
}

fn broadcast(shape: &[Dim], ty: &Type) -> Result<Type, String> {
    let fits = ty.rank() == shape.len()
        && ty.shape.iter().zip(shape).all(|(from, to)| from == to || *from == Dim::ONE);
    if !fits {
        return Err(format!("{ty} does not broadcast to {}", Type::new(ty.dtype, shape)));
    }
    Ok(Type::new(ty.dtype, shape))
}

fn slice(axis: usize, start: usize, len: usize, ty: &Type) -> Result<Type, String> {
    let extent =
        axis_of(axis, ty)?.as_const().ok_or_else(|| format!("axis {axis} of {ty} is not constant"))?;
    if start.checked_add(len).is_none_or(|end| end as u64 > extent) {
        return Err(format!("{start}+{len} is outside axis {axis} of {ty}"));
    }
    let mut shape = ty.shape.clone();
    shape[axis] = Dim::of(len);
    Ok(Type::new(ty.dtype, shape))
}

fn concat(axis: usize, args: &[&Type]) -> Result<Type, String> {
    let first = args.first().ok_or("concat needs an operand")?;
    let mut total = 0;
    for ty in args {
        let same = ty.rank() == first.rank()
            && ty.dtype == first.dtype
            && ty.shape.iter().zip(&first.shape).enumerate().all(|(i, (x, y))| i == axis || x == y);
        if !same {
            return Err(format!("{ty} and {first} do not join along axis {axis}"));
        }
        total +=
            axis_of(axis, ty)?.as_const().ok_or_else(|| format!("axis {axis} of {ty} is not constant"))?;
    }
    let mut shape = first.shape.clone();
    shape[axis] = Dim::of(total as usize);
    Ok(Type::new(first.dtype, shape))
}

fn gather(x: &Type, indices: &Type) -> Result<Type, String> {
    if indices.dtype != DType::U32 || x.rank() == 0 {
        return Err(format!("gather takes rows of a tensor by u32 indices, found {x} and {indices}"));
    }
    Ok(Type::new(x.dtype, [&indices.shape[..], &x.shape[1..]].concat()))
}

fn scatter(base: &Type, indices: &Type, rows: &Type) -> Result<Type, String> {
    let wanted = gather(base, indices)?;
    if *rows != wanted {
        return Err(format!("scatter into {base} at {indices} takes {wanted}, found {rows}"));
    }
    Ok(base.clone())
}

fn top_k(k: usize, ty: &Type) -> Result<Type, String> {
    let last = ty.rank().checked_sub(1).ok_or("topk of a scalar")?;
    if ty.shape[last].as_const().is_none_or(|extent| k as u64 > extent) || ty.dtype != DType::F32 {
        return Err(format!("{ty} has not {k} greatest"));
    }
    let mut shape = ty.shape.clone();
    shape[last] = Dim::of(k);
    Ok(Type::new(DType::U32, shape))
}
