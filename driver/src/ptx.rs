//! What can be read off a kernel without running it: its instructions by kind, counted from the PTX.

use std::collections::BTreeMap;

/// The kinds, each with the beginnings of its instructions (PTX ISA, chapter 9). The first that fits counts.
const KINDS: &[(&str, &[&str])] = &[
    ("matrix", &["mma.", "wgmma.mma_async"]),
    ("tensor copy", &["cp.async.bulk"]),
    ("copy to shared", &["cp.async"]),
    ("matrix fragments", &["ldmatrix", "stmatrix"]),
    ("global load", &["ld.global", "ld.nc", "ld.weak.global", "ld.relaxed"]),
    ("global store", &["st.global", "st.weak.global", "st.relaxed", "red.", "atom."]),
    ("shared load", &["ld.shared"]),
    ("shared store", &["st.shared"]),
    ("parameter", &["ld.param", "cvta.param"]),
    ("barrier", &["bar.", "barrier.", "mbarrier.", "fence.", "membar.", "wgmma.", "griddepcontrol"]),
    ("shuffle", &["shfl.", "vote.", "match.", "redux."]),
    ("special function", &["ex2.", "lg2.", "rcp.", "rsqrt.", "sqrt.", "sin.", "cos.", "tanh.", "div."]),
    (
        "float",
        &[
            "fma.", "add.f", "add.rn.f", "add.rn", "sub.f", "sub.rn", "mul.f", "mul.rn", "max.f", "min.f",
            "neg.f", "abs.f", "add.ftz", "mul.ftz", "sub.ftz",
        ],
    ),
    ("conversion", &["cvt."]),
    ("branch", &["bra", "ret", "call", "exit"]),
    ("comparison", &["setp.", "selp.", "set."]),
    ("move", &["mov.", "cvta.", "mapa."]),
];

/// The instructions of a PTX module by kind, in the order of a table; those of no other kind are `integer`.
pub fn mix(ptx: &str) -> BTreeMap<&'static str, usize> {
    let mut mix = BTreeMap::new();
    for instruction in instructions(ptx) {
        let fits = |(_, begins): &&(&str, &[&str])| begins.iter().any(|begin| instruction.starts_with(begin));
        let kind = KINDS.iter().find(fits).map_or("integer", |(kind, _)| kind);
        *mix.entry(kind).or_insert(0) += 1;
    }
    mix
}

/// The operations of the statements of a module, without guards and labels.
fn instructions(ptx: &str) -> impl Iterator<Item = &str> {
    ptx.lines().filter_map(|line| {
        let mut line = line.trim();
        if let Some((label, rest)) = line.split_once(':')
            && label.starts_with('$')
        {
            line = rest.trim();
        }
        if line.starts_with('@') {
            line = line.split_once(char::is_whitespace)?.1.trim();
        }
        let is_code = line.ends_with(';') && line.starts_with(|c: char| c.is_ascii_lowercase());
        is_code.then(|| line.split([' ', '\t', ';']).next().unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PTX: &str = "
.version 8.0
.target sm_80
.visible .entry k(
	.param .u64 k_param_0
)
.reqntid 128
{
	.reg .pred %p<2>;
	ld.param.b64 	%rd1, [k_param_0];
	mov.u32 	%r1, %tid.x;
$L__BB0_1:
	@%p1 bra 	$L__BB0_2;
	mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f1}, {%r2}, {%r3}, {%f1};
	ld.global.nc.v4.b32 	{%r4, %r5, %r6, %r7}, [%rd1];
	fma.rn.f32 	%f2, %f1, %f1, %f1;
	cp.async.cg.shared.global [%r1], [%rd1], 16;
	cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%r1], [%rd1, {%r1, %r1}], [%r1];
	add.s32 	%r9, %r1, 1;
	st.global.b32 	[%rd1], %r9;
	// mma in a comment;
$L__BB0_2:
	ret;
}
";

    #[test]
    fn instructions_are_counted_by_kind() {
        let mix = mix(PTX);
        let of = |kind: &str| mix.get(kind).copied().unwrap_or(0);
        assert_eq!(mix.values().sum::<usize>(), 11);
        let once =
            ["matrix", "tensor copy", "copy to shared", "global load", "global store", "float", "integer"];
        for kind in once.into_iter().chain(["parameter", "move"]) {
            assert_eq!(of(kind), 1, "{kind}");
        }
        assert_eq!(of("branch"), 2);
    }
}
