//! The pool under load, and a hand-made plan with kernels written in Rust, so that no code generator is needed.

use super::*;
use crate::engine::{Engine, EngineConfig, Event, Finish, Request, Usage};
use crate::{BatchBuilder, Chunk, DeviceModel, Limits, Rows, RuntimeError, Session};
use sinter_ir::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

#[test]
fn every_unit_is_done_once() {
    let mut pool = ThreadPool::new(4);
    for round in 0..2000u64 {
        let units = round % 97;
        let seen: Vec<AtomicU32> = (0..units).map(|_| AtomicU32::new(0)).collect();
        let all = pool.parallel(units, |range, thread| {
            assert!(thread < 4 && range.start < range.end);
            for unit in range {
                seen[unit as usize].fetch_add(1, Ordering::Relaxed);
            }
        });
        all.unwrap();
        assert!(seen.iter().all(|count| count.load(Ordering::Relaxed) == 1));
    }
}

#[test]
fn threads_do_not_share_a_number() {
    let mut pool = ThreadPool::new(4);
    let inside: Vec<AtomicU32> = (0..4).map(|_| AtomicU32::new(0)).collect();
    for _ in 0..50 {
        let body = |_: std::ops::Range<u64>, thread: usize| {
            assert_eq!(inside[thread].fetch_add(1, Ordering::SeqCst), 0);
            std::thread::sleep(std::time::Duration::from_micros(20));
            inside[thread].fetch_sub(1, Ordering::SeqCst);
        };
        pool.parallel(64, body).unwrap();
    }
}

#[test]
fn more_units_than_a_share_can_hold() {
    let mut pool = ThreadPool::new(2);
    let (sum, units) = (AtomicU64::new(0), (1u64 << 33) + 5);
    let body = |range: std::ops::Range<u64>, _: usize| {
        sum.fetch_add(range.end - range.start, Ordering::Relaxed);
    };
    pool.parallel(units, body).unwrap();
    assert_eq!(sum.into_inner(), units);
}

#[test]
fn a_panic_is_an_error_and_the_pool_lives_on() {
    for threads in [1, 3] {
        let mut pool = ThreadPool::new(threads);
        let body = |range: std::ops::Range<u64>, _: usize| assert!(!range.contains(&7), "unit 7");
        assert!(pool.parallel(40, body).unwrap_err().0.contains("unit 7"));
        pool.parallel(40, |_, _| ()).unwrap();
    }
}

#[test]
fn sleeping_workers_wake_up() {
    let mut pool = ThreadPool::new(2);
    for _ in 0..5 {
        std::thread::sleep(std::time::Duration::from_millis(2));
        let helped = AtomicU32::new(0);
        let start = Instant::now();
        while helped.load(Ordering::Relaxed) == 0 && start.elapsed().as_secs() < 20 {
            let body = |_: std::ops::Range<u64>, thread: usize| {
                helped.fetch_add(thread as u32, Ordering::Relaxed);
                std::thread::sleep(std::time::Duration::from_micros(200));
            };
            pool.parallel(8, body).unwrap();
        }
        assert!(helped.into_inner() > 0, "the worker never came");
    }
}

/// Writes the token into its slot of the cache: `cache[slots[t]] = weight[tokens[t]]`.
unsafe extern "C" fn remember(args: *const *mut u8, _: *const u64, begin: u64, end: u64, _: *mut u8) {
    // SAFETY: the arguments are those of `plan`: tokens, slots, weight, cache.
    let [tokens, slots, weight, cache] = unsafe { *args.cast::<[*mut u8; 4]>() };
    for t in begin as usize..end as usize {
        // SAFETY: the runtime has checked tokens and slots.
        unsafe {
            let token = *tokens.cast::<u32>().add(t) as usize;
            let slot = *slots.cast::<u32>().add(t) as usize;
            *cache.cast::<f32>().add(slot) = *weight.cast::<f32>().add(token);
        }
    }
}

