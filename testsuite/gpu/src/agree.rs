//! Runs a graph's steps by the evaluator, by the host and by the virtual GPU, and says where they disagree.

use crate::bounds::{self, Bounded, Leaves, exact};
use crate::graphs::Recipe;
use crate::launch::Stream;
use crate::pieces;
use sinter_codegen_host::micro::Isa;
use sinter_codegen_nvptx::compile;
use sinter_codegen_weights::{AlignedBytes, RawTensor, pack_rows};
use sinter_ir::{DType, GpuProgram, Graph, PAGE, Plan, Target, Tensor};
use sinter_runtime::{
    Batch, BatchBuilder, Chunk, DeviceModel, GpuConfig, GpuModel, HostConfig, HostModel, Limits, Rows,
    WeightBytes,
};
use sinter_vgpu::VirtualGpu;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A graph that is ready to be run: its plan, its weights, its steps, and what they must give.
pub struct Case {
    /// The plan.
    pub plan: Arc<Plan>,
    limits: Limits,
    steps: Vec<Batch>,
    weights: Weights,
    wanted: Vec<Tensor<Bounded>>,
}

/// A weight as numbers, and as the bytes of a checkpoint.
struct Weight {
    dtype: DType,
    tensor: Tensor<f32>,
    bytes: Vec<u8>,
}

type Weights = BTreeMap<String, Weight>;

/// How far off a device was.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Distance {
    /// The greatest share of a bound that was used; at most 1.
    pub share: f64,
    /// The greatest bound in relation to the greatest result.
    pub loosest: f64,
}

/// How often weights are drawn until the choice of experts is clear and the bounds are tight.
const DRAWS: u64 = 5;
/// A bound must be below this share of the greatest result, or it would say little.
const TIGHT: f64 = 1.0 / 16.0;

impl Case {
    /// The case of a recipe.
    ///
    /// None if no weights make its choices clear and its bounds tight.
    ///
    /// # Errors
    /// If the graph does not compile.
    pub fn new(recipe: &Recipe) -> Result<Option<Case>, String> {
        let graph = pieces::graph(recipe).map_err(|error| error.to_string())?;
        let compiled = sinter_passes::compile(&graph, &sinter_passes::Options::default());
        let plan = Arc::new(compiled.map_err(|error| error.to_string())?.plan);
        let steps = steps(recipe);
        let limits = limits(recipe, &steps);
        for draw in 0..DRAWS {
            let weights = weights(&graph, recipe.seed.wrapping_mul(31).wrapping_add(draw));
            if let Some(wanted) = wanted(&graph, (&weights, limits), &steps) {
                return Ok(Some(Case { plan, limits, steps, weights, wanted }));
            }
        }
        Ok(None)
    }

    /// Compiles for a target, runs and compares.
    ///
    /// # Errors
    /// What went wrong where.
    pub fn on_gpu(&self, target: Target) -> Result<Distance, String> {
        self.program(self.compiled(target)?)
    }

    /// The program for a target.
    ///
    /// # Errors
    /// If the plan does not compile.
    pub fn compiled(&self, target: Target) -> Result<GpuProgram, String> {
        compile(&self.plan, target).map_err(|error| format!("{target}: {error}"))
    }

    /// The same with a program.
    ///
    /// # Errors
    /// What went wrong where.
    pub fn program(&self, program: GpuProgram) -> Result<Distance, String> {
        let target = program.target;
        let weight = |at: usize| {
            let def = self.plan.weights.values().nth(at).expect("a weight");
            let packed = pack_rows(def, &|name| self.raw(name)).expect("the weight packs");
            Ok(WeightBytes::new(Arc::new(Owned(packed))))
        };
        let device = Box::new(VirtualGpu::new(target));
        let config = GpuConfig { limits: self.limits, profile: false };
        let model = GpuModel::new(self.plan.clone(), Arc::new(program), &weight, device, config);
        let mut model = model.map_err(|error| format!("{target}: {error}"))?;
        self.run(&mut model).map_err(|error| format!("{target}: {error}"))
    }

