//! Planning: the groups of every block instance become launches; buffers share memory where their lives do not meet.

use crate::cut::{Cut, Instance, RESIDUAL};
use crate::lower::{Group, Source};
use sinter_ir::{
    Arg, Buffer, BufferId, Graph, GraphError, IdVec, KernelId, Layout, Op, Plan, Slot, Step, TileProgram,
    Type, ValueDef, ValueId, WeightDef, WeightId, dequantised,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A distinct block after rewriting and lowering.
pub struct LoweredBlock {
    /// The rewritten graph.
    pub graph: Graph,
    /// Its groups in topological order.
    pub groups: Vec<Group>,
    /// Which of its values depend on the hidden state.
    pub hidden: IdVec<ValueId, bool>,
}

/// The plan of a whole graph.
pub fn plan(name: &str, cut: &Cut, blocks: &[LoweredBlock], codes: bool) -> Result<Plan, GraphError> {
    let plan = Plan { name: name.into(), ..Plan::default() };
    let mut planner = Planner { plan, codes, ..Planner::default() };
    let prepared = blocks.iter().map(|block| planner.prepare(block)).collect::<Result<Vec<_>, _>>()?;
    let mut sources = Vec::with_capacity(cut.instances.len());
    for instance in &cut.instances {
        sources.push(planner.weight_sources(&prepared[instance.block], instance));
    }
    for (instance, sources) in cut.instances.iter().zip(sources) {
        planner.instance(&prepared[instance.block], instance, &sources);
    }
    let mut plan = planner.plan;
    share_memory(&mut plan);
    number_kernels(&mut plan);
    Ok(plan)
}

/// A block and what planning needs of it, the same for all its instances.
struct Prepared<'a> {
    block: &'a LoweredBlock,
    /// Each weight that a group reads, how it is computed, and whether a product reads it in panels.
    weights: BTreeMap<ValueId, (Expression<'a>, bool)>,
}

/// How a weight is computed: the number of its graph in [`Planner::graphs`] and the block's names of that graph's leaves.
struct Expression<'a> {
    graph: usize,
    leaves: Vec<&'a str>,
}

/// A weight of the whole model. Its expression and the real names of its leaves are its key in [`Planner::known`].
#[derive(Default)]
struct Weight {
    /// Whether any product of any block reads it in panels.
    panels: bool,
    /// Its copies in the plan, one a layout.
    kept: Vec<(Layout, WeightId)>,
}

/// The layouts of a group's weights that are packed, by the positions of their parameters.
type Packed = BTreeMap<usize, Layout>;

#[derive(Default)]
struct Planner<'a> {
    plan: Plan,
    kernels: HashMap<TileProgram, KernelId>,
    /// The kernel of a block's group, by how its weights lie.
    of_group: HashMap<(usize, usize, Packed), KernelId>,
    /// Whether weights that are dequantised stay codes.
    codes: bool,
    /// The distinct graphs that compute weights, with numbers for the names of the leaves, and how a weight so computed lies
    /// where products read it.
    graphs: Vec<(Graph, Layout)>,
    /// The position of a weight in `weights`, by its graph and the names of its leaves.
    known: HashMap<(usize, Vec<&'a str>), usize>,
    weights: Vec<Weight>,
    /// The positions of inputs and states in the plan.
    inputs: HashMap<&'a str, usize>,
    states: HashMap<&'a str, usize>,
    /// Results that do not depend on the hidden state: computed once for all blocks.
    shared: HashMap<(KernelId, Vec<Arg>), Arg>,
    residual: Option<Arg>,
}

