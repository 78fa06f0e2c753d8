//! Every typed function of the builder, printed for every target. LLVM aborts the process on what it cannot select, so
//! what is not called here may not be called in a kernel.

use sinter_codegen_nvptx::emit::{Assembler, Cache, Entry, F32, F64, I8, I16, I32, I64, K, Long};
use sinter_ir::{DType, GpuParam, Swizzle, Sym, Target, TensorMapDef};

fn entry(name: &str) -> Entry {
    let map = TensorMapDef {
        arg: 2,
        dtype: DType::Bf16,
        dims: vec![64.into(), 64.into()],
        strides: vec![128],
        box_dims: vec![64, 64],
        swizzle: Swizzle::B128,
    };
    let params = vec![
        GpuParam::Address(0),
        GpuParam::Address(1),
        GpuParam::Symbols,
        GpuParam::Scratch,
        GpuParam::TensorMap(map),
    ];
    Entry { name: name.into(), params, threads: 128, max_registers: None, min_blocks: None }
}

/// The PTX of a body for a target; every form in `wanted` must be in it.
fn check(target: Target, body: impl for<'k> Fn(K<'k>), wanted: &[&str]) {
    let assembler = Assembler::new(target).expect("the target is known");
    let kernel = assembler.kernel(&entry("sample"), |k| body(k)).expect("the kernel assembles");
    for form in wanted {
        assert!(kernel.ptx.contains(form), "{form} for {target} in\n{}", kernel.ptx);
    }
    let again = Assembler::new(target).expect("the target is known").kernel(&entry("sample"), |k| body(k));
    assert_eq!(again.expect("the kernel assembles"), kernel, "the same bytes on every run");
}

fn everywhere(body: impl for<'k> Fn(K<'k>), wanted: &[&str]) {
    for target in Target::ALL {
        check(target, &body, wanted);
    }
}

#[test]
fn scalar_functions() {
    everywhere(
        |k| {
            let x = k.load::<F32>(k.address(0).at(k.thread() * 4), Cache::Any);
            let values = [
                x.exp(),
                x.log(),
                x.sqrt(),
                x.rsqrt(),
                x.recip(),
                x.abs(),
                x.floor(),
                x.sin(),
                x.cos(),
                x.tanh(),
                x.erf(),
                -x,
                x.over(3.0),
                x.greatest(0.5),
                x.lt(1.0).select(x, x - 1.0),
                (x.le(1.0) & x.equals(0.25) | !x.differs(2.0)).int().float(),
            ];
            for (at, value) in values.into_iter().enumerate() {
                k.store(k.address(1).at(k.thread() * 4).at(at as i32 * 512), value);
            }
        },
        &[
            "ex2.approx.ftz.f32",
            "lg2.approx.ftz.f32",
            "sqrt.rn.f32",
            "rcp.rn.f32",
            "div.rn.f32",
            "cvt.rmi.f32.f32",
        ],
    );
}

#[test]
fn integers() {
    everywhere(
        |k| {
            let x = k.load::<I32>(k.address(0).at(k.thread() * 4), Cache::Any);
            let sym = k.symbol(Sym::S) + 1;
            let values = [
                x.divided(3),
                x.modulo(sym),
                x.signed_divided(sym),
                x.least(sym).greatest(4),
                (x ^ 5) << 2,
                Long::product(x, sym).int(),
                (x.long() + 7).int(),
                x.unsigned_long().lt(k.long(1 << 40)).int(),
                x.unsigned_float().bits(),
                x.float().int(),
                (x.short() >> 3).int(),
                x.below(9).select(x, sym),
                (x.ge(3) | x.le(1)).int(),
            ];
            for (at, value) in values.into_iter().enumerate() {
                k.store(k.address(1).at(k.thread() * 4).at(at as i32 * 512), value);
            }
        },
        &["rem.u32", "div.s32", "mul.wide.u32"],
    );
}