    /// Compiles for the host, runs and compares.
    ///
    /// # Errors
    /// What went wrong where.
    pub fn on_host(&self) -> Result<Distance, String> {
        let tiles: Vec<_> = self.plan.kernels.values().collect();
        let kernels = sinter_codegen_host::compile_all(&tiles, Isa::detect());
        let kernels = kernels.map_err(|error| format!("host: {error}"))?;
        let pack = |def| {
            let packed = sinter_codegen_host::pack(def, &|name| self.raw(name)).expect("the weight packs");
            WeightBytes::new(Arc::new(Owned(packed.bytes)))
        };
        let weights = self.plan.weights.values().map(pack).collect();
        let config = HostConfig { threads: 1, limits: self.limits, profile: false };
        let model = HostModel::new(self.plan.clone(), kernels, weights, config);
        let mut model = model.map_err(|error| format!("host: {error}"))?;
        self.run(&mut model).map_err(|error| format!("host: {error}"))
    }

    fn raw(&self, name: &str) -> Option<RawTensor<'_>> {
        let weight = self.weights.get(name)?;
        Some(RawTensor { dtype: weight.dtype, shape: weight.tensor.shape.clone(), bytes: &weight.bytes })
    }

    fn run(&self, model: &mut dyn DeviceModel) -> Result<Distance, String> {
        let mut distance = Distance::default();
        for (number, (batch, wanted)) in self.steps.iter().zip(&self.wanted).enumerate() {
            let found = model.step(batch).map_err(|error| format!("step {number}: {error}"))?;
            let step = compare(found, wanted).map_err(|error| format!("step {number}: {error}"))?;
            distance.share = distance.share.max(step.share);
            distance.loosest = distance.loosest.max(step.loosest);
        }
        Ok(distance)
    }
}

fn compare(found: &[f32], wanted: &Tensor<Bounded>) -> Result<Distance, String> {
    if found.len() != wanted.data.len() {
        return Err(format!("{} numbers, wanted {}", found.len(), wanted.data.len()));
    }
    let greatest = wanted.data.iter().fold(0.0, |most, x| x.value.abs().max(most));
    let mut distance = Distance::default();
    for (at, (found, wanted)) in found.iter().zip(&wanted.data).enumerate() {
        let (found, Bounded { value, error }) = (f64::from(*found), *wanted);
        let off = (found - value).abs();
        // Numbers below f32's normal range are not told from 0.
        if off.is_nan() || off > error + f64::from(f32::MIN_POSITIVE) {
            return Err(format!("number {at} is {found}, wanted {value} ± {error:e}"));
        }
        distance.share = distance.share.max(off / error.max(f64::from(f32::MIN_POSITIVE)));
        distance.loosest = distance.loosest.max(error / greatest);
    }
    Ok(distance)
}

struct Owned(AlignedBytes);

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn encode(dtype: DType, data: &[f32]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(data.len() * dtype.bytes());
    data.iter().for_each(|x| dtype.append(f64::from(*x), &mut bytes));
    bytes
}

/// The first step feeds the prompts, the others one token a sequence; pages are dealt out in no order.
fn steps(recipe: &Recipe) -> Vec<Batch> {
    let mut stream = Stream(recipe.seed ^ 0x5eed);
    let longest = recipe.prompts.iter().max().copied().unwrap_or(1) + recipe.further;
    let each = longest.div_ceil(PAGE as usize);
    let mut free: Vec<u32> = (0..(each * recipe.prompts.len() + 1) as u32).collect();
    let mut tables: Vec<Vec<u32>> = Vec::new();
    for prompt in &recipe.prompts {
        let own = (prompt + recipe.further).div_ceil(PAGE as usize);
        tables.push((0..own).map(|_| free.swap_remove(stream.below(free.len()))).collect());
    }
    let mut batches = Vec::new();
    for step in 0..=recipe.further {
        let mut builder = BatchBuilder::new();
        for (at, (prompt, pages)) in recipe.prompts.iter().zip(&tables).enumerate() {
            let (start, count) = if step == 0 { (0, *prompt) } else { (prompt + step - 1, 1) };
            let tokens: Vec<u32> = (0..count).map(|_| stream.below(recipe.vocab) as u32).collect();
            let rows = if at % 2 == 1 { Rows::Last } else { Rows::All };
            builder.push(Chunk { tokens: &tokens, start, pages, rows });
        }
        batches.push(builder.finish());
    }
    batches
}

