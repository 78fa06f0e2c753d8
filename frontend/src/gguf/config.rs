//! From the metadata of a file to the fields that `config.json` would have.

use serde_json::{Map, Value as Json, json};

use super::architectures::{From, ROWS, Row, known};
use super::metadata::Metadata;
use super::parse::Head;
use super::{GgufError, vocabulary};
use crate::family::*;
use crate::resolve::rows;
use crate::source::shorten;
use crate::spec::{ModelKind, NormKind};

/// Entries of an architecture that change nothing in what is computed here.
const HARMLESS: &[&str] = &["rope.scaling.finetuned", "tensor_data_layout", "vocab_size"];

/// The tensors that become fields: divisors of the frequencies for all texts, for short and for long ones.
pub(super) const ROPE_TENSORS: [&str; 3] =
    ["rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight"];

/// What a file's metadata says.
pub(super) struct Described {
    /// The row of the architecture.
    pub(super) row: &'static Row,
    /// The row of the family.
    pub(super) family: &'static Family,
    /// `config.json`.
    pub(super) config: Map<String, Json>,
    /// Query heads, and key heads.
    pub(super) heads: (usize, usize),
}

/// Reads the metadata of a file.
pub(super) fn describe(place: &str, head: &Head, bytes: &[u8]) -> Result<Described, GgufError> {
    let metadata = Metadata::new(place, &head.metadata);
    let arch = metadata.text("general.architecture")?;
    let arch = arch.ok_or_else(|| metadata.wrong("general.architecture", "the name of an architecture"))?;
    let fits = |row: &&Row| row.name == arch && row.when.is_none_or(|name| head.tensors.contains_key(name));
    let row = ROWS.iter().find(fits).ok_or_else(|| GgufError::Architecture {
        place: place.to_owned(),
        found: shorten(arch),
        known: known(),
    })?;
    if metadata.whole("split.count")?.is_some_and(|count| count > 1) {
        return Err(metadata.wrong("split.count", "a model in one file; join its parts to one first"));
    }
    let mut writer = Writer { metadata, head, arch, config: Map::new() };
    writer.set("model_type", json!(row.model_type));
    let heads = writer.required("attention.head_count")?;
    let kv_heads = writer.whole("attention.head_count_kv")?.unwrap_or(heads);
    for (field, from) in row.fields {
        writer.row_field(field, *from, (heads, kv_heads))?;
    }
    let family = writer.family(row)?;
    writer.common(family, (heads, kv_heads))?;
    writer.switches(family)?;
    writer.rope(family, bytes)?;
    writer.window(family)?;
    writer.experts(family)?;
    writer.set_activation(family.keys.activation, row.activation);
    writer.set("quantization_config", json!({ "quant_method": "gguf" }));
    vocabulary::ids(&writer.metadata, &mut writer.config)?;
    let unread = writer.metadata.unread(&format!("{arch}."), HARMLESS);
    if !unread.is_empty() {
        return Err(GgufError::Unread { place: place.to_owned(), keys: unread });
    }
    let heads = (heads as usize, kv_heads as usize);
    Ok(Described { row, family, config: writer.config, heads })
}

struct Writer<'a> {
    metadata: Metadata<'a>,
    head: &'a Head,
    arch: &'a str,
    config: Map<String, Json>,
}

