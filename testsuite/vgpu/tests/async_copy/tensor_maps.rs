//! TMA copies against loops over elements.

use sinter_ir::{DType, DevicePtr, Swizzle, TensorMap};
use sinter_vgpu::async_copy::tensor_map::{box_bytes, check, pieces};
use sinter_vgpu::async_copy::{Piece, TensorMapError};
use sinter_vgpu::tensor::descriptor::swizzled;

/// A map over a tensor of `dims` whose rows are `pad` bytes apart more than they need, 16-byte aligned.
fn map(dtype: DType, dims: &[u64], box_dims: &[u32], swizzle: Swizzle) -> TensorMap {
    let mut strides = Vec::new();
    let mut stride = (dims[0] * dtype.bytes() as u64).next_multiple_of(16);
    for extent in &dims[1..] {
        strides.push(stride);
        stride *= extent;
    }
    TensorMap {
        base: DevicePtr(4096),
        dtype,
        dims: dims.to_vec(),
        strides,
        box_dims: box_dims.to_vec(),
        swizzle,
    }
}

fn all_pieces(map: &TensorMap, at: &[i32], shared: u32) -> Result<Vec<Piece>, TensorMapError> {
    let mut found = Vec::new();
    pieces(map, at, shared, &mut |piece| -> Result<(), TensorMapError> {
        found.push(piece);
        Ok(())
    })?;
    Ok(found)
}

/// Where each byte of shared memory comes from, by a loop over the elements of the box.
fn by_element(map: &TensorMap, at: &[i32], shared: u32) -> Vec<(u32, Option<u64>)> {
    let element = map.dtype.bytes() as u64;
    let mut bytes = Vec::new();
    for count in 0..map.box_dims.iter().product::<u32>() {
        let (mut rest, mut global) = (count, Some(map.base.0));
        for (axis, start) in at.iter().enumerate() {
            let index = i64::from(rest % map.box_dims[axis]) + i64::from(*start);
            rest /= map.box_dims[axis];
            let stride = if axis == 0 { element } else { map.strides[axis - 1] };
            let inside = index >= 0 && (index as u64) < map.dims[axis];
            global = global.filter(|_| inside).map(|global| global + index as u64 * stride);
        }
        for byte in 0..element {
            let to = swizzled(map.swizzle, shared + count * element as u32 + byte as u32);
            bytes.push((to, global.map(|global| global + byte)));
        }
    }
    bytes.sort_unstable();
    bytes
}

fn by_piece(map: &TensorMap, at: &[i32], shared: u32) -> Vec<(u32, Option<u64>)> {
    let mut bytes = Vec::new();
    for piece in all_pieces(map, at, shared).expect("the copy is allowed") {
        assert!(
            (1..=16).contains(&piece.bytes) && piece.shared / 16 == (piece.shared + piece.bytes - 1) / 16
        );
        for byte in 0..piece.bytes {
            bytes.push((piece.shared + byte, piece.global.map(|global| global + u64::from(byte))));
        }
    }
    bytes.sort_unstable();
    bytes
}

#[test]
fn boxes_of_one_to_five_dimensions() {
    for rank in 1..=5 {
        for swizzle in [Swizzle::None, Swizzle::B32, Swizzle::B64, Swizzle::B128] {
            for (dtype, coordinate) in
                [(DType::Bf16, 0), (DType::F16, 7), (DType::F32, -3), (DType::Bf16, 60), (DType::F32, 58)]
            {
                let across = [48, 32, 64, 128][swizzle as usize] / dtype.bytes() as u32;
                let map = map(dtype, &[69, 5, 4, 3, 2][..rank], &[across, 3, 2, 2, 2][..rank], swizzle);
                for outer in [-1, 0, 1, 4] {
                    let mut at = vec![outer; rank];
                    at[0] = coordinate;
                    let found = by_piece(&map, &at, 384);
                    assert_eq!(found, by_element(&map, &at, 384), "{map:?} at {at:?}");
                    assert_eq!(found.len() as u32, box_bytes(&map));
                    let mut bytes: Vec<u32> = found.iter().map(|byte| byte.0).collect();
                    bytes.dedup();
                    assert_eq!(bytes.len(), found.len(), "each byte is written once");
                }
            }
        }
    }
}

