//! Planning: the groups of every block instance become launches; buffers share memory where their lives do not meet.

use crate::cut::{Cut, Instance, RESIDUAL};
use crate::lower::{Group, Source};
use sinter_ir::{
    Arg, Buffer, BufferId, Graph, GraphError, IdVec, KernelId, Layout, Op, Plan, Slot, StateDef, Step,
    TileProgram, Type, ValueDef, ValueId, WeightDef, WeightId,
};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

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
pub fn plan(name: &str, cut: &Cut, blocks: &[LoweredBlock]) -> Result<Plan, GraphError> {
    let mut planner = Planner { plan: Plan { name: name.into(), ..Plan::default() }, ..Planner::default() };
    let mut sources = Vec::with_capacity(cut.instances.len());
    for instance in &cut.instances {
        sources.push(planner.weight_sources(&blocks[instance.block], instance)?);
    }
    for (instance, sources) in cut.instances.iter().zip(sources) {
        planner.instance(&blocks[instance.block], instance, sources);
    }
    let mut plan = planner.plan;
    share_memory(&mut plan);
    number_kernels(&mut plan);
    Ok(plan)
}

#[derive(Default)]
struct Planner {
    plan: Plan,
    kernels: HashMap<TileProgram, KernelId>,
    /// The kernel of a block's group, by which of its weights lie in panels.
    of_group: HashMap<(usize, usize, u64), KernelId>,
    weights: HashMap<Graph, [Option<WeightId>; 2]>,
    /// The weights that a product reads in panels.
    panels: HashSet<Graph>,
    /// Results that do not depend on the hidden state: computed once for all blocks.
    shared: BTreeMap<(KernelId, String), Arg>,
    residual: Option<Arg>,
}

impl Planner {
    /// The weights of a block instance; which of them products read in panels is noted for all blocks together.
    fn weight_sources(
        &mut self,
        block: &LoweredBlock,
        instance: &Instance,
    ) -> Result<WeightSources, GraphError> {
        let mut sources = WeightSources::new();
        for source in block.groups.iter().flat_map(|group| &group.sources) {
            let Source::Weight(value, layout) = source else { continue };
            if !sources.contains_key(value) {
                sources.insert(*value, weight_source(&block.graph, *value, instance)?);
            }
            if *layout == Layout::Panels {
                self.panels.insert(sources[value].clone());
            }
        }
        Ok(sources)
    }

