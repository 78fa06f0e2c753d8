//! Which layers have experts, and what these are.

use serde_json::Value;

use super::{Place, Resolver};
use crate::config::{ConfigError, limits};
use crate::family::*;
use crate::spec::*;

/// Experts of all layers together: beyond this a config is no model but an attack on memory.
const ALL_EXPERTS: usize = 1 << 16;

impl Resolver<'_> {
    /// The second branch of a layer.
    pub(super) fn feed_forward(&self, i: usize, place: Place) -> Result<FeedForward, ConfigError> {
        match &self.family.moe {
            Some(row) if !self.is_dense(row.dense, i)? => {
                Ok(FeedForward::Experts(Box::new(self.experts(row, i, place)?)))
            }
            _ => {
                let width = self.dims.inner * self.widening(place)?;
                Ok(FeedForward::Dense(Box::new(self.mlp(&self.family.mlp, i, width)?)))
            }
        }
    }

    fn is_dense(&self, row: DenseLayers, i: usize) -> Result<bool, ConfigError> {
        match row {
            DenseLayers::Never => Ok(false),
            DenseLayers::First(key, absent) => {
                Ok(i < self.root.opt_usize(key, 0..=*limits::LAYERS.end())?.unwrap_or(absent))
            }
            DenseLayers::ListAndStep(list, step) => {
                let step = self.root.opt_usize(step, limits::LAYERS)?.unwrap_or(1);
                let listed = match self.root.value(list) {
                    None => false,
                    Some(value) => value
                        .as_array()
                        .and_then(|layers| layers.iter().map(Value::as_u64).collect::<Option<Vec<_>>>())
                        .ok_or_else(|| self.root.wrong(list, "a list of layers"))?
                        .contains(&(i as u64)),
                };
                Ok(listed || !(i + 1).is_multiple_of(step))
            }
        }
    }

    fn experts(&self, row: &MoeRow, i: usize, place: Place) -> Result<MoeSpec, ConfigError> {
        let (root, hidden) = (self.root, self.dims.hidden);
        let given = row.count.iter().find(|key| root.value(key).is_some()).or(row.count.first());
        let key = given.copied().unwrap_or_default();
        let count = root.usize(key, limits::EXPERTS)?;
        if count * self.dims.layers > ALL_EXPERTS {
            return Err(root.wrong(key, format!("at most {ALL_EXPERTS} in all layers together")));
        }
        let inner = root.usize(row.inner, limits::WIDTH)?;
        let (into, out) = ((hidden, inner), (inner, hidden));
        let [gate, up, down] = match row.experts {
            ExpertsRow::Each(names) => {
                let each = |name, (n_in, n_out)| {
                    let weight = format!("{}.weight", self.name(name, i));
                    StackSpec { weight, form: StackForm::Each, bias: None, count, n_in, n_out }
                };
                [each(names[0], into), each(names[1], into), each(names[2], out)]
            }
            ExpertsRow::Joined(JoinedRow { names: [both, down], layout, turns, bias }) => {
                let part = |name, (parts, part), (n_in, n_out)| {
                    let weight = self.name(name, i);
                    let bias = bias.then(|| format!("{weight}_bias"));
                    let form = StackForm::Joined { parts, part, layout, turns };
                    StackSpec { weight, form, bias, count, n_in, n_out }
                };
                [part(both, (2, 0), into), part(both, (2, 1), into), part(down, (1, 0), out)]
            }
        };
        let clamp = |row: &ClampRow| -> Result<ClampSpec, ConfigError> {
            Ok(ClampSpec { alpha: self.factor(row.alpha)?, limit: self.factor(row.limit)? })
        };
        Ok(MoeSpec {
            router: self.router(row, i, count)?,
            gate,
            up,
            down,
            activation: self.activation()?,
            clamp: row.clamp.as_ref().map(clamp).transpose()?,
            shared: match &row.shared {
                Some(shared) => Some(self.shared(shared, i, (inner, self.widening(place)?))?),
                None => None,
            },
            norms: row.norms.as_ref().map(|norms| Box::new(self.moe_norms(norms, i))),
        })
    }

    fn moe_norms(&self, row: &MoeNormsRow, i: usize) -> MoeNormsSpec {
        let plain = |name: &str| {
            let weight = Some(format!("{}.weight", self.name(name, i)));
            let (kind, one_plus) = (self.family.norm.kind, self.family.norm.one_plus);
            NormSpec { kind, weight, one_plus, bias: None, width: self.dims.hidden, eps: self.dims.eps }
        };
        let [before, after, shared] = row.parts.map(plain);
        MoeNormsSpec {
            router: NormSpec { weight: Some(self.name(row.router[0], i)), ..before.clone() },
            router_scale: 1.0 / (self.dims.hidden as f64).sqrt(),
            before,
            after,
            shared,
        }
    }

    fn router(&self, row: &MoeRow, i: usize, count: usize) -> Result<RouterSpec, ConfigError> {
        let groups = match row.groups {
            None => None,
            Some((all, some, best)) => {
                let groups = self.root.opt_usize(all, 1..=count)?.unwrap_or(1);
                let chosen = self.root.opt_usize(some, 1..=groups)?.unwrap_or(groups);
                if !count.is_multiple_of(groups) || (groups > 1 && count / groups < best) {
                    return Err(self
                        .root
                        .wrong(all, format!("a divisor of {count} with {best} or more in a group")));
                }
                // Where every group is chosen there is nothing to choose.
                (chosen < groups).then_some(GroupSpec { count: groups, chosen, best })
            }
        };
        let open = groups.map_or(count, |groups| count / groups.count * groups.chosen);
        Ok(RouterSpec {
            linear: LinearSpec {
                layout: MatrixLayout::OutIn,
                ..self.linear(self.name(row.router, i), row.router_bias, (self.dims.hidden, count))
            },
            scoring: row.scoring,
            correction: row.correction.map(|name| self.name(name, i)),
            groups,
            chosen: self.root.usize(row.chosen, 1..=open)?,
            normalise: self.switch(row.normalise)?,
            scale: self.factor(row.scale)?,
            each: row.norms.map(|norms| self.name(norms.router[1], i)),
        })
    }

    fn shared(
        &self,
        row: &SharedRow,
        i: usize,
        (inner, times): (usize, usize),
    ) -> Result<SharedSpec, ConfigError> {
        let width = match row.width {
            SharedWidth::Field(key) => self.root.usize(key, limits::WIDTH)?,
            SharedWidth::Experts(key) => inner * self.root.usize(key, limits::EXPERTS)?,
        };
        let mlp = MlpRow { input: row.input, down: row.down, bias: Switch::Fixed(false) };
        Ok(SharedSpec {
            mlp: self.mlp(&mlp, i, width * times)?,
            gate: row.gate.map(|gate| self.linear(self.name(gate, i), false, (self.dims.hidden, 1))),
        })
    }
}
