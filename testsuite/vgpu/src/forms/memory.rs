//! Loads, stores and atomics, whose qualifiers combine freely (PTX ISA, "Data movement" and "Parallel synchronization").

/// Where an address points.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Space {
    /// Said by the address.
    Generic,
    /// Device memory.
    Global,
    /// The block's own shared memory, or by [`Space::Cluster`] that of another block of the cluster.
    Shared,
    /// `.shared::cluster`
    Cluster,
    /// The kernel's parameters.
    Param,
}

/// The order that an access keeps with others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// None: another thread must not touch the bytes meanwhile.
    Weak,
    /// `.volatile` and `.relaxed`
    Relaxed,
    /// `.acquire`
    Acquire,
    /// `.release`
    Release,
}

/// A load or a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// Where.
    pub space: Space,
    /// Bytes of an element.
    pub bytes: u8,
    /// Elements: 1, 2, 4 or 8.
    pub count: u8,
    /// Whether a narrow element is extended by its sign.
    pub signed: bool,
    /// The order.
    pub order: Order,
    /// Whether that order holds for other clusters.
    pub device: bool,
    /// Whether a cache policy is the last operand.
    pub policy: bool,
}

/// The bytes of a type, and whether it is signed.
fn type_of(name: &str) -> Option<(u8, bool)> {
    match name {
        "b8" | "u8" => Some((1, false)),
        "s8" => Some((1, true)),
        "b16" | "u16" | "f16" | "bf16" => Some((2, false)),
        "s16" => Some((2, true)),
        "b32" | "u32" | "f32" | "f16x2" | "bf16x2" => Some((4, false)),
        "s32" => Some((4, true)),
        "b64" | "u64" | "s64" | "f64" => Some((8, false)),
        _ => None,
    }
}

/// The space of that name.
fn space_of(name: &str) -> Option<Space> {
    match name {
        "global" => Some(Space::Global),
        "shared" | "shared::cta" => Some(Space::Shared),
        "shared::cluster" => Some(Space::Cluster),
        "param" => Some(Space::Param),
        _ => None,
    }
}

/// Qualifiers that say how to cache, which changes no value.
const CACHE: &[&str] = &[
    "nc",
    "ca",
    "cg",
    "cs",
    "lu",
    "cv",
    "wb",
    "wt",
    "L1::evict_normal",
    "L1::evict_unchanged",
    "L1::evict_first",
    "L1::evict_last",
    "L1::no_allocate",
    "L2::evict_first",
    "L2::evict_last",
    "L2::evict_normal",
    "L2::64B",
    "L2::128B",
    "L2::256B",
];

/// The qualifiers of `ld` and `st`, for the documentation.
pub fn access_grammar() -> String {
    format!(
        "{{ld,st}}{{,.weak,.volatile,.relaxed.SCOPE,.acquire.SCOPE,.release.SCOPE}}{{,.global,.shared,.shared::cta,\
         .shared::cluster,.param}}{{,.{}}}{{,.L2::cache_hint}}{{,.v2,.v4,.v8}}.TYPE",
        CACHE.join(",.")
    )
}

/// The access that a mnemonic after `ld` or `st` stands for.
pub(crate) fn access<'a>(qualifiers: impl Iterator<Item = &'a str>) -> Option<Access> {
    let mut found = Access {
        space: Space::Generic,
        bytes: 0,
        count: 1,
        signed: false,
        order: Order::Weak,
        device: true,
        policy: false,
    };
    for name in qualifiers {
        if found.bytes != 0 {
            return None;
        }
        if let Some(space) = space_of(name) {
            found.space = space;
        } else if let Some((bytes, signed)) = type_of(name) {
            (found.bytes, found.signed) = (bytes, signed);
        } else {
            match name {
                "weak" | "gpu" | "sys" => {}
                "cta" | "cluster" => found.device = false,
                "volatile" | "relaxed" => found.order = Order::Relaxed,
                "acquire" => found.order = Order::Acquire,
                "release" => found.order = Order::Release,
                "v2" => found.count = 2,
                "v4" => found.count = 4,
                "v8" => found.count = 8,
                "L2::cache_hint" => found.policy = true,
                name if CACHE.contains(&name) => {}
                _ => return None,
            }
        }
    }
    let total = u32::from(found.bytes) * u32::from(found.count);
    ((1..=32).contains(&total)).then_some(found)
}

/// What an atomic operation makes of the old value and its operands, all in the low bits of 64.
pub type Combine = fn(u64, u64, u64) -> u64;

/// `atom` or `red`.
#[derive(Clone, Copy)]
pub struct Atomic {
    /// Where.
    pub space: Space,
    /// Bytes of the value: 2, 4 or 8.
    pub bytes: u8,
    /// Operands after the address.
    pub operands: u8,
    /// Whether what others released at the address is known afterwards.
    pub acquires: bool,
    /// Whether what came before is known to those who acquire.
    pub releases: bool,
    /// Whether other clusters take part.
    pub device: bool,
    /// The new value.
    pub combine: Combine,
}

