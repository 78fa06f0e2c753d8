//! From a row of the table and the fields of `config.json` to a [`ModelSpec`].

mod experts;
mod latent;
mod layers;
mod per_layer;

use crate::config::{ConfigError, RawConfig, Section, limits};
use crate::families::FAMILIES;
use crate::family::*;
use crate::rope::RopeSpec;
use crate::source::shorten;
use crate::spec::*;
use layers::HeadDims;
use serde_json::Value;

/// Resolves a configuration. `contains` says whether the checkpoint has a tensor: the same family is stored with
/// and without a prefix before its names. Every field must be understood.
pub fn resolve(config: &RawConfig, contains: &dyn Fn(&str) -> bool) -> Result<ModelSpec, ConfigError> {
    resolve_in(FAMILIES, config, contains)
}

/// The same with another table of families.
pub fn resolve_in(
    table: &[&'static Family],
    config: &RawConfig,
    contains: &dyn Fn(&str) -> bool,
) -> Result<ModelSpec, ConfigError> {
    let root = config.root();
    let family = find_family(table, root)?;
    let spec = Resolver::new(family, root, contains)?.model()?;
    check_ignored(family, root)?;
    check_task(family, root)?;
    config.finish()?;
    Ok(spec)
}

/// The families that can be compiled, by the names that `model_type` has for them.
pub fn known_families() -> Vec<&'static str> {
    known_in(FAMILIES)
}

fn known_in(table: &[&'static Family]) -> Vec<&'static str> {
    let mut names: Vec<&'static str> = table.iter().map(|family| family.model_type).collect();
    names.dedup();
    names
}

/// The rows of a family; none if it is not known.
pub fn rows(model_type: &str) -> Vec<&'static Family> {
    FAMILIES.iter().copied().filter(|family| family.model_type == model_type).collect()
}

/// The fields that rows read at one value only, as `field = value`; a row of several is named with its `when`.
pub fn held_fields() -> Vec<(String, Vec<String>)> {
    let pair = |(key, value): &(&str, &str)| format!("`{key}` = {value}");
    let held = FAMILIES.iter().filter(|family| !family.only.is_empty()).map(|family| {
        let when: Vec<String> = family.when.iter().map(pair).collect();
        let name = match when.is_empty() {
            true => family.model_type.to_owned(),
            false => format!("{} with {}", family.model_type, when.join(", ")),
        };
        (name, family.only.iter().map(pair).collect())
    });
    held.collect()
}

fn find_family(table: &[&'static Family], root: Section<'_>) -> Result<&'static Family, ConfigError> {
    let found = root.str("model_type")?;
    let rows: Vec<&'static Family> =
        table.iter().copied().filter(|family| family.model_type == found).collect();
    let says = |(key, wanted): &(&str, &str)| {
        root.value(key).map_or_else(|| "null".into(), ToString::to_string) == *wanted
    };
    match (rows.iter().find(|family| family.when.iter().all(says)), rows.first()) {
        (Some(family), _) => Ok(family),
        (None, Some(first)) => {
            let (key, _) = first.when.iter().find(|pair| !says(pair)).unwrap_or(&("model_type", ""));
            let value = root.value(key).map_or_else(|| "absent".into(), ToString::to_string);
            Err(root.config().unsupported(key, &value))
        }
        (None, None) => Err(ConfigError::UnknownFamily {
            place: root.config().place().to_owned(),
            found: shorten(found),
            known: known_in(table),
        }),
    }
}

fn check_ignored(family: &Family, root: Section<'_>) -> Result<(), ConfigError> {
    family.ignored.iter().for_each(|key| root.skip(key));
    for (key, wanted) in family.only {
        let found = root.value(key).map(ToString::to_string);
        if let Some(found) = found.filter(|found| found != wanted) {
            return Err(root.config().unsupported(key, &found));
        }
    }
    for (key, other) in family.equal {
        if root.value(key).is_some_and(|found| Some(found) != root.value(other)) {
            return Err(root.wrong(key, format!("the value of `{other}`")));
        }
    }
    Ok(())
}

/// A decoder that was trained to score or to label has a head that is not read. With tied embeddings nothing else of the
/// checkpoint would tell it from one that writes.
fn check_task(family: &Family, root: Section<'_>) -> Result<(), ConfigError> {
    const OTHER: [&str; 3] = ["ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering"];
    let Some(Value::Array(names)) = root.value("architectures") else { return Ok(()) };
    let names = names.iter().filter_map(Value::as_str);
    let mut other = names.filter(|name| OTHER.iter().any(|task| name.ends_with(task)));
    match other.next() {
        Some(name) if family.kind == ModelKind::Decoder => {
            Err(root.config().unsupported("architectures", &shorten(name)))
        }
        _ => Ok(()),
    }
}

/// The dimensions that every part of a model needs.
struct Dims {
    hidden: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    inner: usize,
    vocab: usize,
    max_position: usize,
    eps: f64,
}

/// What differs from layer to layer.
#[derive(Clone, Copy)]
struct Place {
    window: Option<usize>,
    /// The rotary table.
    rope: Option<usize>,
    /// The layer whose keys and values are read.
    shared: Option<usize>,
}

/// What stands before the names of a text model that is a part of a larger one.
const WRAPPED: &[&str] = &["model.language_model.", "language_model.model.", "language_model."];

struct Resolver<'a> {
    family: &'static Family,
    root: Section<'a>,
    dims: Dims,
    prefix: &'static str,
    /// Whether the checkpoint has the head that scores sequences.
    scores: bool,
    /// How the two tensors of a norm are called: old checkpoints of BERT say gamma and beta.
    norm_names: (&'static str, &'static str),
}

