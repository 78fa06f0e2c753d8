//! The parameters and the shape of a launch: what a kernel says it wants, with everything known. Pure.

use sinter_ir::{
    Binding, DevicePtr, GpuError, GpuKernel, GpuParam, LaunchArg, LaunchShape, Sym, TensorMap, TensorMapDef,
};

/// The most blocks along x (CUDA C++ programming guide, table of compute capabilities).
const MAX_BLOCKS: u64 = (1 << 31) - 1;

fn refused(kernel: &GpuKernel, reason: String) -> GpuError {
    GpuError::Kernel { kernel: kernel.name.clone(), reason }
}

/// One value for each parameter of the entry; symbols take one for each of [`Sym::ALL`].
pub(super) fn values(
    kernel: &GpuKernel,
    addresses: &[DevicePtr],
    scratch: DevicePtr,
    binding: &Binding,
) -> Result<Vec<LaunchArg>, GpuError> {
    let address = |at: usize| {
        let found = addresses.len();
        addresses
            .get(at)
            .copied()
            .ok_or_else(|| refused(kernel, format!("it wants argument {at} of {found}")))
    };
    let mut values = Vec::with_capacity(kernel.params.len() + Sym::ALL.len());
    for param in &kernel.params {
        match param {
            GpuParam::Address(at) => values.push(LaunchArg::Address(address(*at)?)),
            GpuParam::Scratch => values.push(LaunchArg::Address(scratch)),
            GpuParam::Symbols => {
                for sym in Sym::ALL {
                    let value = u32::try_from(binding.get(sym));
                    let value =
                        value.map_err(|_| refused(kernel, format!("{sym} is {}", binding.get(sym))))?;
                    values.push(LaunchArg::U32(value));
                }
            }
            GpuParam::TensorMap(def) => {
                values.push(LaunchArg::TensorMap(tensor_map(kernel, def, address(def.arg)?, binding)?))
            }
        }
    }
    Ok(values)
}

fn tensor_map(
    kernel: &GpuKernel,
    def: &TensorMapDef,
    base: DevicePtr,
    binding: &Binding,
) -> Result<TensorMap, GpuError> {
    let dims: Vec<u64> = def.dims.iter().map(|dim| dim.eval(binding)).collect();
    // CUDA driver API, cuTensorMapEncodeTiled: extents 1 to 2^32, boxes 1 to 256, strides multiples of 16 below 2^40.
    let fits = dims.iter().all(|dim| (1..=1 << 32).contains(dim))
        && def.box_dims.iter().all(|side| (1..=256).contains(side))
        && def.strides.iter().all(|stride| stride.is_multiple_of(16) && *stride < 1 << 40)
        && base.0.is_multiple_of(16);
    if !fits {
        let (strides, sides) = (&def.strides, &def.box_dims);
        return Err(refused(
            kernel,
            format!(
                "no tensor map at {:#x} has extents {dims:?}, strides {strides:?}, box {sides:?}",
                base.0
            ),
        ));
    }
    Ok(TensorMap {
        base,
        dtype: def.dtype,
        dims,
        strides: def.strides.clone(),
        box_dims: def.box_dims.clone(),
        swizzle: def.swizzle,
    })
}

/// The shape of a launch; none if there is nothing to do.
pub(super) fn shape(
    kernel: &GpuKernel,
    binding: &Binding,
    multiprocessors: u32,
) -> Result<Option<LaunchShape>, GpuError> {
    let blocks = kernel.blocks(binding, multiprocessors);
    if blocks == 0 {
        return Ok(None);
    }
    if blocks > MAX_BLOCKS || !blocks.is_multiple_of(u64::from(kernel.cluster.max(1))) {
        let cluster = kernel.cluster;
        return Err(refused(kernel, format!("{blocks} blocks in clusters of {cluster} cannot be launched")));
    }
    Ok(Some(LaunchShape {
        blocks: blocks as u32,
        threads: kernel.threads,
        shared_bytes: kernel.shared_bytes,
        cluster: kernel.cluster,
        dependent: kernel.dependent_launch,
    }))
}
