//! Which programs are contractions, and what is chosen for the shapes of real models.

use sinter_codegen_schedule::contract::{Contract, Kind, candidates, choose, find, multiprocessors};
use sinter_codegen_schedule::{BUCKETS, FEW_TOKENS};
use sinter_ir::{DType, Target, TileProgram};

/// One product, `[T, K] · [N, K]ᵀ`, in f32 out.
fn product(dtype: DType, n: u64, k: u64) -> TileProgram {
    let text = format!(
        "tile @contract {{
  p0: {dtype}[T, {k}] read rows \"x\"
  p1: {dtype}[{n}, {k}] read panels \"w\"
  p2: f32[T, {n}] write rows \"y\"
  a0 = 0..T \"t\"
  a1 = 0..{n} \"n\"
  a2 = 0..{k} \"k\"
  grid a0, a1
  s0 = mma a2 : p0[a0, a2] * p1[a1, a2]
  e0 = s0
  s1 = store [] p2[a0, a1] = e0
}}"
    );
    TileProgram::parse(&text).unwrap_or_else(|error| panic!("{error:?}"))
}

fn chosen(target: Target, n: u64, k: u64, bucket: Option<u64>) -> Contract {
    choose(&product(DType::Bf16, n, k), target, bucket).expect("a schedule")
}

/// Of Llama-3.2-1B and Llama-3.1-8B: QKV, output, gate or up, down.
const SHAPES: [(u64, u64); 8] = [
    (3072, 2048),
    (2048, 2048),
    (8192, 2048),
    (2048, 8192),
    (6144, 4096),
    (4096, 4096),
    (14336, 4096),
    (4096, 14336),
];

#[test]
fn few_rows_stream_weights_on_every_multiprocessor() {
    for target in Target::ALL {
        for (n, k) in SHAPES {
            let schedule = chosen(target, n, k, Some(FEW_TOKENS));
            println!("{target} {n}x{k}: {schedule}");
            assert_eq!(schedule.kind, Kind::Skinny, "{target} {n}x{k}: {schedule}");
            let found = find(&product(DType::Bf16, n, k)).expect("a contraction");
            let blocks = n.div_ceil(u64::from(schedule.tile_columns));
            let each = blocks.div_ceil(multiprocessors(target));
            let flying = each * schedule.shared_bytes(&found);
            assert!(flying >= 32 << 10, "{target} {n}x{k}: {schedule} has {flying} bytes on their way");
            assert!(blocks * 10 >= multiprocessors(target) * 9, "{target} {n}x{k}: {schedule}");
        }
    }
}

#[test]
fn many_rows_take_large_tiles() {
    for (n, k) in SHAPES {
        for (target, kind) in
            [(Target::Sm80, Kind::Tiles), (Target::Sm89, Kind::Tiles), (Target::Sm90a, Kind::Warpgroups)]
        {
            let sizes: Vec<_> = BUCKETS.iter().skip(2).map(|bucket| chosen(target, n, k, *bucket)).collect();
            println!(
                "{target} {n}x{k}: {}",
                sizes.iter().map(|s| s.to_string()).collect::<Vec<_>>().join(" | ")
            );
            let area = |schedule: &Contract| schedule.tile_rows * schedule.tile_columns;
            let (first, last) = (&sizes[0], &sizes[sizes.len() - 1]);
            assert!(area(first) <= area(last), "{target} {n}x{k}: more rows take larger tiles");
            assert!(last.kind == kind && area(last) >= 128 * 64, "{target} {n}x{k}: {last}");
        }
    }
}

#[test]
fn structures() {
    let tile = product(DType::Bf16, 64, 24);
    let found = find(&tile).expect("a contraction");
    assert_eq!((found.products.len(), found.rows_share, found.columns_share), (1, true, true));
    // Without a product, or with one of a depth that the step decides, it is none.
    let mut symbolic = tile.clone();
    symbolic.axes[found.products[0].axis].extent = sinter_ir::Sym::S.into();
    assert_eq!(find(&symbolic), None);
    assert!(candidates(&symbolic, Target::Sm80, None).is_empty());
    // Rows that are no multiple of 16 bytes cannot be copied by tensor copies.
    let kinds = |n, k| -> Vec<Kind> {
        candidates(&product(DType::Bf16, n, k), Target::Sm90a, Some(16)).iter().map(|s| s.kind).collect()
    };
    assert!(kinds(64, 24).contains(&Kind::Warpgroups) && kinds(64, 24).contains(&Kind::Skinny));
    assert!(!kinds(64, 36).contains(&Kind::Warpgroups) && kinds(64, 36).contains(&Kind::Skinny));
    assert!(!kinds(64, 37).contains(&Kind::Skinny) && kinds(64, 37).contains(&Kind::Tiles));
    let whole = candidates(&product(DType::F32, 64, 24), Target::Sm90a, None);
    assert!(!whole.is_empty() && whole.iter().all(|schedule| schedule.kind == Kind::Fma));
}