impl Dims {
    fn read(keys: &Keys, root: Section<'_>) -> Result<Self, ConfigError> {
        let hidden = root.usize(keys.hidden, limits::WIDTH)?;
        let heads = root.usize(keys.heads, limits::HEADS)?;
        let (kv_heads, kv_key) = match keys.kv_heads {
            KvHeads::AsQueries => (heads, keys.heads),
            KvHeads::Fixed(count) => (count, keys.heads),
            KvHeads::Field(key) => (root.opt_usize(key, limits::HEADS)?.unwrap_or(heads), key),
        };
        if !heads.is_multiple_of(kv_heads) {
            return Err(root.wrong(kv_key, format!("a divisor of {}, which is {heads}", keys.heads)));
        }
        let head_dim = match keys.head_dim.map_or(Ok(None), |key| root.opt_usize(key, limits::WIDTH))? {
            Some(head_dim) => head_dim,
            None if hidden.is_multiple_of(heads) => hidden / heads,
            None => {
                return Err(
                    root.wrong(keys.heads, format!("a divisor of {}, which is {hidden}", keys.hidden))
                );
            }
        };
        let inner = match root.opt_usize(keys.inner, limits::WIDTH)? {
            Some(inner) => inner,
            None if keys.inner_multiple > 0 => hidden * keys.inner_multiple,
            None => root.usize(keys.inner, limits::WIDTH)?,
        };
        let max_position = match root.opt_usize(keys.positions, limits::POSITIONS)? {
            None if keys.positions_absent > 0 => keys.positions_absent,
            Some(positions) => positions,
            None => root.usize(keys.positions, limits::POSITIONS)?,
        };
        Ok(Dims {
            hidden,
            layers: root.usize(keys.layers, limits::LAYERS)?,
            heads,
            kv_heads,
            head_dim,
            inner,
            vocab: root.usize("vocab_size", limits::VOCABULARY)?,
            max_position,
            eps: match keys.eps {
                Factor::Field(key) => root.f64(key, limits::EPSILON)?,
                Factor::FieldOr(key, absent) => root.opt_f64(key, limits::EPSILON)?.unwrap_or(absent),
                Factor::Fixed(eps) => eps,
                _ => 0.0,
            },
        })
    }
}