#[test]
fn nothing_inside_is_all_zeros() {
    let map = map(DType::Bf16, &[64, 8], &[32, 4], Swizzle::B64);
    for at in [[64, 0], [-32, 0], [0, 8], [0, -4], [i32::MAX, i32::MIN]] {
        let found = all_pieces(&map, &at, 0).expect("the copy is allowed");
        assert!(found.iter().all(|piece| piece.global.is_none()));
        assert_eq!(found.iter().map(|piece| piece.bytes).sum::<u32>(), 256);
    }
}

/// The CUDA programming guide gives the place of 16-byte piece `x` of row `y` as a formula with the pattern's phase.
#[test]
fn swizzles_are_those_of_the_programming_guide() {
    for (swizzle, span) in [(Swizzle::B128, 128u32), (Swizzle::B64, 64), (Swizzle::B32, 32)] {
        for start in [0u32, 128, 384, 1024 + 640] {
            let lines_of_pattern = span / 16;
            let pattern = start / 128 % lines_of_pattern;
            for y in 0..32 {
                for x in 0..span / 16 {
                    let line = y * span / 128;
                    let wanted = start + y * span + (((line + pattern) % lines_of_pattern) ^ x) * 16;
                    assert_eq!(swizzled(swizzle, start + y * span + x * 16 + 5), wanted + 5);
                }
            }
        }
    }
    assert_eq!(swizzled(Swizzle::None, 0x12345), 0x12345);
    // Row 3 of a tile under the 128-byte swizzle begins with its fourth piece.
    assert_eq!(swizzled(Swizzle::B128, 3 * 128), 3 * 128 + 3 * 16);
}

#[test]
fn maps_that_the_driver_refuses_are_refused() {
    let good = || map(DType::Bf16, &[64, 8], &[64, 8], Swizzle::B128);
    let broken = |change: &dyn Fn(&mut TensorMap)| {
        let mut map = good();
        change(&mut map);
        let error = check(&map).expect_err("broken");
        assert_eq!(all_pieces(&map, &[0, 0], 0), Err(error.clone()));
        error
    };
    assert_eq!(check(&good()), Ok(()));
    assert_eq!(broken(&|map| map.dims.clear()), TensorMapError::Rank { extents: 0, strides: 1, boxes: 2 });
    assert_eq!(broken(&|map| map.dtype = DType::U32), TensorMapError::Type(DType::U32));
    assert_eq!(broken(&|map| map.base = DevicePtr(8)), TensorMapError::Base(8));
    assert_eq!(broken(&|map| map.dims[1] = 0), TensorMapError::Extent(1, 0));
    assert_eq!(broken(&|map| map.strides[0] = 72), TensorMapError::Stride(1, 72));
    assert_eq!(broken(&|map| map.strides[0] = 1 << 40), TensorMapError::Stride(1, 1 << 40));
    assert_eq!(broken(&|map| map.box_dims[1] = 257), TensorMapError::BoxExtent(1, 257));
    assert_eq!(broken(&|map| map.box_dims[0] = 12), TensorMapError::RowBytes(24));
    assert_eq!(broken(&|map| map.swizzle = Swizzle::B64), TensorMapError::Span(128, 64));
    assert_eq!(broken(&|map| map.box_dims[0] = 32), TensorMapError::Span(64, 128));
    assert_eq!(all_pieces(&good(), &[0], 0), Err(TensorMapError::Coordinates { found: 1, wanted: 2 }));
    assert_eq!(all_pieces(&good(), &[0, 0], 64), Err(TensorMapError::Shared(64)));
}