#[test]
fn wide_numbers() {
    everywhere(
        |k| {
            let x = k.load::<F64>(k.address(0).at(k.thread() * 8), Cache::Any);
            let y = k.load::<F32>(k.address(0).at(k.thread() * 4), Cache::Any).double();
            let counter = k.shared(16, 16);
            k.when(k.thread().equals(0), || k.store(counter, k.int(0)));
            k.barrier();
            let place = k.take_place(counter);
            let values = [
                x * y + 0.5,
                (x - y).floor(),
                x.long().double(),
                y.lt(x).select(x, y),
                (x.le(0.25) | x.equals(y)).select(x, k.double(1.0)),
                x.float().double(),
                x.bits::<I64>().of_lane_xor(3).bits(),
                Long::of_words(place, x.float().bits()).bits(),
            ];
            for (at, value) in values.into_iter().enumerate() {
                k.store(k.address(1).at(k.thread() * 8).at(at as i32 * 1024), value);
            }
        },
        &[
            "mul.rn.f64",
            "add.rn.f64",
            "sub.rn.f64",
            "cvt.rmi.f64.f64",
            "cvt.rzi.s64.f64",
            "cvt.f64.f32",
            "cvt.rn.f32.f64",
            "atom.relaxed.cta.shared::cta.add.u32",
        ],
    );
}

#[test]
fn element_types() {
    everywhere(
        |k| {
            let from = k.address(0).at(k.thread() * 16);
            let to = k.address(1).at(k.thread() * 16);
            let [a, b, c, d] = k.load_vector::<I32, 4>(from, Cache::Constant);
            let [low, high] = a.from_bf16_pair();
            let half = k.load::<I16>(from.at(2048), Cache::Any).from_f16();
            let byte = k.load::<I8>(from.at(4096), Cache::Any).int();
            k.store_vector(to, [low.to_bf16_pair(high), b, c + byte, d]);
            k.store_vector(to.at(2048), [half.to_bf16(), (half + 1.0).to_f16()]);
            let [e, f, ..] = k.load_once(from);
            k.store_vector(to.at(4096), [e, f]);
            let byte = k.load::<I8>(from.at(4097), Cache::Any).signed_int();
            k.store(to.at(8192), (byte + 1).low_byte());
            let pair = e.bytes(f, 0x6240).minus_bf16_pair(f);
            k.store(to.at(8196), pair.times_bf16_pair(e));
        },
        &[
            "ld.global.nc.v4.b32",
            "prmt.b32",
            "st.global.b8",
            "cvt.rn.bf16x2.f32",
            "cvt.rn.bf16.f32",
            "cvt.rn.f16.f32",
            "cvt.f32.f16",
            "st.global.v4",
            "st.global.v2",
            "ld.global.nc.L1::no_allocate.L2::256B.v4.b32",
        ],
    );
}

#[test]
fn codes_of_weights() {
    everywhere(
        |k| {
            let [a, b, ..] = k.load_vector::<I32, 4>(k.address(0).at(k.thread() * 16), Cache::Constant);
            let codes = [a.byte_lifted(0), a.byte_lifted(3), b.nibble_lifted(0), b.nibble_lifted(7)];
            k.store_vector(k.address(1).at(k.thread() * 16), codes);
        },
        &["prmt.b32"],
    );
}

#[test]
fn loops_carry_values() {
    everywhere(
        |k| {
            let start = (k.float(0.0), [k.int(0), k.int(1)]);
            let (sum, [count, last]) =
                k.rolled_range((k.thread(), k.symbol(Sym::T), 128), start, |at, (sum, [n, _])| {
                    let x = k.load::<F32>(k.address(0).at(at * 4), Cache::Any);
                    let x = k.choose(x.lt(0.0), || x * 2.0, || x.exp());
                    (sum + x, [n + 1, at])
                });
            let (grown,) = k.repeat((k.int(1),), |(n,)| n.lt(count), |(n,)| (n * 2,));
            k.when(k.thread().equals(0), || k.store(k.scratch(), sum));
            k.store_vector(k.address(1).at(k.thread() * 8), [grown, last]);
        },
        &["bra", "ex2.approx"],
    );
}