impl<'a> Resolver<'a> {
    fn new(
        family: &'static Family,
        root: Section<'a>,
        contains: &dyn Fn(&str) -> bool,
    ) -> Result<Self, ConfigError> {
        let has = |prefix: &&&str| contains(&format!("{prefix}{}.weight", family.embedding.tokens));
        let mut known = family.prefixes.iter().chain(WRAPPED);
        let prefix = known.find(has).or(family.prefixes.first()).copied().unwrap_or("");
        let places = [family.norms.attention, family.norms.mlp];
        let norm = places.iter().find_map(|place| place.before.or(place.after).or(place.after_sum));
        let norm = format!("{prefix}{}", norm.unwrap_or_default().replace("{i}", "0"));
        let old = contains(&format!("{norm}.gamma")) && !contains(&format!("{norm}.weight"));
        let norm_names = if old { ("gamma", "beta") } else { ("weight", "bias") };
        let mut dims = Dims::read(&family.keys, root)?;
        if let Some(row) = family.embedding.positions.filter(|row| row.counted) {
            let wanted = || root.wrong(family.keys.positions, format!("more than {}", row.offset));
            dims.max_position =
                dims.max_position.checked_sub(row.offset).filter(|left| *left > 0).ok_or_else(wanted)?;
        }
        let has_linear = |row: ClassifierRow| contains(&format!("{}.weight", row.linear));
        let scores = family.classifier.is_some_and(has_linear);
        Ok(Resolver { family, root, dims, prefix, scores, norm_names })
    }

    fn model(&self) -> Result<ModelSpec, ConfigError> {
        let (family, dims) = (self.family, &self.dims);
        let windows = self.windows()?;
        let ropes = self.ropes()?;
        let turned = self.turned(&windows)?;
        let shared = self.shared_layers(&windows)?;
        let places = windows.iter().zip(turned).zip(shared);
        let places = places.map(|((window, rope), shared)| Place { window: *window, rope, shared });
        let layers = places.enumerate().map(|(i, place)| self.layer(i, place));
        Ok(ModelSpec {
            family: family.model_type,
            kind: family.kind,
            vocab: dims.vocab,
            hidden: dims.hidden,
            max_position: ropes.iter().filter_map(RopeSpec::limit).fold(dims.max_position, usize::min),
            embedding: self.embedding()?,
            layers: layers.collect::<Result<_, _>>()?,
            ropes,
            final_norm: self.norm(family.norms.last, 0, dims.hidden),
            head: self.head()?,
            classifier: self.classifier()?,
            stored: Default::default(),
            parts: self.parts()?,
        })
    }

    fn switch(&self, switch: Switch) -> Result<bool, ConfigError> {
        match switch {
            Switch::Fixed(value) => Ok(value),
            Switch::Field(key, absent) => self.root.bool_or(key, absent),
        }
    }

    fn factor(&self, factor: Factor) -> Result<f64, ConfigError> {
        const RANGE: std::ops::RangeInclusive<f64> = 1e-9..=1e9;
        Ok(match factor {
            Factor::Fixed(value) => value,
            Factor::SqrtHidden => (self.dims.hidden as f64).sqrt(),
            Factor::InverseSqrtHidden => 1.0 / (self.dims.hidden as f64).sqrt(),
            Factor::InverseSqrtHead => 1.0 / (self.dims.head_dim as f64).sqrt(),
            Factor::InverseSqrtField(key) => 1.0 / self.root.f64(key, RANGE)?.sqrt(),
            Factor::InverseSqrtSum(a, b) => {
                1.0 / (self.root.f64(a, RANGE)? + self.root.f64(b, RANGE)?).sqrt()
            }
            Factor::Field(key) => self.root.f64(key, RANGE)?,
            Factor::FieldOr(key, absent) => self.root.opt_f64(key, RANGE)?.unwrap_or(absent),
            Factor::InverseField(key) => 1.0 / self.root.f64(key, RANGE)?,
        })
    }

    fn cap(&self, key: Option<&'static str>) -> Result<Option<f64>, ConfigError> {
        key.map_or(Ok(None), |key| self.root.opt_f64(key, 1e-6..=1e9))
    }

