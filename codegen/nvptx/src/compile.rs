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

/// Compiles a plan for a target.
pub fn compile(plan: &Plan, target: Target) -> Result<GpuProgram, Error> {
    Ok(with(Assembler::new(target)?, plan)?.0)
}

/// The stages of all kernels that [`compile`] makes, by name, for dumps.
pub fn stages(plan: &Plan, target: Target) -> Result<Vec<(String, Stages)>, Error> {
    Ok(with(Assembler::new(target)?.keeping_stages(), plan)?.1.kept_stages())
}

/// The pipeline.
fn with(assembler: Assembler, plan: &Plan) -> Result<(GpuProgram, Assembler), Error> {
    let target = assembler.target();
    let mut kernels = Kernels::new(plan, assembler);
    let mut buckets = Vec::new();
    for max_tokens in BUCKETS {
        let groups = group::launches(plan, target, max_tokens);
        let launches = groups.iter().map(|group| kernels.launch(group)).collect::<Result<_, _>>()?;
        buckets.push(GpuBucket { max_tokens, launches });
    }
    let draw = kernels.draw()?;
    Ok((GpuProgram { target, kernels: kernels.made, buckets, draw }, kernels.assembler))
}

/// What makes two kernels the same: the programs up to names, what they may assume, and the schedules.
type Key = Vec<(KernelId, Vec<bool>, Schedule)>;

/// The kernels that were compiled so far.
struct Kernels<'a> {
    plan: &'a Plan,
    assembler: Assembler,
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
        Self { plan, assembler, first_equal, keys: Vec::new(), made: Vec::new() }
    }

    fn launch(&mut self, group: &group::Group) -> Result<GpuLaunch, Error> {
        let steps: Vec<&Step> = group.steps.iter().map(|step| &self.plan.steps[*step]).collect();
        let constant = |step: &Step| step.args.iter().map(|arg| matches!(arg, Arg::Weight(_))).collect();
        let part = |(step, schedule): (&&Step, &Schedule)| {
            (self.first_equal[step.kernel.0 as usize], constant(step), schedule.clone())
        };
        let key: Key = steps.iter().zip(&group.schedules).map(part).collect();
        let kernel = match self.keys.iter().position(|known| *known == key) {
            Some(known) => known,
            None => {
                let kernel = self.kernel(&key)?;
                self.made.push(kernel);
                self.keys.push(key);
                self.made.len() - 1
            }
        };
        let args = steps.iter().flat_map(|step| step.args.iter().copied()).collect();
        Ok(GpuLaunch { kernel, args, steps: group.steps.clone() })
    }

    /// The kernel that draws tokens, if the plan's result allows it.
    fn draw(&mut self) -> Result<Option<usize>, Error> {
        let Some(width) = draw::width(self.plan) else { return Ok(None) };
        let kernel = draw::kernel(&self.assembler, format!("draw_{}", self.made.len()), width)?;
        self.made.push(kernel);
        Ok(Some(self.made.len() - 1))
    }

    fn kernel(&self, key: &Key) -> Result<GpuKernel, Error> {
        let number = self.made.len();
        let mut rows = Vec::new();
        for (tile, constant, schedule) in key {
            let piece = Piece { tile: &self.plan.kernels[*tile], constant: constant.clone() };
            match schedule {
                Schedule::Rows(schedule) => rows.push((piece, schedule.clone())),
                Schedule::Attend(schedule) => {
                    return attend::compile(&self.assembler, format!("attend_{number}"), (&piece, *schedule));
                }
                Schedule::Contract(schedule) => {
                    let name = format!("contract_{number}");
                    return contract::kernel(&self.assembler, name, &piece, schedule, rows.first());
                }
            }
        }
        rows::kernel(&self.assembler, format!("rows_{number}"), &rows)
    }
}

/// A program whose names are all empty.
fn without_names(tile: &TileProgram) -> TileProgram {
    let mut tile = tile.clone();
    tile.name.clear();
    tile.params.values_mut().for_each(|param| param.name.clear());
    tile.axes.values_mut().for_each(|axis| axis.name.clear());
    tile
}