impl Writer<'_> {
    fn set(&mut self, field: &str, value: Json) {
        self.config.insert(field.to_owned(), value);
    }

    fn set_some(&mut self, field: &str, value: Option<impl Into<Json>>) {
        if let Some(value) = value {
            self.set(field, value.into());
        }
    }

    fn key(&self, entry: &str) -> String {
        format!("{}.{entry}", self.arch)
    }

    fn whole(&self, entry: &str) -> Result<Option<u64>, GgufError> {
        self.metadata.whole(&self.key(entry))
    }

    fn real(&self, entry: &str) -> Result<Option<f64>, GgufError> {
        self.metadata.real(&self.key(entry))
    }

    fn wrong(&self, entry: &str, wanted: impl Into<String>) -> GgufError {
        self.metadata.wrong(&self.key(entry), wanted)
    }

    fn required(&self, entry: &str) -> Result<u64, GgufError> {
        let number = self.whole(entry)?.filter(|number| *number > 0);
        number.ok_or_else(|| self.wrong(entry, "a number above 0"))
    }

    fn has(&self, tensor: &str) -> bool {
        self.head.tensors.contains_key(tensor)
    }

    fn row_field(&mut self, field: &str, from: From, (heads, kv_heads): (u64, u64)) -> Result<(), GgufError> {
        match from {
            From::Always(text) => self.set(field, serde_json::from_str(text).unwrap_or(Json::Null)),
            From::Entry(entry) => {
                let number = self.real(entry)?.ok_or_else(|| self.wrong(entry, "a number"))?;
                self.set(field, json!(number));
            }
            From::MayEntry(entry) => self.set_some(field, self.real(entry)?),
            From::OneKeyHead => self.set(field, json!(kv_heads == 1)),
            From::ScoreWidth(layers) => {
                let shared = self.required("embedding_length")? / heads;
                let own = self.whole("attention.key_length")?.unwrap_or(shared);
                let width = if self.required("block_count")? == layers { shared } else { own };
                self.set(field, json!(width));
            }
        }
        Ok(())
    }

    /// The row of the family that the fields so far ask for.
    fn family(&self, row: &Row) -> Result<&'static Family, GgufError> {
        let says = |(key, wanted): &(&str, &str)| {
            self.config.get(*key).map_or_else(|| "null".into(), ToString::to_string) == *wanted
        };
        let found = rows(row.model_type).into_iter().find(|family| family.when.iter().all(says));
        found.ok_or_else(|| self.wrong("attention.head_count_kv", format!("one that {} has", row.name)))
    }

    /// The fields that every family has under one name or another.
    fn common(&mut self, family: &Family, (heads, kv_heads): (u64, u64)) -> Result<(), GgufError> {
        let keys = &family.keys;
        let hidden = self.required("embedding_length")?;
        self.set(keys.hidden, json!(hidden));
        self.set(keys.layers, json!(self.required("block_count")?));
        self.set(keys.heads, json!(heads));
        let fixed = match keys.kv_heads {
            KvHeads::AsQueries => heads,
            KvHeads::Fixed(count) => count as u64,
            KvHeads::Field(key) => {
                self.set(key, json!(kv_heads));
                kv_heads
            }
        };
        if fixed != kv_heads {
            return Err(self.wrong("attention.head_count_kv", fixed.to_string()));
        }
        let width = self.whole("attention.key_length")?;
        if let Some(value) = self.whole("attention.value_length")?
            && Some(value) != width.or(Some(hidden / heads))
        {
            return Err(self.wrong("attention.value_length", "the width of a key"));
        }
        match (keys.head_dim, width) {
            (Some(key), Some(width)) => self.set(key, json!(width)),
            (None, Some(width)) if width.checked_mul(heads) != Some(hidden) => {
                let wanted = format!("{hidden} over {heads}, the width of a head");
                return Err(self.wrong("attention.key_length", wanted));
            }
            _ => {}
        }
        self.set(keys.inner, json!(self.required("feed_forward_length")?));
        self.set(keys.positions, json!(self.required("context_length")?));
        self.eps(family)?;
        let table = self.head.tensors.get("token_embd.weight").map(|tensor| tensor.shape[0]);
        let table = table.ok_or_else(|| GgufError::Tensor {
            place: self.metadata.place.to_owned(),
            tensor: "token_embd.weight".into(),
            reason: "it is not there".into(),
        })?;
        self.set("vocab_size", json!(table));
        if family.head.is_some() {
            self.set("tie_word_embeddings", json!(!self.has("output.weight")));
        }
        self.set_some_cap(family.attention.softcap, "attn_logit_softcapping")?;
        self.set_some_cap(family.head.and_then(|head| head.softcap), "final_logit_softcapping")
    }

    fn set_some_cap(&mut self, field: Option<&str>, entry: &str) -> Result<(), GgufError> {
        if let Some(field) = field {
            self.set_some(field, self.real(entry)?);
        }
        Ok(())
    }

    fn eps(&mut self, family: &Family) -> Result<(), GgufError> {
        let entry = match family.norm.kind {
            NormKind::Rms => "attention.layer_norm_rms_epsilon",
            NormKind::Layer => "attention.layer_norm_epsilon",
        };
        let found = self.real(entry)?;
        match family.keys.eps {
            Factor::Fixed(eps) if found.is_some_and(|found| (found - eps).abs() > eps * 1e-6) => {
                Err(self.wrong(entry, eps.to_string()))
            }
            Factor::Field(key) | Factor::FieldOr(key, _) => {
                let eps = found.ok_or_else(|| self.wrong(entry, "a number"))?;
                self.set(key, json!(eps));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// What the presence of a tensor says, and what entries say.
    fn switches(&mut self, family: &Family) -> Result<(), GgufError> {
        let attention = &family.attention;
        let any = |names: &[&str]| names.iter().any(|name| self.has(name));
        let bias = any(&["blk.0.attn_q.bias", "blk.0.attn_qkv.bias"]);
        let mut found = vec![
            (attention.out_bias, any(&["blk.0.attn_output.bias"])),
            (attention.qkv_bias, bias),
            (family.mlp.bias, any(&["blk.0.ffn_up.bias"])),
        ];
        found.extend(attention.head_norms.map(|norms| (norms.present, any(&["blk.0.attn_q_norm.weight"]))));
        found.extend(family.head.map(|head| (head.bias, any(&["output.bias"]))));
        found.extend(self.said("use_parallel_residual", family.residual.parallel)?);
        self.said("attention.causal", Switch::Fixed(family.kind == ModelKind::Decoder))?;
        for (switch, on) in found {
            if let Switch::Field(field, _) = switch {
                self.set(field, json!(on));
            }
        }
        Ok(())
    }

    /// What an entry says of a switch, which must be what the family says where that leaves no choice.
    fn said(&self, entry: &str, switch: Switch) -> Result<Option<(Switch, bool)>, GgufError> {
        let said = self.metadata.flag(&self.key(entry))?;
        match (switch, said) {
            (Switch::Fixed(on), Some(said)) if on != said => Err(self.wrong(entry, on.to_string())),
            _ => Ok(said.map(|said| (switch, said))),
        }
    }

    fn rope(&mut self, family: &Family, bytes: &[u8]) -> Result<(), GgufError> {
        let Some(row) = family.attention.rope else { return Ok(()) };
        self.set_some("rope_theta", self.real("rope.freq_base")?);
        if let Some((field, _)) = row.local {
            self.set_some(field, self.real("rope.freq_base_swa")?);
        }
        let (hidden, heads) = (self.required("embedding_length")?, self.required("attention.head_count")?);
        let width = self.whole("attention.key_length")?.unwrap_or(hidden / heads);
        let turned = self.whole("rope.dimension_count")?.unwrap_or(width);
        match (row.dim, row.partial) {
            (Some(field), _) => self.set(field, json!(turned)),
            // Half a dimension more, so that the share's product with the width is rounded down to this many.
            (None, Some(_)) if turned < width => {
                self.set("partial_rotary_factor", json!((turned as f64 + 0.5) / width as f64));
            }
            (None, Some(_)) => self.set("partial_rotary_factor", json!(1.0)),
            (None, None) if turned != width => {
                return Err(self.wrong("rope.dimension_count", format!("{width}, the width of a head")));
            }
            (None, None) => {}
        }
        self.scaling(bytes)
    }

    fn scaling(&mut self, bytes: &[u8]) -> Result<(), GgufError> {
        let factor = self.real("rope.scaling.factor")?;
        let original = self.whole("rope.scaling.original_context_length")?;
        let kind = self.metadata.text(&self.key("rope.scaling.type"))?;
        let attention = self.real("rope.scaling.attn_factor")?;
        let kind = kind.unwrap_or(if factor.is_some() { "linear" } else { "none" });
        let mut object = match kind {
            "none" | "longrope" => Map::new(),
            kind @ ("linear" | "yarn") => {
                let factor = factor.ok_or_else(|| self.wrong("rope.scaling.factor", "a number"))?;
                let mut object = Map::new();
                object.insert("rope_type".into(), json!(kind));
                object.insert("factor".into(), json!(factor));
                object
            }
            _ => return Err(self.wrong("rope.scaling.type", "none, linear, yarn or longrope")),
        };
        if kind == "yarn" {
            for (field, entry) in [("beta_fast", "yarn_beta_fast"), ("beta_slow", "yarn_beta_slow")] {
                if let Some(number) = self.real(&format!("rope.scaling.{entry}"))? {
                    object.insert(field.into(), json!(number));
                }
            }
        }
        let factors = self.factors(bytes)?;
        let fits = match &factors {
            None => kind != "longrope",
            Some(_) => ["none", "longrope"].contains(&kind),
        };
        if !fits {
            return Err(
                self.wrong("rope.scaling.type", "longrope where tensors hold factors, and there alone")
            );
        }
        let by_length = self.has(ROPE_TENSORS[1]);
        if !by_length && attention.is_some_and(|factor| factor != 1.0) {
            return Err(
                self.wrong("rope.scaling.attn_factor", "1 where long texts have no factors of their own")
            );
        }
        if let Some([short, long]) = factors {
            object.insert("rope_type".into(), json!("longrope"));
            object.insert("short_factor".into(), json!(short));
            object.insert("long_factor".into(), json!(long));
            let attention = if by_length { attention } else { Some(1.0) };
            attention
                .into_iter()
                .for_each(|factor| drop(object.insert("attention_factor".into(), json!(factor))));
        }
        if let (Some(original), false) = (original, object.is_empty()) {
            object.insert("original_max_position_embeddings".into(), json!(original));
        }
        if !object.is_empty() {
            self.set("rope_scaling", Json::Object(object));
        }
        Ok(())
    }

    /// Divisors of the frequencies, one each: those of short texts and those of long ones, or for both the same.
    fn factors(&self, bytes: &[u8]) -> Result<Option<[Vec<f64>; 2]>, GgufError> {
        let [all, short, long] = ROPE_TENSORS.map(|name| self.numbers(name, bytes));
        match (all?, short?, long?) {
            (None, None, None) => Ok(None),
            (Some(all), None, None) => Ok(Some([all.clone(), all])),
            (None, Some(short), Some(long)) => Ok(Some([short, long])),
            _ => Err(GgufError::Tensor {
                place: self.metadata.place.to_owned(),
                tensor: ROPE_TENSORS[0].to_owned(),
                reason: format!("wanted this alone, or {} and {}", ROPE_TENSORS[1], ROPE_TENSORS[2]),
            }),
        }
    }

    /// The numbers of a tensor of F32.
    fn numbers(&self, name: &str, bytes: &[u8]) -> Result<Option<Vec<f64>>, GgufError> {
        let Some(tensor) = self.head.tensors.get(name) else { return Ok(None) };
        let stored = bytes.get(tensor.begin..tensor.end).filter(|_| tensor.format.name == "F32");
        let stored = stored.ok_or_else(|| GgufError::Tensor {
            place: self.metadata.place.to_owned(),
            tensor: name.to_owned(),
            reason: format!("wanted F32, found {}", tensor.format.name),
        })?;
        let number = |bytes: &[u8; 4]| f64::from(f32::from_le_bytes(*bytes));
        Ok(Some(stored.as_chunks::<4>().0.iter().map(number).collect()))
    }

    fn window(&mut self, family: &Family) -> Result<(), GgufError> {
        let entry = "attention.sliding_window";
        let width = self.whole(entry)?.filter(|width| *width > 0);
        match family.attention.window {
            WindowRow::AllLayers(_) => {
                self.set("sliding_window", json!(width));
                Ok(())
            }
            WindowRow::AllButEvery { period_field, .. } => {
                let optional =
                    family.attention.rope.is_some_and(|rope| matches!(rope.layers, RopeLayers::SlidingOrAll));
                if width.is_some() || optional {
                    self.set("sliding_window", json!(width));
                }
                let pattern = self.key("attention.sliding_window_pattern");
                if let Some(flags) = self.metadata.flags(&pattern) {
                    let word = |on: &bool| if *on { "sliding_attention" } else { "full_attention" };
                    self.set("layer_types", flags.iter().map(word).collect());
                } else {
                    self.set_some(period_field, self.metadata.whole(&pattern)?);
                }
                Ok(())
            }
            WindowRow::Never
            | WindowRow::IfUsed(_)
            | WindowRow::FromLayer(_)
            | WindowRow::Listed { .. }
            | WindowRow::BothSides { .. } => match width {
                Some(_) => Err(self.wrong(entry, "no window in this architecture")),
                None => Ok(()),
            },
        }
    }

    fn experts(&mut self, family: &Family) -> Result<(), GgufError> {
        let Some(moe) = &family.moe else {
            // Files of dense models may say that there are none.
            let none = self.whole("expert_count")?.unwrap_or(0) == 0;
            let used = self.whole("expert_used_count")?.unwrap_or(0) == 0;
            let entry = if none { "expert_used_count" } else { "expert_count" };
            return if none && used { Ok(()) } else { Err(self.wrong(entry, "0 in this architecture")) };
        };
        let count = self.required("expert_count")?;
        moe.count.first().into_iter().for_each(|field| self.set(field, json!(count)));
        self.set(moe.chosen, json!(self.required("expert_used_count")?));
        if let Some(width) = self.whole("expert_feed_forward_length")? {
            self.set(moe.inner, json!(width));
        }
        Ok(())
    }

    fn set_activation(&mut self, row: ActivationRow, name: &str) {
        match row {
            ActivationRow::Fixed(_) => {}
            ActivationRow::Field(field) | ActivationRow::FieldOf(field, _) => self.set(field, json!(name)),
        }
    }
}