    fn name(&self, template: &str, layer: usize) -> String {
        format!("{}{}", self.prefix, template.replace("{i}", &layer.to_string()))
    }

    fn norm(&self, template: Option<&str>, layer: usize, width: usize) -> Option<NormSpec> {
        let name = self.name(template?, layer);
        let (row, (weight, bias)) = (self.family.norm, self.norm_names);
        Some(NormSpec {
            kind: row.kind,
            weight: row.weight.then(|| format!("{name}.{weight}")),
            one_plus: row.one_plus,
            bias: row.bias.then(|| format!("{name}.{bias}")),
            width,
            eps: self.dims.eps,
        })
    }

    fn branch_norms(&self, mut places: BranchPlaces, layer: usize, bare: bool) -> BranchNorms {
        places.before = places.before.filter(|_| !bare);
        let norm = |template| self.norm(template, layer, self.dims.hidden);
        BranchNorms {
            before: norm(places.before),
            after: norm(places.after),
            after_sum: norm(places.after_sum),
        }
    }

    /// A projection of a layer, from `n_in` to `n_out`.
    fn linear(&self, name: String, bias: bool, (n_in, n_out): (usize, usize)) -> LinearSpec {
        LinearSpec {
            weight: format!("{name}.weight"),
            bias: bias.then(|| format!("{name}.bias")),
            layout: self.family.attention.layout,
            n_in,
            n_out,
        }
    }

    fn embedding(&self) -> Result<EmbeddingSpec, ConfigError> {
        let (row, dims) = (self.family.embedding, &self.dims);
        let token_types = match row.token_types {
            None => None,
            Some((name, key)) => {
                let rows = self.root.usize(key, 1..=1 << 10)?;
                Some(TableSpec { name: format!("{}{name}.weight", self.prefix), rows, offset: 0 })
            }
        };
        let positions = row.positions.map(|row| TableSpec {
            name: format!("{}{}.weight", self.prefix, row.table),
            rows: dims.max_position + row.offset,
            offset: row.offset,
        });
        let (width, project) = self.projection([0, 1])?;
        Ok(EmbeddingSpec {
            tokens: format!("{}{}.weight", self.prefix, row.tokens),
            width,
            project,
            scale: self.factor(row.scale)?,
            token_types,
            positions,
            norm: self.norm(row.norm, 0, dims.hidden),
        })
    }

    /// The width of the token table, and the first or the second of the matrices between it and the residual stream, if
    /// that is not as wide: `side` is the numbers of its inputs and its outputs, 0 the table and 1 the stream.
    fn projection(&self, side: [usize; 2]) -> Result<(usize, Option<LinearSpec>), ConfigError> {
        let hidden = self.dims.hidden;
        let Some((key, names)) = self.family.embedding.project else { return Ok((hidden, None)) };
        let width = self.root.opt_usize(key, limits::WIDTH)?.unwrap_or(hidden);
        if width == hidden {
            return Ok((hidden, None));
        }
        let widths = side.map(|at| [width, hidden][at]);
        let name = format!("{}{}", self.prefix, names[side[0]]);
        Ok((width, Some(self.linear(name, false, (widths[0], widths[1])))))
    }

    fn layer(&self, i: usize, place: Place) -> Result<LayerSpec, ConfigError> {
        let (norms, residual) = (self.family.norms, self.family.residual);
        Ok(LayerSpec {
            residual: if self.switch(residual.parallel)? { residual.form } else { Residual::Sequential },
            residual_scale: self.factor(residual.scale)?,
            attention_norms: self.branch_norms(norms.attention, i, norms.first_is_bare && i == 0),
            attention: self.attention(i, place)?,
            mlp_norms: self.branch_norms(norms.mlp, i, false),
            mlp: self.feed_forward(i, place)?,
            per_layer: self.per_layer(i)?.map(Box::new),
            scalar: self.family.per_layer.map(|row| self.name(row.scalar, i)),
        })
    }

