//! What the driver is given for a launch, decided without a driver: parameters, attributes, tensor maps. Pure.

use sinter_ir::{DType, GpuError, LaunchArg, LaunchShape, Swizzle, TensorMap};

/// Where the value of a parameter lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The position among the words. A 32-bit value lies in the lower half, which comes first in memory.
    Word(usize),
    /// The position among the tensor maps.
    Map(usize),
}

/// The values of all parameters of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct ParameterBlock {
    pub(super) words: Vec<u64>,
    pub(super) maps: Vec<EncodedMap>,
    /// One for each parameter in order.
    pub(super) places: Vec<Place>,
}

impl ParameterBlock {
    pub(super) fn of(args: &[LaunchArg]) -> Result<Self, GpuError> {
        let mut block = Self::default();
        for arg in args {
            let place = match arg {
                LaunchArg::Address(at) => block.word(at.0),
                LaunchArg::U32(value) => block.word(u64::from(*value)),
                LaunchArg::TensorMap(map) => {
                    block.maps.push(EncodedMap::of(map)?);
                    Place::Map(block.maps.len() - 1)
                }
            };
            block.places.push(place);
        }
        Ok(block)
    }

    fn word(&mut self, word: u64) -> Place {
        self.words.push(word);
        Place::Word(self.words.len() - 1)
    }
}

/// The arguments of `cuTensorMapEncodeTiled` (CUDA driver API, tensor map object management).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EncodedMap {
    pub(super) base: u64,
    /// `CUtensorMapDataType`.
    pub(super) dtype: u32,
    pub(super) dims: Vec<u64>,
    pub(super) strides: Vec<u64>,
    pub(super) box_dims: Vec<u32>,
    /// Every element along every dimension.
    pub(super) element_strides: Vec<u32>,
    /// `CUtensorMapSwizzle`.
    pub(super) swizzle: u32,
}

impl EncodedMap {
    fn of(map: &TensorMap) -> Result<Self, GpuError> {
        let dtype = match map.dtype {
            DType::F16 => 6,
            DType::F32 => 7,
            DType::Bf16 => 9,
            DType::U32 => 2,
            DType::I32 => 4,
            dtype => return Err(GpuError::Device(format!("no tensor map has elements of type {dtype}"))),
        };
        let swizzle = match map.swizzle {
            Swizzle::None => 0,
            Swizzle::B32 => 1,
            Swizzle::B64 => 2,
            Swizzle::B128 => 3,
        };
        let rank = map.dims.len();
        if !(1..=5).contains(&rank) || map.box_dims.len() != rank || map.strides.len() + 1 != rank {
            return Err(GpuError::Device(format!("a tensor map of {rank} dimensions is malformed")));
        }
        Ok(Self {
            base: map.base.0,
            dtype,
            dims: map.dims.clone(),
            strides: map.strides.clone(),
            box_dims: map.box_dims.clone(),
            element_strides: vec![1; rank],
            swizzle,
        })
    }
}

/// An attribute of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LaunchAttribute {
    /// Blocks of a cluster along x.
    Cluster(u32),
    /// The kernel may start before its predecessor has ended (programmatic dependent launch).
    Dependent,
}

/// The attributes that a launch needs on a device of compute capability `major`: clusters and dependent launches came
/// with 9.0, and before it a kernel that would wait finds its predecessor ended.
pub(super) fn attributes(shape: &LaunchShape, major: u32) -> Vec<LaunchAttribute> {
    let mut attributes = Vec::new();
    if shape.cluster > 1 {
        attributes.push(LaunchAttribute::Cluster(shape.cluster));
    }
    if shape.dependent && major >= 9 {
        attributes.push(LaunchAttribute::Dependent);
    }
    attributes
}

/// The names of what was launched since the last time that all was known to be well, for the reason of an error.
pub(super) fn suspects(launched: &[&str]) -> String {
    match launched {
        [] => "no kernel".into(),
        [one] => (*one).into(),
        [first, .., last] if launched.len() > 4 => {
            format!("one of {} from {first} to {last}", launched.len())
        }
        some => format!("one of {}", some.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sinter_ir::DevicePtr;

    fn map() -> TensorMap {
        TensorMap {
            base: DevicePtr(4096),
            dtype: DType::Bf16,
            dims: vec![64, 100],
            strides: vec![128],
            box_dims: vec![64, 16],
            swizzle: Swizzle::B128,
        }
    }

    #[test]
    fn every_parameter_has_a_place() {
        let args = [
            LaunchArg::Address(DevicePtr(0x1_0000_0000)),
            LaunchArg::TensorMap(map()),
            LaunchArg::U32(7),
            LaunchArg::TensorMap(TensorMap { dtype: DType::F32, swizzle: Swizzle::None, ..map() }),
        ];
        let block = ParameterBlock::of(&args).unwrap();
        assert_eq!(block.places, [Place::Word(0), Place::Map(0), Place::Word(1), Place::Map(1)]);
        assert_eq!(block.words, [0x1_0000_0000, 7]);
        // A pointer to the word is a pointer to its lower half.
        assert_eq!(block.words[1].to_ne_bytes()[..4], 7u32.to_ne_bytes());
        let wanted = EncodedMap {
            base: 4096,
            dtype: 9,
            dims: vec![64, 100],
            strides: vec![128],
            box_dims: vec![64, 16],
            element_strides: vec![1, 1],
            swizzle: 3,
        };
        assert_eq!(block.maps[0], wanted);
        assert_eq!((block.maps[1].dtype, block.maps[1].swizzle), (7, 0));
    }

    #[test]
    fn malformed_maps_are_refused() {
        let refused = |change: fn(&mut TensorMap)| {
            let mut map = map();
            change(&mut map);
            ParameterBlock::of(&[LaunchArg::TensorMap(map)]).is_err()
        };
        assert!(refused(|map| map.dims.clear()));
        assert!(refused(|map| map.strides.push(16)));
        assert!(refused(|map| map.box_dims.truncate(1)));
        assert!(refused(|map| map.dtype = DType::Bool));
        assert!(!refused(|_| ()));
    }

    #[test]
    fn attributes_follow_shape_and_capability() {
        let shape =
            |cluster, dependent| LaunchShape { blocks: 4, threads: 128, shared_bytes: 0, cluster, dependent };
        assert_eq!(attributes(&shape(1, false), 9), []);
        assert_eq!(attributes(&shape(2, true), 9), [LaunchAttribute::Cluster(2), LaunchAttribute::Dependent]);
        assert_eq!(attributes(&shape(1, true), 8), []);
    }

    #[test]
    fn suspects_are_named() {
        assert_eq!(suspects(&["a"]), "a");
        assert_eq!(suspects(&["a", "b"]), "one of a, b");
        assert_eq!(suspects(&["a", "b", "c", "d", "e"]), "one of 5 from a to e");
        assert_eq!(suspects(&[]), "no kernel");
    }
}
