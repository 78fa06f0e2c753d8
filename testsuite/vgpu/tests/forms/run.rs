//! Runs one instruction on many values.

use sinter_ir::{DevicePtr, GpuDevice, LaunchArg, LaunchShape, Target};
use sinter_vgpu::{VirtualGpu, forms};

/// A pattern of mnemonics, the letters of their operands, the values to try, and what comes out, all as 64 bits of which
/// the low ones count.
#[derive(Clone)]
pub struct Case {
    pub pattern: &'static str,
    pub signature: &'static str,
    pub values: Values,
    pub reference: fn(u64, u64, u64, u64) -> u64,
}

/// What the operands are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Values {
    Whole,
    F32,
    F64,
    F16,
    Bf16,
}

const COUNT: usize = 1024;

/// Values at which instructions go wrong, by kind.
const AWKWARD_WHOLE: &[u64] = &[
    0,
    1,
    2,
    3,
    5,
    7,
    8,
    15,
    16,
    17,
    31,
    32,
    33,
    63,
    64,
    65,
    127,
    128,
    255,
    256,
    0x7fff,
    0x8000,
    0xffff,
    0x10000,
    0x7fff_ffff,
    0x8000_0000,
    0x8000_0001,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_ffff_fffe,
    u64::MAX,
];
const AWKWARD_F32: &[u64] = &[
    0,
    0x8000_0000,
    1,
    0x8000_0001,
    0x7f_ffff,
    0x80_0000,
    0x3f80_0000,
    0xbf80_0000,
    0x3f00_0000,
    0x3fc0_0000,
    0x4020_0000,
    0x3f80_0001,
    0x3f7f_ffff,
    0x7f7f_ffff,
    0xff7f_ffff,
    0x7f80_0000,
    0xff80_0000,
    0x7fc0_0000,
    0x7f80_0001,
    0xffff_ffff,
    0x4f00_0000,
    0x4f80_0000,
    0xcf00_0000,
    0x5f00_0000,
    0x3380_0000,
    0x3f80_8000,
    0x3f81_8000,
    0x3f80_1000,
    0x477f_e000,
    0x477f_f000,
    0x3300_0000,
    0x3880_0000,
];
const AWKWARD_F64: &[u64] = &[
    0,
    1 << 63,
    1,
    0x3ff0_0000_0000_0000,
    0xbff0_0000_0000_0000,
    0x7fef_ffff_ffff_ffff,
    0x7ff0_0000_0000_0000,
    0xfff0_0000_0000_0000,
    0x4008_0000_0000_0000,
    0x41e0_0000_0000_0000,
    0x36a0_0000_0000_0000,
    0x47ef_ffff_f000_0000,
    0x3ff0_0000_1000_0000,
    0x3fe0_0000_0000_0000,
];
const AWKWARD_F16: &[u64] = &[
    0, 0x8000, 1, 0x8001, 0x3ff, 0x400, 0x3c00, 0xbc00, 0x3c01, 0x7bff, 0xfbff, 0x7c00, 0xfc00, 0x7e00,
    0x7c01,
];
const AWKWARD_BF16: &[u64] = &[
    0, 0x8000, 1, 0x8001, 0x7f, 0x80, 0x3f80, 0xbf80, 0x3f81, 0x7f7f, 0xff7f, 0x7f80, 0xff80, 0x7fc0, 0x7f81,
];

