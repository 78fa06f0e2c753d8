//! From a plan to a GPU program.

use crate::emit::{Assembler, Stages};
use crate::{Error, attend, contract, draw, rows};
use sinter_codegen_schedule::{BUCKETS, Schedule, group};
use sinter_ir::{
    Arg, GpuBucket, GpuKernel, GpuLaunch, GpuProgram, KernelId, Plan, Step, Target, TileProgram,
};

/// A program that a kernel does, alone or beside others.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Piece<'a> {
    /// The program.
    pub tile: &'a TileProgram,
    /// Of each parameter, whether it is a weight, which nothing writes while the model runs.
    pub constant: Vec<bool>,
}

/// Gives the kernel of a description: one that was kept, or what the function makes. The description holds all that the
/// code depends on but the compiler itself.
pub type Keeper<'k, E> = dyn FnMut(&str, &dyn Fn() -> Result<GpuKernel, Error>) -> Result<GpuKernel, E> + 'k;

/// Compiles a plan for a target.
pub fn compile(plan: &Plan, target: Target) -> Result<GpuProgram, Error> {
    compile_sizes(plan, target, &BUCKETS, &mut |_, make| make())
}

/// Compiles a plan for steps of some sizes, which are among [`BUCKETS`], smallest first. Kernels have the same names
/// whichever sizes they are compiled for, and in whichever plan.
pub fn compile_sizes<E: From<Error>>(
    plan: &Plan,
    target: Target,
    sizes: &[Option<u64>],
    keeper: &mut Keeper<'_, E>,
) -> Result<GpuProgram, E> {
    Ok(with(Assembler::new(target)?, plan, sizes, keeper)?.0)
}

/// The stages of all kernels that [`compile`] makes, by name, for dumps.
pub fn stages(plan: &Plan, target: Target) -> Result<Vec<(String, Stages)>, Error> {
    let assembler = Assembler::new(target)?.keeping_stages();
    Ok(with(assembler, plan, &BUCKETS, &mut |_, make| make())?.1.kept_stages())
}

/// The pipeline.
fn with<E: From<Error>>(
    assembler: Assembler,
    plan: &Plan,
    sizes: &[Option<u64>],
    keeper: &mut Keeper<'_, E>,
) -> Result<(GpuProgram, Assembler), E> {
    let target = assembler.target();
    let mut kernels = Kernels::new(plan, assembler);
    let mut buckets = Vec::new();
    for max_tokens in sizes.iter().copied() {
        let groups = group::launches(plan, target, max_tokens);
        let launches = groups.iter().map(|group| kernels.launch(group, keeper)).collect::<Result<_, _>>()?;
        buckets.push(GpuBucket { max_tokens, launches });
    }
    let draw = kernels.draw(keeper)?;
    Ok((GpuProgram { target, kernels: kernels.made, buckets, draw }, kernels.assembler))
}

/// What makes two kernels the same: the programs up to names, what they may assume, and the schedules.
type Key = Vec<(KernelId, Vec<bool>, Schedule)>;

/// The kernels that were compiled so far.
struct Kernels<'a> {
    plan: &'a Plan,
    assembler: Assembler,
    nameless: Vec<TileProgram>,
    /// Of each program the first that is equal up to names.
    first_equal: Vec<KernelId>,
    keys: Vec<Key>,
    made: Vec<GpuKernel>,
}

impl<'a> Kernels<'a> {
    fn new(plan: &'a Plan, assembler: Assembler) -> Self {
        let nameless: Vec<TileProgram> = plan.kernels.values().map(without_names).collect();
        let first = |tile: &TileProgram| nameless.iter().position(|other| other == tile).unwrap_or(0);
        let first_equal = nameless.iter().map(|tile| KernelId(first(tile) as u32)).collect();
        Self { plan, assembler, nameless, first_equal, keys: Vec::new(), made: Vec::new() }
    }

    fn launch<E: From<Error>>(
        &mut self,
        group: &group::Group,
        keeper: &mut Keeper<'_, E>,
    ) -> Result<GpuLaunch, E> {
        let steps: Vec<&Step> = group.steps.iter().map(|step| &self.plan.steps[*step]).collect();
        let constant = |step: &Step| step.args.iter().map(|arg| matches!(arg, Arg::Weight(_))).collect();
        let part = |(step, schedule): (&&Step, &Schedule)| {
            (self.first_equal[step.kernel.0 as usize], constant(step), schedule.clone())
        };
        let key: Key = steps.iter().zip(&group.schedules).map(part).collect();
        let kernel = match self.keys.iter().position(|known| *known == key) {
            Some(known) => known,
            None => {
                let description = self.description(&key);
                let kernel = keeper(&description, &|| self.kernel(&key, &description))?;
                self.made.push(kernel);
                self.keys.push(key);
                self.made.len() - 1
            }
        };
        let args = steps.iter().flat_map(|step| step.args.iter().copied()).collect();
        Ok(GpuLaunch { kernel, args, steps: group.steps.clone() })
    }

    /// The kernel that draws tokens, if the plan's result allows it.
    fn draw<E: From<Error>>(&mut self, keeper: &mut Keeper<'_, E>) -> Result<Option<usize>, E> {
        let Some(width) = draw::width(self.plan) else { return Ok(None) };
        let description = format!("{} draw {width}", self.assembler.target());
        let make = || draw::kernel(&self.assembler, name("draw", &description), width);
        let kernel = keeper(&description, &make)?;
        self.made.push(kernel);
        Ok(Some(self.made.len() - 1))
    }

    fn description(&self, key: &Key) -> String {
        let part = |(tile, constant, schedule): &(KernelId, Vec<bool>, Schedule)| {
            format!("\n{schedule:?}\n{constant:?}\n{:?}", self.nameless[tile.0 as usize])
        };
        self.assembler.target().to_string() + &key.iter().map(part).collect::<String>()
    }

    fn kernel(&self, key: &Key, description: &str) -> Result<GpuKernel, Error> {
        let mut rows = Vec::new();
        for (tile, constant, schedule) in key {
            let piece = Piece { tile: &self.plan.kernels[*tile], constant: constant.clone() };
            match schedule {
                Schedule::Rows(schedule) => rows.push((piece, schedule.clone())),
                Schedule::Attend(schedule) => {
                    return attend::compile(
                        &self.assembler,
                        name("attend", description),
                        (&piece, *schedule),
                    );
                }
                Schedule::Contract(schedule) => {
                    let name = name("contract", description);
                    return contract::kernel(&self.assembler, name, &piece, schedule, rows.first());
                }
            }
        }
        rows::kernel(&self.assembler, name("rows", description), &rows)
    }
}

/// A kernel's name: its structure, and a number that its description gives (32 bits by Fowler, Noll and Vo, variant 1a).
fn name(structure: &str, description: &str) -> String {
    let mix = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    format!("{structure}_{:08x}", description.bytes().fold(0x811c_9dc5, mix))
}

/// A program whose names are all empty.
fn without_names(tile: &TileProgram) -> TileProgram {
    let mut tile = tile.clone();
    tile.name.clear();
    tile.params.values_mut().for_each(|param| param.name.clear());
    tile.axes.values_mut().for_each(|axis| axis.name.clear());
    tile
}
