//! Codes in registers and in memory: what they stand for, what a number is rounded to, and rows as a cache keeps them.

use sinter_codegen_nvptx::emit::{Assembler, Cache, Entry, F32, I32, Int, K};
use sinter_codegen_nvptx::lower::codes::{pairs, to_e4m3};
use sinter_codegen_schedule::codes::Format;
use sinter_frontend::build::{BuildOptions, KvCache, KvCodes};
use sinter_gpu_tests::launch::{Stream, arguments, on_virtual_gpu};
use sinter_ir::{
    Access, Binding, DType, Expr, Float8, GpuDevice, GpuParam, LaunchArg, LaunchShape, ScalarOp, Target,
    TileParam, TileProgram, evaluate_tile,
};
use sinter_testsuite::compiled;
use sinter_testsuite::golden::open;
use sinter_vgpu::VirtualGpu;

const THREADS: u32 = 64;

/// What each word becomes, `each` words of it, by a kernel that does what `body` says with one word.
fn words(
    target: Target,
    words: &[u32],
    each: usize,
    body: impl for<'k> Fn(K<'k>, Int<'k>) -> Vec<Int<'k>>,
) -> Vec<u32> {
    assert!(words.len().is_multiple_of(THREADS as usize), "{} words", words.len());
    let params = vec![GpuParam::Address(0), GpuParam::Address(1)];
    let entry =
        Entry { name: "codes".into(), params, threads: THREADS, max_registers: None, min_blocks: None };
    let assembler = Assembler::new(target).expect("the target is known");
    let kernel = assembler.kernel(&entry, |k| {
        let at = k.block() * THREADS as i32 + k.thread();
        let results = body(k, k.load::<I32>(k.address(0).at(at << 2), Cache::Any));
        for (n, result) in results.into_iter().enumerate() {
            k.store(k.address(1).at((at * each as i32 + n as i32) << 2), result);
        }
    });
    let kernel = kernel.expect("the kernel assembles");
    let mut device = VirtualGpu::new(target);
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let [from, to] = [bytes.len(), bytes.len() * each].map(|bytes| device.alloc(bytes as u64).unwrap());
    device.write(from, &bytes).unwrap();
    let function = device.load(&kernel.ptx, "codes", kernel.shared_bytes).unwrap();
    let blocks = words.len() as u32 / THREADS;
    let shape = LaunchShape { blocks, threads: THREADS, shared_bytes: 0, cluster: 1, dependent: false };
    device.launch(function, shape, &[from, to].map(LaunchArg::Address)).unwrap();
    let mut out = vec![0; bytes.len() * each];
    device.read(to, &mut out).unwrap();
    out.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
}

/// Every code in every place of a word, beside codes of all kinds, is the number that the host reads.
#[test]
fn codes_stand_for_the_numbers_of_the_host() {
    let word = |n: u32| n.wrapping_mul(0x0101_0101) ^ (n >> 8).wrapping_mul(0x5a00_33f1);
    let all: Vec<u32> = (0..1024).map(word).collect();
    for (format, dtype) in
        [(Format::Int8, DType::I8), (Format::E4m3, DType::F8e4m3), (Format::Int4, DType::U8)]
    {
        let count = if format == Format::Int4 { 4 } else { 2 };
        for target in [Target::Sm80, Target::Sm90a] {
            let found = words(target, &all, count, |_, word| pairs(format, word));
            let found = found.iter().flat_map(|pair| [*pair << 16, *pair & 0xffff_0000]).map(f32::from_bits);
            let wanted = all.iter().flat_map(|word| word.to_le_bytes()).flat_map(|byte| match format {
                Format::Int4 => vec![f64::from(byte & 15) - 8.0, f64::from(byte >> 4) - 8.0],
                Format::Int8 | Format::E4m3 => vec![dtype.read(&[byte])],
            });
            let (found, wanted): (Vec<f32>, Vec<f64>) = (found.collect(), wanted.collect());
            assert_eq!(found.len(), wanted.len());
            for (found, wanted) in found.into_iter().map(f64::from).zip(wanted) {
                assert!(
                    found == wanted || found.is_nan() && wanted.is_nan(),
                    "{format:?}: {found}, {wanted}"
                );
            }
        }
    }
}

/// All numbers of E4M3, those half-way between two, their neighbours in f32, what is too great or no number, and any bits.
#[test]
fn numbers_are_rounded_to_e4m3_as_on_the_host() {
    let mut all: Vec<f32> = Vec::new();
    for code in 0..0x7fu8 {
        let [here, next] = [code, code + 1].map(|code| Float8::E4m3.decode(code));
        let half = if next.is_nan() { 464.0 } else { (here + next) / 2.0 };
        for x in [here, half, half.next_up(), half.next_down(), here.next_up()] {
            all.extend([x, -x]);
        }
    }
    all.extend([f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -f32::NAN, f32::MAX, 1e-40, -1e-40]);
    let mut stream = Stream(3);
    while !all.len().is_multiple_of(THREADS as usize) || all.len() < 4096 {
        all.push(f32::from_bits(stream.next_bits() as u32 ^ (stream.next_bits() << 20) as u32));
    }
    let bits: Vec<u32> = all.iter().map(|x| x.to_bits()).collect();
    for target in [Target::Sm80, Target::Sm90a] {
        let found = words(target, &bits, 1, |_, word| vec![to_e4m3(word.bits::<F32>())]);
        for (x, found) in all.iter().zip(found) {
            assert_eq!(found, u32::from(Float8::E4m3.encode(*x)), "{x:e}");
        }
    }
}

/// The programs that write a cache of codes: the codes and the scale of each row are those of the evaluator. Keys are
/// rotated, and sines are not the same to the last bit everywhere, so a number between two codes may go either way.
#[test]
fn rows_are_kept_as_the_evaluator_has_them() {
    let (model, binding) = (open("llama").model, Binding::new(37, 2, 4, 64).with_rows(2));
    for codes in [KvCodes::Int8, KvCodes::Fp8, KvCodes::Int4] {
        let options = BuildOptions { kv_cache: KvCache::Codes(codes), ..BuildOptions::new(DType::F32) };
        let plan = compiled::plan_of(&model, options, false);
        let byte = |param: &TileParam| param.access == Access::Write && param.ty.dtype.bytes() == 1;
        let writes: Vec<&TileProgram> =
            plan.kernels.values().filter(|tile| tile.params.values().any(byte)).collect();
        assert!(writes.len() >= 2, "{} programs write codes", writes.len());
        for tile in writes {
            let rotated = tile.exprs.values().any(|expr| matches!(expr, Expr::Apply(ScalarOp::Cos, _)));
            for target in [Target::Sm80, Target::Sm90a] {
                let params = arguments(&mut Stream(9), tile, &binding);
                let mut wanted = params.clone();
                evaluate_tile(tile, &binding, &mut wanted);
                let found = on_virtual_gpu(tile, target, &binding, &params);
                for ((param, found), wanted) in tile.params.values().zip(&found).zip(&wanted) {
                    let pairs = || found.data.iter().zip(&wanted.data);
                    let other = pairs().filter(|(found, wanted)| found.to_bits() != wanted.to_bits()).count();
                    let far = pairs().any(|(found, wanted)| (found - wanted).abs() > 1e-6 * wanted.abs());
                    let most = if !rotated || param.access == Access::Read { 0 } else { found.data.len() };
                    let most = if byte(param) { most / 200 } else { most };
                    let name = &param.name;
                    assert!(other <= most && (byte(param) || !far), "{codes} {name}: {other} others\n{tile}");
                }
            }
        }
    }
}