/// Adds up the context of each wanted row: `sum[r] = Σ cache[slot of c]` for positions `c` up to the row's own.
unsafe extern "C" fn total(
    args: *const *mut u8,
    symbols: *const u64,
    begin: u64,
    end: u64,
    scratch: *mut u8,
) {
    // SAFETY: the arguments are those of `plan`: rows, positions, seq, table, cache, sum; scratch holds one f32.
    unsafe {
        let [rows, positions, seq, table, cache, sum] = *args.cast::<[*mut u8; 6]>();
        let width = *symbols.add(Sym::P.index()) as usize;
        for r in begin as usize..end as usize {
            let row = *rows.cast::<u32>().add(r) as usize;
            let pages = table.cast::<u32>().add(*seq.cast::<u32>().add(row) as usize * width);
            *scratch.cast::<f32>() = 0.0;
            for c in 0..=*positions.cast::<u32>().add(row) as usize {
                *scratch.cast::<f32>() += *cache.cast::<f32>().add(*pages.add(c / 16) as usize * 16 + c % 16);
            }
            *sum.cast::<f32>().add(r) = *scratch.cast::<f32>();
        }
    }
}

/// `logits[r, v] = -|sum[r] mod 8 - v|`: the likeliest token is the sum of the context modulo 8.
unsafe extern "C" fn spread(args: *const *mut u8, _: *const u64, begin: u64, end: u64, _: *mut u8) {
    // SAFETY: the arguments are those of `plan`: sum, logits.
    unsafe {
        let [sum, logits] = *args.cast::<[*mut u8; 2]>();
        for unit in begin as usize..end as usize {
            let goal = *sum.cast::<f32>().add(unit / 8) % 8.0;
            *logits.cast::<f32>().add(unit) = -(goal - (unit % 8) as f32).abs();
        }
    }
}

fn ty(dtype: DType, shape: &[Dim]) -> Type {
    Type::new(dtype, shape)
}

fn tile(name: &str, params: &[(&str, Type, Access)]) -> TileProgram {
    let param = |(name, ty, access): &(&str, Type, Access)| TileParam {
        name: (*name).into(),
        ty: ty.clone(),
        access: *access,
        layout: Layout::Rows,
    };
    TileProgram { name: name.into(), params: params.iter().map(param).collect(), ..TileProgram::default() }
}

fn plan() -> Plan {
    let (t, r) = (Dim::from(Sym::T), Dim::from(Sym::R));
    let per_token = ty(DType::U32, &[t]);
    let table = ty(DType::U32, &[Sym::S.into(), Sym::P.into()]);
    let rows = ty(DType::U32, &[r]);
    let cache = ty(DType::F32, &[Sym::N.into(), Dim::ONE, Dim::ONE]);
    let (weight, sum, logits) =
        (ty(DType::F32, &[8.into()]), ty(DType::F32, &[r]), ty(DType::F32, &[r, 8.into()]));
    let (read, write) = (Access::Read, Access::Write);
    let def = |name: &str, ty: &Type| ValueDef { name: name.into(), ty: ty.clone() };
    let args = |kernel: u32, args: &[Arg]| Step { kernel: KernelId(kernel), args: args.to_vec() };
    let names = ["tokens", "positions", "slots", "seq"];
    let mut inputs: Vec<_> = names.iter().map(|name| def(name, &per_token)).collect();
    inputs.extend([def("table", &table), def("rows", &rows)]);
    Plan {
        name: "sum".into(),
        kernels: [
            tile(
                "remember",
                &[
                    ("tokens", per_token.clone(), read),
                    ("slots", per_token.clone(), read),
                    ("weight", weight.clone(), read),
                    ("cache", cache.clone(), Access::ReadWrite),
                ],
            ),
            tile(
                "total",
                &[
                    ("rows", rows.clone(), read),
                    ("positions", per_token.clone(), read),
                    ("seq", per_token.clone(), read),
                    ("table", table.clone(), read),
                    ("cache", cache.clone(), read),
                    ("sum", sum.clone(), write),
                ],
            ),
            tile("spread", &[("sum", sum.clone(), read), ("logits", logits.clone(), write)]),
        ]
        .into_iter()
        .collect(),
        weights: [WeightDef { source: Graph::new("w"), ty: weight, layout: Layout::Rows }]
            .into_iter()
            .collect(),
        inputs,
        states: vec![def("k_cache.0", &cache)],
        outputs: vec![def("logits", &logits), def("k_cache.0", &cache)],
        buffers: [Buffer { ty: sum.clone(), slot: 0 }].into_iter().collect(),
        slots: vec![Slot { types: vec![sum] }],
        steps: vec![
            args(0, &[Arg::Input(0), Arg::Input(2), Arg::Weight(WeightId(0)), Arg::State(0)]),
            args(
                1,
                &[
                    Arg::Input(5),
                    Arg::Input(1),
                    Arg::Input(3),
                    Arg::Input(4),
                    Arg::State(0),
                    Arg::Buffer(BufferId(0)),
                ],
            ),
            args(2, &[Arg::Buffer(BufferId(0)), Arg::Output(0)]),
        ],
    }
}