/// Awkward values first, then pseudo-random ones; the same in every run.
fn values(kind: Values, stream: u64) -> Vec<u64> {
    let special = match kind {
        Values::Whole => AWKWARD_WHOLE,
        Values::F32 => AWKWARD_F32,
        Values::F64 => AWKWARD_F64,
        Values::F16 => AWKWARD_F16,
        Values::Bf16 => AWKWARD_BF16,
    };
    let mut state = 0x9e37_79b9_7f4a_7c15u64.wrapping_mul(stream + 1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let count = special.len() as u64;
    (0..COUNT as u64)
        .map(|at| {
            let random = next();
            // Every pair of awkward values meets; the third operand runs through them as well.
            let pick = [at % count, at / count % count, (at * 7 + at / 13) % count][stream as usize % 3];
            let small = match kind {
                Values::F32 => (random & 0x8fff_ffff | 0x3000_0000) & 0xffff_ffff,
                Values::Whole => random >> (random % 61),
                _ => random,
            };
            if at < count * count { special[pick as usize] } else { small }
        })
        .map(|value| {
            if matches!(kind, Values::F16 | Values::Bf16) && stream % 2 == 1 {
                value ^ value << 16
            } else {
                value
            }
        })
        .collect()
}

/// The kernel that runs one instruction on the values of a thread.
fn kernel(mnemonic: &str, signature: &str) -> String {
    let letters: Vec<char> = signature.chars().collect();
    let mut body = String::new();
    let name = |at: usize, letter: char| match letter {
        'd' => format!("%d{at}"),
        'w' => format!("%w{at}"),
        'p' => format!("%p{at}"),
        _ => format!("%h{at}"),
    };
    let mut operands = vec![name(0, letters[0])];
    for (at, letter) in letters.iter().enumerate().skip(1) {
        body += &format!(
            "ld.param.b64 %base, [in{at}];\nadd.s64 %base, %base, %at;\nld.global.b64 %d{at}, [%base];\n"
        );
        body += &match letter {
            'd' => String::new(),
            'w' => format!("cvt.u32.u64 %w{at}, %d{at};\n"),
            'p' => format!("and.b64 %d{at}, %d{at}, 1;\nsetp.ne.b64 %p{at}, %d{at}, 0;\n"),
            _ => format!("cvt.u16.u64 %h{at}, %d{at};\n"),
        };
        operands.push(name(at, *letter));
    }
    let instruction = format!("{mnemonic} {};\n", operands.join(", "));
    let widen = match letters[0] {
        'd' => "",
        'w' => "cvt.u64.u32 %d0, %w0;\n",
        'p' => "selp.b64 %d0, 1, 0, %p0;\n",
        _ => "cvt.u64.u16 %d0, %h0;\n",
    };
    format!(
        ".version 8.0\n.target sm_90a\n.address_size 64\n.visible .entry k(\n.param .u64 out,\n.param .u64 in1,\n\
         .param .u64 in2,\n.param .u64 in3,\n.param .u64 in4\n)\n{{\n.reg .pred %p<5>;\n.reg .b16 %h<5>;\n.reg .b32 \
         %w<5>;\n.reg .b64 %d<5>;\n.reg .b64 %at;\n.reg .b64 %base;\n.reg .b32 %t;\n.reg .b32 %b;\nmov.u32 %t, %tid.x;\n\
         mov.u32 %b, %ctaid.x;\nmad.lo.s32 %t, %b, 256, %t;\nmul.wide.u32 %at, %t, 8;\n{body}{instruction}{widen}\
         ld.param.b64 %base, [out];\nadd.s64 %base, %base, %at;\nst.global.b64 [%base], %d0;\nret;\n}}\n"
    )
}

fn upload(gpu: &mut VirtualGpu, values: &[u64]) -> DevicePtr {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let at = gpu.alloc(bytes.len() as u64).expect("memory");
    gpu.write(at, &bytes).expect("a write");
    at
}

/// Compares all mnemonics of a case with its reference.
pub fn check(case: &Case) {
    for mnemonic in forms::expand(case.pattern) {
        let mut gpu = VirtualGpu::new(Target::Sm90a);
        let inputs: Vec<Vec<u64>> = (0..4).map(|stream| values(case.values, stream)).collect();
        let text = kernel(&mnemonic, case.signature);
        let function = gpu.load(&text, "k", 0).unwrap_or_else(|error| panic!("{error}"));
        let out = upload(&mut gpu, &[0; COUNT]);
        let mut args = vec![LaunchArg::Address(out)];
        args.extend(inputs.iter().map(|values| LaunchArg::Address(upload(&mut gpu, values))));
        let shape = LaunchShape { blocks: 4, threads: 256, shared_bytes: 0, cluster: 1, dependent: false };
        gpu.launch(function, shape, &args).unwrap_or_else(|error| panic!("{mnemonic}: {error}"));
        let mut bytes = vec![0; 8 * COUNT];
        gpu.read(out, &mut bytes).expect("a read");
        let width = |letter: char| match letter {
            'h' | 'y' => 0xffff,
            'x' => 0xffff,
            'w' => 0xffff_ffff,
            'p' => 1,
            _ => u64::MAX,
        };
        let letters: Vec<char> = case.signature.chars().collect();
        for (at, found) in bytes.chunks_exact(8).enumerate() {
            let found = u64::from_le_bytes(found.try_into().expect("eight bytes"));
            let operand = |n: usize| letters.get(n).map_or(0, |letter| inputs[n - 1][at] & width(*letter));
            let [a, b, c, d] = [1, 2, 3, 4].map(operand);
            let wanted = (case.reference)(a, b, c, d) & width(letters[0]);
            assert_eq!(
                found, wanted,
                "{mnemonic} of {a:#x}, {b:#x}, {c:#x}, {d:#x}: {found:#x}, not {wanted:#x}"
            );
        }
    }
}
