//! What is decided without a device: the parameters of launches, their shapes, and where buffers lie. Whole models run
//! through [`GpuModel`](super::GpuModel) in the test suite.

use super::place::{Placement, input_places, slot_bytes};
use super::{check, launch};
use crate::WeightBytes;
use sinter_ir::*;
use std::sync::Arc;

fn kernel(params: Vec<GpuParam>) -> GpuKernel {
    GpuKernel {
        name: "k".into(),
        ptx: String::new(),
        params,
        grid: vec![Blocks { extent: Sym::T.into(), per_block: 4 }],
        persistent: None,
        threads: 128,
        shared_bytes: 1024,
        cluster: 1,
        dependent_launch: true,
        scratch: vec![],
    }
}

fn map() -> TensorMapDef {
    TensorMapDef {
        arg: 1,
        dtype: DType::Bf16,
        dims: vec![64.into(), Sym::T.into()],
        strides: vec![128],
        box_dims: vec![64, 16],
        swizzle: Swizzle::B128,
    }
}

#[test]
fn parameters_are_filled_in_order() {
    let params = vec![GpuParam::Scratch, GpuParam::Address(1), GpuParam::Symbols, GpuParam::TensorMap(map())];
    let (binding, places) = (Binding::new(9, 2, 4, 64), [DevicePtr(256), DevicePtr(512)]);
    let values = launch::values(&kernel(params), &places, DevicePtr(768), &binding).unwrap();
    let symbols = [9, 2, 4, 64, 2].map(LaunchArg::U32);
    assert_eq!(values[..2], [LaunchArg::Address(DevicePtr(768)), LaunchArg::Address(DevicePtr(512))]);
    assert_eq!(values[2..7], symbols);
    let LaunchArg::TensorMap(map) = &values[7] else { panic!("a tensor map") };
    assert_eq!((map.base, map.dims.as_slice()), (DevicePtr(512), &[64, 9][..]));
}

#[test]
fn what_no_device_takes_is_refused_with_the_kernel() {
    let refused = |param: GpuParam, at: u64, binding: &Binding| {
        let places = [DevicePtr(at); 2];
        let error = launch::values(&kernel(vec![param]), &places, DevicePtr(0), binding).unwrap_err();
        assert!(matches!(&error, GpuError::Kernel { kernel, .. } if kernel == "k"), "{error}");
    };
    let good = Binding::new(9, 2, 4, 64);
    refused(GpuParam::Address(2), 256, &good);
    refused(GpuParam::Symbols, 256, &Binding::new(1 << 33, 2, 4, 64));
    refused(GpuParam::TensorMap(map()), 264, &good);
    refused(GpuParam::TensorMap(map()), 256, &Binding::new(0, 2, 4, 64));
    refused(GpuParam::TensorMap(TensorMapDef { strides: vec![120], ..map() }), 256, &good);
    refused(GpuParam::TensorMap(TensorMapDef { box_dims: vec![64, 257], ..map() }), 256, &good);
}

#[test]
fn shapes_follow_the_binding() {
    let kernel = kernel(vec![]);
    let shape = |tokens| launch::shape(&kernel, &Binding::new(tokens, 1, 1, 16), 132);
    let nine = shape(9).unwrap().unwrap();
    assert_eq!((nine.blocks, nine.threads, nine.shared_bytes, nine.dependent), (3, 128, 1024, true));
    assert_eq!(shape(0).unwrap(), None);
    assert!(shape(1 << 40).is_err());
    let odd = GpuKernel { cluster: 2, ..kernel.clone() };
    assert!(launch::shape(&odd, &Binding::new(9, 1, 1, 16), 132).is_err());
}

/// A chain of steps: each reads the buffer before it and writes the next, all of one size but the third.
fn chain(steps: usize) -> Plan {
    let ty = |width: usize| Type::new(DType::F32, [Sym::T.into(), width.into()]);
    let param = |name: &str, width, access| TileParam {
        name: name.into(),
        ty: ty(width),
        access,
        layout: Layout::Rows,
    };
    let widths: Vec<usize> = (0..=steps).map(|at| if at == 3 { 64 } else { 8 }).collect();
    let tile = |at: usize| TileProgram {
        params: [param("x", widths[at], Access::Read), param("y", widths[at + 1], Access::Write)]
            .into_iter()
            .collect(),
        ..TileProgram::default()
    };
    let buffer = |at: usize| Arg::Buffer(BufferId(at as u32));
    Plan {
        kernels: (0..steps).map(tile).collect(),
        buffers: widths.iter().map(|width| Buffer { ty: ty(*width), slot: 0 }).collect(),
        steps: (0..steps)
            .map(|at| Step { kernel: KernelId(at as u32), args: vec![buffer(at), buffer(at + 1)] })
            .collect(),
        ..Plan::default()
    }
}