fn kernels() -> Vec<HostKernel> {
    let kernel = |name: &str, entry: KernelEntry, units: &[Dim]| HostKernel {
        name: name.into(),
        any: HostForm { entry, units: units.to_vec(), alone: false },
        few: None,
        scratch_bytes: 4,
        code: Arc::new(()),
    };
    vec![
        kernel("remember", remember, &[Sym::T.into()]),
        kernel("total", total, &[Sym::R.into()]),
        kernel("spread", spread, &[Sym::R.into(), 8.into()]),
    ]
}

/// Weights: token t counts t.
fn weights() -> Vec<WeightBytes> {
    let bytes: Vec<u8> = (0..8).flat_map(|token| (token as f32).to_ne_bytes()).collect();
    vec![WeightBytes::new(Arc::new(Memory::from_bytes(&bytes).unwrap()))]
}

fn load(change: impl Fn(&mut Plan)) -> Result<HostModel, RuntimeError> {
    let mut plan = plan();
    change(&mut plan);
    let limits = Limits { vocab: 8, max_positions: 60, max_tokens: 32, max_sequences: 3, pages: 5 };
    let config = HostConfig { threads: 2, limits, profile: true };
    HostModel::new(Arc::new(plan), kernels(), weights(), config)
}

/// The likeliest token of each row.
fn best(logits: &[f32]) -> Vec<usize> {
    let row = |row: &[f32]| (0..8).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap();
    logits.chunks_exact(8).map(row).collect()
}

#[test]
fn a_plan_is_walked_in_order() {
    let mut model = load(|_| ()).unwrap();
    assert_eq!((model.result_name(), model.width()), ("logits", 8));
    assert_eq!(model.state_bytes(), 5 * 16 * 4);
    let limits = Limits { vocab: 8, max_positions: 60, max_tokens: 32, max_sequences: 3, pages: 5 };
    let planned = HostMemoryPlan::of(model.plan(), &kernels(), &limits, 2);
    let found = (planned.states, planned.activations, planned.weights);
    assert_eq!(found, (model.state_bytes() as u64, model.activation_bytes() as u64, 32));
    let mut builder = BatchBuilder::new();
    builder.push(Chunk { tokens: &[1, 2, 3], start: 0, pages: &[4], rows: Rows::All });
    builder.push(Chunk { tokens: &[7, 6], start: 0, pages: &[0], rows: Rows::Last });
    assert_eq!(best(model.step(&builder.finish()).unwrap()), [1, 3, 6, 5]);
    let times = model.times();
    assert_eq!(times.iter().map(|time| time.launches).collect::<Vec<_>>(), [1, 1, 1]);
}

#[test]
fn any_chunking_gives_the_same_logits() {
    let prompt: Vec<u32> = (0..50).map(|at| (at * at + 3) % 8).collect();
    let run = |chunk: usize| {
        let mut model = load(|_| ()).unwrap();
        let mut session = Session::new(&mut model);
        let mut rows = Vec::new();
        for piece in prompt.chunks(chunk) {
            rows.extend_from_slice(session.feed(piece, Rows::All).unwrap());
        }
        rows
    };
    let whole = run(32);
    assert_eq!(whole.len(), 50 * 8);
    for chunk in [1, 2, 7, 16, 17, 31] {
        assert_eq!(run(chunk), whole);
    }
}

#[test]
fn a_refused_batch_leaves_the_sequence_as_it_was() {
    let mut model = load(|_| ()).unwrap();
    let mut session = Session::new(&mut model);
    session.feed(&[1, 2], Rows::Last).unwrap();
    assert!(matches!(session.feed(&[8], Rows::Last), Err(RuntimeError::Batch(_))));
    assert!(matches!(session.feed(&[0; 33], Rows::Last), Err(RuntimeError::Batch(_))));
    assert!(matches!(session.feed(&[0; 59], Rows::Last), Err(RuntimeError::Parameter(_))));
    assert_eq!(session.tokens(), [1, 2]);
    assert_eq!(best(session.feed(&[1], Rows::Last).unwrap()), [4]);
}

