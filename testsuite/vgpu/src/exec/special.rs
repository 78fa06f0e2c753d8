//! Registers that the hardware provides.

use super::block::Machine;
use super::program::Special;
use super::warp::Warp;
use crate::forms::LANES;

impl Machine<'_> {
    /// Sets the special registers of a warp.
    pub(super) fn fill_specials(&self, warp: &mut Warp) {
        for (at, special) in &self.program.specials {
            let mut value = [0; LANES];
            for (lane, value) in value.iter_mut().enumerate() {
                *value = self.special(*special, warp, lane as u32);
            }
            warp.words[*at as usize] = value;
            warp.set_words[*at as usize] = u32::MAX;
        }
    }

    fn special(&self, special: Special, warp: &Warp, lane: u32) -> u32 {
        let (launch, index) = (self.launch, warp.index as u32);
        let along_x = |axis: u8, value: u32, other: u32| if axis == 0 { value } else { other };
        let own = 1u32 << lane;
        match special {
            Special::Thread(axis) => along_x(axis, 32 * index + lane, 0),
            Special::Threads(axis) => along_x(axis, launch.threads, 1),
            Special::Block(axis) => along_x(axis, self.first + warp.block as u32, 0),
            Special::Blocks(axis) => along_x(axis, launch.blocks, 1),
            Special::Lane => lane,
            Special::Warp => index,
            Special::LaneMask(which) => match which {
                0 => own,
                1 => own - 1,
                2 => own | (own - 1),
                3 => !(own | (own - 1)),
                _ => !(own - 1),
            },
            Special::ClusterRank => warp.block as u32,
            Special::ClusterSize => launch.cluster,
            Special::Cluster => self.first / launch.cluster,
            Special::Clusters => launch.blocks / launch.cluster,
            Special::DynamicShared => launch.dynamic_shared,
        }
    }
}