    fn instance(&mut self, block: &LoweredBlock, instance: &Instance, sources: WeightSources) {
        let mut known: BTreeMap<ValueId, Arg> = BTreeMap::new();
        for (number, group) in block.groups.iter().enumerate() {
            let (mut args, mut packed) = (Vec::new(), 0u64);
            let mut written = Vec::new();
            for (at, source) in group.sources.iter().enumerate() {
                let arg = match source {
                    Source::Weight(value, layout) => {
                        let (arg, layout) = self.weight(block.graph.ty(*value), *layout, &sources[value]);
                        packed |= u64::from(layout == Layout::Panels) << (at % 64);
                        arg
                    }
                    Source::Value(value) if *value == group.root => {
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
            let kernel = self.kernel((instance.block, number, packed), group);
            self.launch(Step { kernel, args }, &written, (group.root, block.hidden[group.root]), &mut known);
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
            let reads =
                step.args.iter().enumerate().filter(|(at, _)| !written.contains(at)).map(|(_, arg)| arg);
            let key = (step.kernel, format!("{:?}", reads.collect::<Vec<_>>()));
            if let Some(arg) = self.shared.get(&key) {
                known.insert(root, *arg);
                return;
            }
            self.shared.insert(key, known[&root]);
        }
        self.plan.steps.push(step);
    }

    /// The kernel of a group whose weights at the positions in `packed` lie in panels.
    fn kernel(&mut self, key: (usize, usize, u64), group: &Group) -> KernelId {
        if let Some(known) = self.of_group.get(&key) {
            return *known;
        }
        let mut tile = group.tile.clone();
        for (at, param) in tile.params.values_mut().enumerate() {
            // Names of values differ between blocks; kernels that differ in nothing else are one kernel.
            param.name = format!("p{at}");
            if key.2 >> (at % 64) & 1 == 1 {
                // One copy serves products and gathers: rows of a packed weight are read through its layout.
                param.layout = Layout::Panels;
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
    fn result(&mut self, block: &LoweredBlock, instance: &Instance, value: ValueId) -> Arg {
        let node = block.graph.node(value);
        if let Op::Scatter {} = node.op {
            return self.leaf(&block.graph, instance, value);
        }
        let output = block.graph.outputs.iter().find(|(name, output)| *output == value && name != RESIDUAL);
        if let Some((canonical, _)) = output {
            let name = instance.names.get(canonical).unwrap_or(canonical).clone();
            self.plan.outputs.push(ValueDef { name, ty: node.ty.clone() });
            return Arg::Output(self.plan.outputs.len() - 1);
        }
        Arg::Buffer(self.plan.buffers.push(Buffer { ty: node.ty.clone(), slot: 0 }))
    }

    fn leaf(&mut self, graph: &Graph, instance: &Instance, value: ValueId) -> Arg {
        let node = graph.node(value);
        match &node.op {
            Op::Input { name, .. } if name == RESIDUAL => self.residual.unwrap_or(Arg::Input(usize::MAX)),
            Op::Input { name, .. } => Arg::Input(border(&mut self.plan.inputs, name, node)),
            Op::State { name, .. } => {
                let name = instance.names.get(name).unwrap_or(name).clone();
                Arg::State(border(&mut self.plan.states, &name, node))
            }
            // A scatter changes its state in place.
            _ => self.leaf(graph, instance, node.args[0]),
        }
    }

    /// The weight and the layout in which it is kept.
    fn weight(&mut self, ty: &Type, layout: Layout, source: &Graph) -> (Arg, Layout) {
        let layout = if ty.rank() == 2 && self.panels.contains(source) { Layout::Panels } else { layout };
        if !self.weights.contains_key(source) {
            self.weights.insert(source.clone(), [None; 2]);
        }
        let known =
            self.weights.get_mut(source).and_then(|ids| ids.get_mut(usize::from(layout == Layout::Panels)));
        let new = || self.plan.weights.push(WeightDef { source: source.clone(), ty: ty.clone(), layout });
        let id = known.map_or(WeightId(0), |known| *known.get_or_insert_with(new));
        (Arg::Weight(id), layout)
    }
}

/// The graph that computes each weight of a block instance.
type WeightSources = BTreeMap<ValueId, Graph>;

fn border(defs: &mut Vec<StateDef>, name: &str, node: &sinter_ir::Node) -> usize {
    defs.iter().position(|def| def.name == name).unwrap_or_else(|| {
        defs.push(ValueDef { name: name.into(), ty: node.ty.clone() });
        defs.len() - 1
    })
}

/// The graph that computes a weight from the checkpoint's tensors, under their real names.
fn weight_source(graph: &Graph, value: ValueId, instance: &Instance) -> Result<Graph, GraphError> {
    let mut needed = vec![value];
    let mut at = 0;
    while at < needed.len() {
        needed.extend(&graph.node(needed[at]).args);
        at += 1;
    }
    needed.sort_unstable();
    needed.dedup();
    let mut source = Graph::new("weight");
    let mut map: BTreeMap<ValueId, ValueId> = BTreeMap::new();
    for at in needed {
        let node = graph.node(at);
        let op = match &node.op {
            Op::Param { name, shape, dtype } => Op::Param {
                name: instance.names.get(name).unwrap_or(name).clone(),
                shape: shape.clone(),
                dtype: *dtype,
            },
            op => op.clone(),
        };
        let args: Vec<ValueId> = node.args.iter().map(|arg| map[arg]).collect();
        map.insert(at, source.push(op, &args)?);
    }
    source.output("weight", map[&value]);
    Ok(source)
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