fn f32_add(old: u64, add: u64, _: u64) -> u64 {
    u64::from(super::float::bits(f32::from_bits(old as u32) + f32::from_bits(add as u32)))
}
fn f64_add(old: u64, add: u64, _: u64) -> u64 {
    (f64::from_bits(old) + f64::from_bits(add)).to_bits()
}
fn pair(old: u64, add: u64, value: impl Fn(u32) -> f64, round: impl Fn(f64) -> u32) -> u64 {
    let one =
        |shift: u32| round(value((old >> shift) as u32 & 0xffff) + value((add >> shift) as u32 & 0xffff));
    u64::from(one(0) | one(16) << 16)
}
fn f16x2_add(old: u64, add: u64, _: u64) -> u64 {
    pair(old, add, |bits| half::f16::from_bits(bits as u16).to_f64(), super::half_pairs::f16_round)
}
fn bf16x2_add(old: u64, add: u64, _: u64) -> u64 {
    pair(old, add, |bits| f64::from(f32::from_bits(bits << 16)), super::half_pairs::bf16_round)
}

/// Operations with their types. 32-bit values come zero-extended; results are cut to the width.
fn combination(name: &str, kind: &str) -> Option<Combine> {
    Some(match (name, kind) {
        ("add", "u32" | "s32" | "u64" | "s64") => |old, a, _| old.wrapping_add(a),
        ("add", "f32") => f32_add,
        ("add", "f64") => f64_add,
        ("add", "noftz.f16x2") => f16x2_add,
        ("add", "noftz.bf16x2") => bf16x2_add,
        ("and", "b32" | "b64") => |old, a, _| old & a,
        ("or", "b32" | "b64") => |old, a, _| old | a,
        ("xor", "b32" | "b64") => |old, a, _| old ^ a,
        ("exch", "b32" | "b64") => |_, a, _| a,
        ("cas", "b16" | "b32" | "b64") => |old, a, b| if old == a { b } else { old },
        ("min", "u32" | "u64") => |old, a, _| old.min(a),
        ("max", "u32" | "u64") => |old, a, _| old.max(a),
        ("min", "s64") => |old, a, _| (old as i64).min(a as i64) as u64,
        ("max", "s64") => |old, a, _| (old as i64).max(a as i64) as u64,
        ("min", "s32") => |old, a, _| (old as i32).min(a as i32) as u32 as u64,
        ("max", "s32") => |old, a, _| (old as i32).max(a as i32) as u32 as u64,
        ("inc", "u32") => |old, a, _| if old >= a { 0 } else { old + 1 },
        ("dec", "u32") => |old, a, _| if old == 0 || old > a { a } else { old - 1 },
        _ => return None,
    })
}

/// The atomic operation that a mnemonic after `atom` or `red` stands for.
pub(crate) fn atomic<'a>(qualifiers: impl Iterator<Item = &'a str>) -> Option<Atomic> {
    let (mut space, mut name, mut kind) = (Space::Generic, None, None);
    let (mut acquires, mut releases, mut device) = (false, false, true);
    for word in qualifiers {
        if let Some(found) = space_of(word) {
            space = found;
            continue;
        }
        match word {
            "relaxed" | "gpu" | "sys" => {}
            "cta" | "cluster" => device = false,
            "acquire" => acquires = true,
            "release" => releases = true,
            "acq_rel" => (acquires, releases) = (true, true),
            "noftz" => kind = Some("noftz".to_string()),
            _ if name.is_none() => name = Some(word),
            _ => {
                let before = kind.take().filter(|kind| kind == "noftz");
                kind = Some(before.map_or_else(|| word.into(), |before| format!("{before}.{word}")));
            }
        }
    }
    let (name, kind) = (name?, kind?);
    let combine = combination(name, &kind)?;
    let bytes = type_of(kind.rsplit('.').next()?)?.0;
    let operands = if name == "cas" { 2 } else { 1 };
    Some(Atomic { space, bytes, operands, acquires, releases, device, combine })
}

/// The operations of `atom` and `red`, for the documentation.
pub fn atomic_grammar() -> &'static str {
    "{atom,red}{,.relaxed,.acquire,.release,.acq_rel}{,.SCOPE}{,.global,.shared,.shared::cta,.shared::cluster}\
     .{add.{u32,s32,u64,s64,f32,f64,noftz.f16x2,noftz.bf16x2},{and,or,xor,exch}.{b32,b64},cas.{b16,b32,b64},\
     {min,max}.{u32,s32,u64,s64},{inc,dec}.u32}"
}