fn limits(recipe: &Recipe, steps: &[Batch]) -> Limits {
    let most = |of: &dyn Fn(&Batch) -> usize| steps.iter().map(of).max().unwrap_or(1);
    let longest = recipe.prompts.iter().max().copied().unwrap_or(1) + recipe.further;
    Limits {
        vocab: recipe.vocab,
        max_positions: longest,
        max_tokens: most(&|batch| batch.tokens.len()),
        max_sequences: recipe.prompts.len(),
        pages: longest.div_ceil(PAGE as usize) * recipe.prompts.len() + 1,
    }
}

/// Random weights: products keep the size of what goes through them.
fn weights(graph: &Graph, seed: u64) -> Weights {
    let mut stream = Stream(seed);
    stream.next_bits();
    let mut weights = BTreeMap::new();
    for node in graph.nodes.values() {
        let sinter_ir::Op::Param { name, shape, dtype } = &node.op else { continue };
        let shape: Vec<usize> = shape.iter().map(|dim| dim.coeff as usize).collect();
        let terms = shape.last().copied().unwrap_or(1) as f32;
        let kind = name.split('.').next().unwrap_or_default();
        let number = |x: f32| match kind {
            "w" => x * (3.0 / terms).sqrt(),
            "scale" => 1.0 + x / 4.0,
            "bias" => x / 4.0,
            "scores" => 3.0 * x,
            "frequencies" => x.abs(),
            "slopes" => x / 8.0,
            _ => x,
        };
        let tensor = Tensor::from_fn(&shape, |_| sinter_ir::Real::stored(number(stream.number()), *dtype));
        let bytes = encode(*dtype, &tensor.data);
        weights.insert(name.clone(), Weight { dtype: *dtype, tensor, bytes });
    }
    weights
}

/// What each step must give; none if a choice is too close or a bound too loose.
fn wanted(
    graph: &Graph,
    (weights, limits): (&Weights, Limits),
    steps: &[Batch],
) -> Option<Vec<Tensor<Bounded>>> {
    let mut leaves: Leaves =
        weights.iter().map(|(name, weight)| (name.clone(), exact(&weight.tensor))).collect();
    let mut all = Vec::new();
    for batch in steps {
        let binding = batch.binding(limits.pages);
        let shape = |ty: &sinter_ir::Type| -> Vec<usize> {
            ty.shape.iter().map(|dim| dim.eval(&binding) as usize).collect()
        };
        for node in graph.nodes.values() {
            let Some(name) = node.op.leaf_name() else { continue };
            let values = match name {
                "tokens" => &batch.tokens,
                "positions" => &batch.positions,
                "slots" => &batch.slots,
                "seq" => &batch.seq,
                "table" => &batch.table,
                "rows" => &batch.rows,
                _ => {
                    let zeros = || Tensor::new(shape(&node.ty), vec![0.0; shape(&node.ty).iter().product()]);
                    leaves.entry(name.into()).or_insert_with(|| exact(&zeros()));
                    continue;
                }
            };
            let values = values.iter().map(|x| *x as f32).collect();
            leaves.insert(name.into(), exact(&Tensor::new(shape(&node.ty), values)));
        }
        let mut outputs = bounds::outputs(graph, &binding, &leaves)?;
        let logits = outputs.remove("logits")?;
        let greatest = logits.data.iter().fold(0.0, |most, x| x.value.abs().max(most));
        if logits.data.iter().any(|x| x.error.is_nan() || x.error > TIGHT * greatest) {
            return None;
        }
        all.push(logits);
        leaves.append(&mut outputs);
    }
    Some(all)
}