    /// The attention of a layer with its window and its rotary table.
    fn attention(&self, i: usize, place: Place) -> Result<AttentionSpec, ConfigError> {
        let (row, dims) = (&self.family.attention, &self.dims);
        if let QkvRow::Latent(latent) = &row.qkv {
            return self.latent(latent, i, place.rope);
        }
        let HeadDims { kv_heads, head_dim, keys_are_values } = self.head_dims(place.window)?;
        let (q_width, kv_width) = (dims.heads * head_dim, kv_heads * head_dim);
        let bias = self.switch(row.qkv_bias)?;
        let project = |template: &str, n_out| self.linear(self.name(template, i), bias, (dims.hidden, n_out));
        let qkv = match row.qkv {
            QkvRow::Separate(q, k, v) => match place.shared {
                Some(layer) => QkvSpec::Shared { q: project(q, q_width), layer },
                None => {
                    let v = if keys_are_values { k } else { v };
                    let (k, v) = (project(k, kv_width), project(v, kv_width));
                    QkvSpec::Separate { q: project(q, q_width), k, v }
                }
            },
            QkvRow::Stacked(name) => QkvSpec::Stacked(project(name, q_width + 2 * kv_width)),
            QkvRow::Grouped(name) | QkvRow::Latent(LatentRow { query: (name, _), .. }) => {
                QkvSpec::Grouped(project(name, q_width + 2 * kv_width))
            }
        };
        let out_bias = self.switch(row.out_bias)?;
        Ok(AttentionSpec {
            heads: dims.heads,
            kv_heads,
            head_dim,
            qkv,
            head_norms: self.head_norms(i, (kv_heads, head_dim))?,
            rope: place.rope,
            clip: self.clip(row.clip)?,
            alibi: self.alibi(row)?,
            sinks: row.sinks.map(|name| self.name(name, i)),
            scale: self.factor(row.scale)?,
            softcap: self.cap(row.softcap)?,
            window: place.window,
            out: self.linear(self.name(row.out, i), out_bias, (q_width, dims.hidden)),
        })
    }

    fn clip(&self, row: Option<ClipRow>) -> Result<Option<ClipSpec>, ConfigError> {
        let (key, normed) = match row {
            None => return Ok(None),
            Some(ClipRow::Projections(key)) => (key, false),
            Some(ClipRow::Normed(key)) => (key, true),
        };
        Ok(self.cap(Some(key))?.map(|limit| ClipSpec { limit, normed }))
    }

    fn alibi(&self, row: &AttentionRow) -> Result<Option<AlibiSpec>, ConfigError> {
        Ok(match row.alibi {
            AlibiRow::Never => None,
            AlibiRow::Plain => Some(AlibiSpec { scale: 1.0, rounded: false }),
            AlibiRow::RoundedAndScaled => Some(AlibiSpec { scale: self.factor(row.scale)?, rounded: true }),
        })
    }

    fn head_norms(
        &self,
        i: usize,
        (kv_heads, head_dim): (usize, usize),
    ) -> Result<Option<HeadNormSpec>, ConfigError> {
        let Some(row) = self.family.attention.head_norms else { return Ok(None) };
        let widths = match row.scope {
            HeadNormScope::Head | HeadNormScope::EachHead | HeadNormScope::OwnTensors => (head_dim, head_dim),
            HeadNormScope::All => (self.dims.heads * head_dim, kv_heads * head_dim),
        };
        let norm = |name, width| {
            let norm = self.norm(Some(name), i, width)?;
            let bias = norm.bias.clone().filter(|_| row.scope != HeadNormScope::OwnTensors);
            Some(NormSpec { bias, ..norm })
        };
        let norms = norm(row.q, widths.0).zip(norm(row.k, widths.1));
        let (scope, after_rope) = (row.scope, row.after_rope);
        let present = self.switch(row.present)?;
        let norm_of_values =
            |q: &NormSpec| NormSpec { weight: None, bias: None, width: head_dim, ..q.clone() };
        let spec = |(q, k)| {
            let v = row.values.then(|| norm_of_values(&q));
            HeadNormSpec { q, k, v, scope, after_rope }
        };
        Ok(norms.filter(|_| present).map(spec))
    }