fn launches(plan: &Plan, at_once: usize) -> Vec<GpuLaunch> {
    let steps: Vec<usize> = (0..plan.steps.len()).collect();
    let launch = |steps: &[usize]| GpuLaunch {
        kernel: 0,
        args: steps.iter().flat_map(|step| plan.steps[*step].args.clone()).collect(),
        steps: steps.to_vec(),
    };
    steps.chunks(at_once).map(launch).collect()
}

#[test]
fn buffers_that_meet_in_a_launch_lie_apart() {
    let plan = chain(9);
    for at_once in [1, 2, 3, 9] {
        let launches = launches(&plan, at_once);
        let placement = Placement::of(&plan, &launches);
        let first = |id: BufferId| launches.iter().position(|launch| launch.args.contains(&Arg::Buffer(id)));
        let last = |id: BufferId| launches.iter().rposition(|launch| launch.args.contains(&Arg::Buffer(id)));
        for (a, _) in plan.buffers.iter() {
            for (b, _) in plan.buffers.iter().filter(|(b, _)| a < *b) {
                let meet = first(a) <= last(b) && first(b) <= last(a);
                assert!(!meet || placement.slot[a] != placement.slot[b], "{a} and {b} by {at_once}");
            }
        }
        // A launch holds its own buffers and those that come in.
        assert!(placement.slots.len() <= at_once + 2, "{} slots by {at_once}", placement.slots.len());
    }
}

#[test]
fn slots_are_as_large_as_their_largest_step() {
    let plan = chain(2);
    let bucket = |max_tokens| GpuBucket { max_tokens, launches: launches(&plan, 1) };
    let program = GpuProgram {
        target: Target::Sm80,
        kernels: vec![kernel(vec![])],
        buckets: vec![bucket(Some(16)), bucket(None)],
        draw: None,
    };
    let placements: Vec<_> =
        program.buckets.iter().map(|bucket| Placement::of(&plan, &bucket.launches)).collect();
    let bytes = slot_bytes(&placements, &program, &Binding::new(100, 1, 1, 16));
    assert_eq!(bytes, vec![100 * 8 * 4; placements[0].slots.len()]);
    let few = slot_bytes(&placements[..1], &program, &Binding::new(100, 1, 1, 16));
    assert_eq!(few, vec![16 * 8 * 4; few.len()]);
    assert_eq!(check::check(&plan, &program, 100), Ok(()));
}

#[test]
fn inputs_begin_at_their_boundaries() {
    let def = |name: &str, shape: Vec<Dim>| ValueDef { name: name.into(), ty: Type::new(DType::U32, shape) };
    let inputs = vec![def("tokens", vec![Sym::T.into()]), def("table", vec![Sym::S.into(), Sym::P.into()])];
    let plan = Plan { inputs, ..Plan::default() };
    assert_eq!(input_places(&plan, &Binding::new(65, 2, 3, 64)), (vec![0, 512], 768));
    assert_eq!(input_places(&plan, &Binding::new(0, 0, 0, 0)), (vec![0, 0], 0));
}

#[test]
fn a_weight_of_another_size_is_refused() {
    let ty = Type::new(DType::F32, [3.into(), 5.into()]);
    let def = WeightDef { source: Graph::new("w"), ty, layout: Layout::Panels };
    let plan = Plan { weights: [def].into_iter().collect(), ..Plan::default() };
    let bytes = |count: usize| WeightBytes::new(Arc::new(vec![0u8; count]));
    assert_eq!(check::weight(&plan, 0, &bytes(96)), Ok(()));
    let error = check::weight(&plan, 0, &bytes(60)).unwrap_err().to_string();
    assert!(error.contains("has 60 bytes, wanted 96 bytes"), "{error}");
    assert!(check::weight(&plan, 1, &bytes(96)).is_err());
}