#[test]
fn answers_follow_the_model() {
    let (engine, _) = Engine::spawn(Box::new(load(|_| ()).unwrap()), EngineConfig::default()).unwrap();
    let run = |request: Request| {
        let (mut tokens, mut finish, mut usage) = (Vec::new(), None, None);
        for event in engine.submit(request).unwrap() {
            match event {
                Event::Tokens { tokens: new, .. } => tokens.extend(new.into_iter().map(|token| token.id)),
                Event::Finished { finish: reason, .. } => finish = Some(reason),
                event => usage = Some(event),
            }
        }
        (tokens, finish.unwrap(), usage.unwrap())
    };
    let (tokens, finish, _) = run(Request::new(vec![1, 2, 3], 4));
    assert_eq!((tokens, finish), (vec![6, 4, 0, 0], Finish::Length));
    let (tokens, finish, _) = run(Request { stop_ids: vec![4], ..Request::new(vec![1, 2, 3, 6, 5], 9) });
    assert_eq!((tokens, finish), (vec![1, 2], Finish::Stop(4)));
    let (tokens, finish, _) = run(Request::new(vec![1; 58], 9));
    assert_eq!((tokens.len(), finish), (3, Finish::Context));
    // The second prompt shares three full pages with the one before it, which are not computed again.
    let (_, _, last) = run(Request::new([vec![1; 55], vec![2]].concat(), 1));
    let usage = Usage { prompt: 56, cached: 48, generated: 1, ..Usage::default() };
    assert_eq!(last, Event::Done(usage));
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let refusal = |change: fn(&mut Plan)| load(change).unwrap_err().to_string();
    assert!(refusal(|plan| plan.inputs[0].name = "token".into()).contains("\"token\""));
    assert!(refusal(|plan| plan.inputs.swap(1, 5)).contains("is u32"));
    assert!(refusal(|plan| plan.slots.clear()).contains("no slot"));
    assert!(refusal(|plan| plan.slots[0].types.clear()).contains("no room"));
    assert!(refusal(|plan| plan.steps.swap(1, 2)).contains("read before it is written"));
    assert!(refusal(|plan| drop(plan.steps.pop())).contains("no step writes logits"));
    assert!(refusal(|plan| plan.outputs.clear()).contains("step 2"));
    assert!(refusal(|plan| plan.weights[WeightId(0)].layout = Layout::Panels).contains("bytes"));
    assert!(refusal(|plan| plan.kernels[KernelId(0)].name = "other".into()).contains("other"));
    assert!(
        refusal(|plan| plan.kernels[KernelId(0)].params[ParamId(0)].access = Access::Write)
            .contains("only read")
    );
}

#[test]
fn a_slot_is_not_read_after_it_was_given_away() {
    let error = load(|plan| {
        let twin = plan.buffers[BufferId(0)].clone();
        plan.buffers.push(twin);
        let mut step = plan.steps[1].clone();
        step.args[5] = Arg::Buffer(BufferId(1));
        plan.steps.insert(2, step);
    });
    assert!(error.unwrap_err().to_string().contains("given to another"));
}

#[test]
fn panels_are_padded() {
    let bytes = |dtype, n: usize, k: usize| packed_bytes(&ty(dtype, &[n.into(), k.into()]), Layout::Panels);
    assert_eq!(bytes(DType::F32, 33, 3), Some(64 * 3 * 4));
    assert_eq!(bytes(DType::Bf16, 32, 3), Some(32 * 4 * 2));
    assert_eq!(bytes(DType::F16, 32, 3), None);
    assert_eq!(packed_bytes(&ty(DType::F32, &[Sym::T.into()]), Layout::Rows), None);
    assert_eq!(packed_bytes(&ty(DType::F32, &[usize::MAX.into(), 8.into()]), Layout::Rows), None);
}

/// Prints the cost of a launch; run with `--nocapture`. The bound is loose because other programs may use the cores.
#[test]
fn a_launch_is_cheap() {
    let mut pool = ThreadPool::new(2);
    let mut best = u128::MAX;
    for _ in 0..20 {
        let start = Instant::now();
        (0..200).for_each(|_| pool.parallel(64, |_, _| ()).unwrap());
        best = best.min(start.elapsed().as_nanos() / 200);
    }
    println!("{best} ns a launch");
    assert!(best < 20_000, "{best} ns a launch");
}