    /// The MLP of a layer, `inner` wide.
    fn mlp(&self, row: &MlpRow, i: usize, inner: usize) -> Result<MlpSpec, ConfigError> {
        let dims = &self.dims;
        let bias = self.switch(row.bias)?;
        let up = |template: &str, n_out| self.linear(self.name(template, i), bias, (dims.hidden, n_out));
        Ok(MlpSpec {
            input: match row.input {
                MlpInputRow::Gated(gate, value) => {
                    MlpInput::Gated { gate: up(gate, inner), up: up(value, inner) }
                }
                MlpInputRow::GatedStacked(name) => MlpInput::GatedStacked(up(name, 2 * inner)),
                MlpInputRow::Plain(name) => MlpInput::Plain(up(name, inner)),
            },
            activation: self.activation()?,
            inner,
            down: self.linear(self.name(row.down, i), bias, (inner, dims.hidden)),
        })
    }

    fn activation(&self) -> Result<Activation, ConfigError> {
        self.activation_of(self.family.keys.activation)
    }

    fn activation_of(&self, row: ActivationRow) -> Result<Activation, ConfigError> {
        match row {
            ActivationRow::Fixed(activation) => Ok(activation),
            ActivationRow::Field(key) => self.root.word(key, ACTIVATIONS),
            ActivationRow::FieldOf(key, words) => self.root.word(key, words),
        }
    }

    fn head(&self) -> Result<Option<HeadSpec>, ConfigError> {
        let Some(row) = self.family.head else { return Ok(None) };
        let tied = self.root.bool_or("tie_word_embeddings", row.tied)?;
        let embedding = format!("{}{}", self.prefix, self.family.embedding.tokens);
        // The head of a part stands under its name in old files, and beside it in newer ones.
        let part = if self.prefix.starts_with("language_model.") { "language_model." } else { "" };
        let own = format!("{part}{}", row.name);
        let name = if tied { embedding } else { own.clone() };
        let bias = self.switch(row.bias)?;
        let (n_in, project) = self.projection([1, 0])?;
        let linear = LinearSpec {
            weight: format!("{name}.weight"),
            bias: bias.then(|| format!("{own}.bias")),
            layout: MatrixLayout::OutIn,
            n_in,
            n_out: self.dims.vocab,
        };
        let (scale, softcap) = (self.factor(row.scale)?, self.cap(row.softcap)?);
        Ok(Some(HeadSpec { project, linear, scale, softcap }))
    }

    /// The head that scores sequences, if the checkpoint has it.
    fn classifier(&self) -> Result<Option<ClassifierSpec>, ConfigError> {
        let Some(row) = self.family.classifier.filter(|_| self.scores) else { return Ok(None) };
        let words = [("cls", false), ("mean", true)];
        let mean = row.pooling.map_or(Ok(None), |key| self.root.opt_word(key, &words))?.unwrap_or(false);
        let labels = match self.root.value("id2label").and_then(serde_json::Value::as_object) {
            Some(labels) => labels.len().max(1),
            None => self.root.opt_usize("num_labels", limits::WIDTH)?.unwrap_or(2),
        };
        let (hidden, (name, prefixed)) = (self.dims.hidden, row.dense);
        let name = if prefixed { format!("{}{name}", self.prefix) } else { name.into() };
        let out_in = |linear| LinearSpec { layout: MatrixLayout::OutIn, ..linear };
        Ok(Some(ClassifierSpec {
            mean,
            dense: out_in(self.linear(name, self.switch(row.dense_bias)?, (hidden, hidden))),
            activation: self.activation_of(row.activation)?,
            norm: row.norm.and_then(|name| {
                Some(NormSpec { weight: Some(format!("{name}.weight")), ..self.norm(Some(name), 0, hidden)? })
            }),
            linear: out_in(self.linear(row.linear.into(), true, (hidden, labels))),
        }))
    }
}