#[test]
fn blocks_and_warps() {
    everywhere(
        |k| {
            let shared = k.shared(512, 16);
            let x = k.load::<F32>(k.address(0).at(k.thread() * 4), Cache::Any);
            let ones = k.lanes_where(x.lt(1.0)).ones().float();
            let sum = x + x.of_lane_xor(16) + x.of_lane(k.uniform(k.warp())) + ones;
            k.store(shared.at(k.thread() * 4), sum);
            k.barrier();
            k.barrier_of(1, 128);
            k.warp_barrier();
            let y = k.load::<F32>(shared.at(k.lane() * 4), Cache::Any);
            k.store(k.address(1).at((k.block() * k.blocks() + k.thread()) * 4), y);
        },
        &[
            "shfl.sync.bfly.b32",
            "shfl.sync.idx.b32",
            "vote.sync.ballot.b32",
            "popc.b32",
            "bar",
            "ld.shared",
            "st.shared",
            ".extern .shared",
        ],
    );
}

#[test]
fn tensor_cores() {
    everywhere(
        |k| {
            let shared = k.shared(4096, 128);
            let at = k.thread() * 16;
            k.copy_async(shared.at(at), k.address(0).at(at));
            k.copy_async_first(shared.at(2048).at(at), k.address(0).at(at), k.int(8));
            k.copy_commit();
            k.copy_wait(0);
            k.barrier();
            let a = k.load_matrices(shared.at(at));
            let [b, c, ..] = k.load_matrices_transposed(shared.at(at));
            k.copy_async_part(shared.at(at), k.address(0).at(at), (4, k.int(2)));
            k.copy_async_part(shared.at(at), k.address(0).at(at), (8, k.int(8)));
            let sum = k.mma_f16(a, [b, c], k.mma_bf16(a, [b, c], [k.float(0.0); 4]));
            k.store_vector(k.address(1).at(at), sum);
        },
        &[
            "cp.async.cg.shared.global",
            "cp.async.ca.shared.global",
            "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32",
            "cp.async.commit_group",
            "cp.async.wait_group",
            "ldmatrix.sync.aligned.m8n8.x4.shared.b16",
            "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16",
            "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32",
        ],
    );
}

#[test]
fn hopper() {
    check(
        Target::Sm90a,
        |k| {
            k.wait_for_launch();
            k.let_next_launch_start();
            k.store(k.scratch(), k.tensor_map(2).address());
            let memory = k.shared(8192, 1024);
            k.store_matrices(memory.at(k.lane() * 16), [k.lane(); 4]);
            k.show_shared_to_copies();
            k.barrier();
            k.when(k.thread().equals(0), || {
                k.store_box(k.tensor_map(2), (k.int(0), k.symbol(Sym::T)), memory);
                k.end_stored_boxes();
                k.wait_for_stored_boxes(0);
            });
        },
        &[
            "griddepcontrol.wait",
            "griddepcontrol.launch_dependents",
            ".param .align 64 .b8",
            "stmatrix.sync.aligned.m8n8.x4.shared.b16",
            "fence.proxy.async.shared::cta",
            "cp.async.bulk.tensor.2d.global.shared::cta",
            "cp.async.bulk.commit_group",
            "cp.async.bulk.wait_group.read",
        ],
    );
}

#[test]
fn what_mlir_refuses_is_an_error() {
    let assembler = Assembler::new(Target::Sm80).expect("the target is known");
    let body = |k: K<'_>| k.call_for_effect("llvm.nvvm.no.such.thing", &[]);
    let error = assembler.kernel(&entry("wrong"), body).expect_err("there is no such intrinsic");
    assert!(error.to_string().contains("no.such.thing"), "{error}");
}