impl<'a> Planner<'a> {
    /// Does once for a block what does not depend on the names of its instances.
    fn prepare(&mut self, block: &'a LoweredBlock) -> Result<Prepared<'a>, GraphError> {
        let mut weights = BTreeMap::new();
        for source in block.groups.iter().flat_map(|group| &group.sources) {
            let Source::Weight(value, layout) = source else { continue };
            if !weights.contains_key(value) {
                weights.insert(*value, (self.expression(&block.graph, *value)?, false));
            }
            let (_, panels) = weights.get_mut(value).expect("it was inserted above");
            *panels |= *layout == Layout::Panels;
        }
        Ok(Prepared { block, weights })
    }

    fn expression(&mut self, graph: &'a Graph, value: ValueId) -> Result<Expression<'a>, GraphError> {
        let (graph, leaves) = weight_source(graph, value)?;
        let known = self.graphs.iter().position(|(known, _)| *known == graph);
        let number = known.unwrap_or_else(|| {
            let value = graph.outputs.first().map(|(_, value)| *value).filter(|_| self.codes);
            let found = value.and_then(|value| dequantised(&graph, value));
            let layout = found.map_or(Layout::Panels, |found| Layout::Codes(found.codes));
            self.graphs.push((graph, layout));
            self.graphs.len() - 1
        });
        Ok(Expression { graph: number, leaves })
    }

    /// The positions of a block instance's weights, in the block's order; which of them products read in panels is
    /// noted for all blocks together.
    fn weight_sources(&mut self, prepared: &Prepared<'a>, instance: &'a Instance) -> Vec<usize> {
        let mut sources = Vec::with_capacity(prepared.weights.len());
        for (expression, panels) in prepared.weights.values() {
            let names = expression.leaves.iter().map(|leaf| real_name(instance, leaf)).collect();
            let at = *self.known.entry((expression.graph, names)).or_insert_with(|| {
                self.weights.push(Weight::default());
                self.weights.len() - 1
            });
            self.weights[at].panels |= panels;
            sources.push(at);
        }
        sources
    }

    fn instance(&mut self, prepared: &Prepared<'a>, instance: &'a Instance, sources: &[usize]) {
        let block = prepared.block;
        let weights: BTreeMap<ValueId, usize> =
            prepared.weights.keys().copied().zip(sources.iter().copied()).collect();
        let mut known: BTreeMap<ValueId, Arg> = BTreeMap::new();
        for (number, group) in block.groups.iter().enumerate() {
            let (mut args, mut packed) = (Vec::with_capacity(group.sources.len()), Packed::default());
            let mut written = Vec::new();
            for (at, source) in group.sources.iter().enumerate() {
                let arg = match source {
                    Source::Weight(value, layout) => {
                        let (arg, layout) =
                            self.weight(prepared, instance, (*value, weights[value]), *layout);
                        if layout != Layout::Rows {
                            packed.insert(at, layout);
                        }
                        arg
                    }
                    Source::Value(value) if *value == group.root || group.besides.contains(value) => {
                        let arg = self.result(block, instance, *value);
                        written.push(at);
                        known.insert(*value, arg);
                        arg
                    }
                    Source::Value(value) => match known.get(value) {
                        Some(arg) => *arg,
                        None => self.leaf(&block.graph, instance, *value),
                    },
                };
                args.push(arg);
            }
            let kernel = self.kernel((instance.block, number), packed, group);
            let root = (group.root, block.hidden[group.root]);
            self.launch(Step { kernel, args }, &written, root, &mut known);
        }
        let exit = block.graph.outputs.iter().find(|(name, _)| name == RESIDUAL);
        self.residual = exit.map(|(_, value)| known[value]).or(self.residual);
    }

    /// Adds a launch, unless the same result is there already.
    fn launch(
        &mut self,
        step: Step,
        written: &[usize],
        (root, hidden): (ValueId, bool),
        known: &mut BTreeMap<ValueId, Arg>,
    ) {
        if !hidden {
            let reads = step.args.iter().enumerate().filter(|(at, _)| !written.contains(at));
            let key = (step.kernel, reads.map(|(_, arg)| *arg).collect());
            if let Some(arg) = self.shared.get(&key) {
                known.insert(root, *arg);
                return;
            }
            self.shared.insert(key, known[&root]);
        }
        self.plan.steps.push(step);
    }

    /// The kernel of a group, some of whose weights are packed.
    fn kernel(&mut self, (block, number): (usize, usize), packed: Packed, group: &Group) -> KernelId {
        let key = (block, number, packed);
        if let Some(known) = self.of_group.get(&key) {
            return *known;
        }
        let mut tile = group.tile.clone();
        for (at, param) in tile.params.values_mut().enumerate() {
            // Names of values differ between blocks; kernels that differ in nothing else are one kernel.
            param.name = format!("p{at}");
            if let Some(layout) = key.2.get(&at) {
                // One copy serves products and gathers: rows of a packed weight are read through its layout.
                param.layout = *layout;
            }
        }
        let id = match self.kernels.get(&tile) {
            Some(known) => *known,
            None => self.plan.kernels.push(tile.clone()),
        };
        self.kernels.insert(tile, id);
        self.of_group.insert(key, id);
        id
    }

    /// Where a group's result goes: a state, an output of the plan, or a buffer.
    fn result(&mut self, block: &'a LoweredBlock, instance: &'a Instance, value: ValueId) -> Arg {
        let node = block.graph.node(value);
        if let Op::Scatter {} = node.op {
            return self.leaf(&block.graph, instance, value);
        }
        let output = block.graph.outputs.iter().find(|(name, output)| *output == value && name != RESIDUAL);
        if let Some((canonical, _)) = output {
            let name = real_name(instance, canonical).into();
            self.plan.outputs.push(ValueDef { name, ty: node.ty.clone() });
            return Arg::Output(self.plan.outputs.len() - 1);
        }
        Arg::Buffer(self.plan.buffers.push(Buffer { ty: node.ty.clone(), slot: 0 }))
    }

    fn leaf(&mut self, graph: &'a Graph, instance: &'a Instance, value: ValueId) -> Arg {
        let node = graph.node(value);
        match &node.op {
            Op::Input { name, .. } if name == RESIDUAL => self.residual.unwrap_or(Arg::Input(usize::MAX)),
            Op::Input { name, .. } => {
                Arg::Input(border(&mut self.plan.inputs, &mut self.inputs, name, &node.ty))
            }
            Op::State { name, .. } => {
                let name = real_name(instance, name);
                Arg::State(border(&mut self.plan.states, &mut self.states, name, &node.ty))
            }
            // A scatter changes its state in place.
            _ => self.leaf(graph, instance, node.args[0]),
        }
    }

    /// A weight of a block, at a position in `weights`, and the layout in which it is kept.
    fn weight(
        &mut self,
        prepared: &Prepared<'a>,
        instance: &Instance,
        (value, at): (ValueId, usize),
        layout: Layout,
    ) -> (Arg, Layout) {
        let ty = prepared.block.graph.ty(value);
        let weight = &mut self.weights[at];
        let expression = &prepared.weights[&value].0;
        let (source, codes) = &self.graphs[expression.graph];
        let layout = if matches!(ty.rank(), 2 | 3) && weight.panels { *codes } else { layout };
        if let Some((_, known)) = weight.kept.iter().find(|(kept, _)| *kept == layout) {
            return (Arg::Weight(*known), layout);
        }
        let source = with_names(source.clone(), expression, instance);
        let id = self.plan.weights.push(WeightDef { source, ty: ty.clone(), layout });
        weight.kept.push((layout, id));
        (Arg::Weight(id), layout)
    }
}

/// What a canonical name of a block stands for in an instance; a name that is not canonical stands for itself.
fn real_name<'a>(instance: &'a Instance, name: &'a str) -> &'a str {
    instance.names.get(name).map_or(name, String::as_str)
}

/// The position of a tensor at the plan's border; a new one is added.
fn border<'a>(
    defs: &mut Vec<ValueDef>,
    known: &mut HashMap<&'a str, usize>,
    name: &'a str,
    ty: &Type,
) -> usize {
    *known.entry(name).or_insert_with(|| {
        defs.push(ValueDef { name: name.into(), ty: ty.clone() });
        defs.len() - 1
    })
}

/// The graph that computes a weight from its leaves, with their numbers for names, and the names that they have in the
/// block.
fn weight_source(graph: &Graph, value: ValueId) -> Result<(Graph, Vec<&str>), GraphError> {
    let mut needed = Vec::new();
    operands_first(graph, value, &mut needed);
    let mut source = Graph::new("weight");
    let mut leaves: Vec<&str> = Vec::new();
    let mut map: BTreeMap<ValueId, ValueId> = BTreeMap::new();
    for at in needed {
        let node = graph.node(at);
        let op = match &node.op {
            Op::Param { name, shape, dtype } => {
                leaves.push(name);
                Op::Param { name: (leaves.len() - 1).to_string(), shape: shape.clone(), dtype: *dtype }
            }
            op => op.clone(),
        };
        let args: Vec<ValueId> = node.args.iter().map(|arg| map[arg]).collect();
        map.insert(at, source.push(op, &args)?);
    }
    source.output("weight", map[&value]);
    Ok((source, leaves))
}

/// A value and all below it, operands before their uses: the same order in every block that computes the same.
fn operands_first(graph: &Graph, value: ValueId, needed: &mut Vec<ValueId>) {
    if !needed.contains(&value) {
        graph.node(value).args.iter().for_each(|arg| operands_first(graph, *arg, needed));
        needed.push(value);
    }
}

/// The graph of a weight with the checkpoint's names of its leaves.
fn with_names(mut source: Graph, expression: &Expression, instance: &Instance) -> Graph {
    let names = source.nodes.values_mut().filter_map(|node| match &mut node.op {
        Op::Param { name, .. } => Some(name),
        _ => None,
    });
    for (name, leaf) in names.zip(&expression.leaves) {
        *name = real_name(instance, leaf).into();
    }
    source
}

fn number_kernels(plan: &mut Plan) {
    for (at, kernel) in plan.kernels.values_mut().enumerate() {
        kernel.name = format!("{}{at}", kernel.name);
    }
}

/// Gives each buffer a slot: the free one that fits best, or a new one. A slot is free after the last launch that reads
/// its buffer.
fn share_memory(plan: &mut Plan) {
    let mut last_use: IdVec<BufferId, usize> = plan.buffers.values().map(|_| 0).collect();
    for (at, step) in plan.steps.iter().enumerate() {
        for arg in &step.args {
            if let Arg::Buffer(buffer) = arg {
                last_use[*buffer] = at;
            }
        }
    }
    let (mut free, mut placed): (Vec<usize>, BTreeSet<BufferId>) = (Vec::new(), BTreeSet::new());
    for at in 0..plan.steps.len() {
        let mut dying = Vec::new();
        for arg in plan.steps[at].args.clone() {
            let Arg::Buffer(buffer) = arg else { continue };
            if placed.insert(buffer) {
                let slot = best_slot(plan, &mut free, buffer);
                plan.buffers[buffer].slot = slot;
            }
            if last_use[buffer] == at && !dying.contains(&plan.buffers[buffer].slot) {
                dying.push(plan.buffers[buffer].slot);
            }
        }
        free.extend(dying);
    }
}

fn best_slot(plan: &mut Plan, free: &mut Vec<usize>, buffer: BufferId) -> usize {
    let ty = plan.buffers[buffer].ty.clone();
    let size = |ty: &sinter_ir::Type| ty.typical() * ty.dtype.bytes() as f64;
    let waste = |slot: &Slot| {
        let held = slot.types.iter().map(size).fold(0.0, f64::max);
        (held - size(&ty)).abs()
    };
    let best =
        (0..free.len()).min_by(|a, b| waste(&plan.slots[free[*a]]).total_cmp(&waste(&plan.slots[free[*b]])));
    let slot = match best {
        Some(at) => free.swap_remove(at),
        None => {
            plan.slots.push(Slot::default());
            plan.slots.len() - 1
        }
    };
    if !plan.slots[slot].types.contains(&ty) {
        plan.slots[slot].types.push(ty);
    }
    slot
}
