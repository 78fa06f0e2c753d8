//! What the scores of a head for sequences mean: the names of its labels, and how scores become probabilities.

use serde_json::Value;

use crate::config::{ConfigError, RawConfig, limits};

/// What makes probabilities of scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScoreMap {
    /// Scores are left as they are.
    Identity,
    /// 1 / (1 + e⁻ˣ), each score for itself.
    Sigmoid,
    /// Shares that sum to 1.
    Softmax,
}

/// What the scores of a head mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scoring {
    /// The names of the labels, in the order of the scores.
    pub labels: Vec<String>,
    /// What makes probabilities of them.
    pub map: ScoreMap,
    /// Whether they come from the mean of all tokens. Its sum runs over a whole step, so its bits depend on where in the step a
    /// text lies: each takes a step of its own.
    pub mean: bool,
}

/// The last words of the class paths that cross-encoders name.
const MAPS: [(&str, ScoreMap); 2] = [("Identity", ScoreMap::Identity), ("Sigmoid", ScoreMap::Sigmoid)];

impl Scoring {
    /// Reads the fields of `config.json`, as transformers and sentence-transformers do.
    ///
    /// One score goes through what the files of sentence-transformers name, and through a sigmoid if they name nothing;
    /// several become shares that sum to 1, or are each for themselves if `problem_type` says so.
    pub fn read(config: &RawConfig) -> Result<Self, ConfigError> {
        let root = config.root();
        let labels = match root.value("id2label") {
            Some(Value::Object(names)) => {
                let name = |at: usize| Some(names.get(&at.to_string())?.as_str()?.to_owned());
                (0..names.len().max(1)).map(|at| name(at).unwrap_or_else(|| format!("LABEL_{at}"))).collect()
            }
            Some(_) => return Err(root.wrong("id2label", "an object from numbers to names")),
            None => {
                let count = root.opt_usize("num_labels", limits::WIDTH)?.unwrap_or(2);
                (0..count).map(|at| format!("LABEL_{at}")).collect::<Vec<_>>()
            }
        };
        let map = match (root.opt_str("problem_type")?, labels.len()) {
            (Some("regression"), _) => ScoreMap::Identity,
            (_, 1) => single(config)?,
            (Some("multi_label_classification"), _) => ScoreMap::Sigmoid,
            _ => ScoreMap::Softmax,
        };
        let mean = root.opt_str("classifier_pooling")? == Some("mean");
        Ok(Self { labels, map, mean })
    }

    /// Probabilities of scores, in place.
    pub fn apply(&self, scores: &mut [f64]) {
        match self.map {
            ScoreMap::Identity => {}
            ScoreMap::Sigmoid => scores.iter_mut().for_each(|x| *x = 1.0 / (1.0 + (-*x).exp())),
            ScoreMap::Softmax => {
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                scores.iter_mut().for_each(|x| *x = (*x - largest).exp());
                let sum: f64 = scores.iter().sum();
                scores.iter_mut().for_each(|x| *x /= sum);
            }
        }
    }
}

/// What the newer files say under `sentence_transformers`, or the older ones in a field of their own.
fn single(config: &RawConfig) -> Result<ScoreMap, ConfigError> {
    let root = config.root();
    let newer = root.value("sentence_transformers").and_then(|value| value.get("activation_fn")?.as_str());
    let (field, path) = match newer {
        Some(path) => ("sentence_transformers", Some(path)),
        None => {
            let field = "sbert_ce_default_activation_function";
            (field, root.opt_str(field)?)
        }
    };
    let Some(path) = path else { return Ok(ScoreMap::Sigmoid) };
    let word = path.rsplit('.').next().unwrap_or_default();
    let known = MAPS.iter().find(|(name, _)| *name == word);
    known.map(|(_, map)| *map).ok_or_else(|| config.unsupported(field, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(config: &str) -> Result<Scoring, ConfigError> {
        Scoring::read(&RawConfig::parse(config.as_bytes()).unwrap())
    }

    #[test]
    fn the_files_say_what_scores_mean() {
        let two = read("{}").unwrap();
        assert_eq!((two.labels.join(" "), two.map), ("LABEL_0 LABEL_1".into(), ScoreMap::Softmax));
        let named =
            read(r#"{"id2label": {"1": "bad", "0": "good"}, "problem_type": "multi_label_classification"}"#);
        let named = named.unwrap();
        assert_eq!((named.labels.join(" "), named.map), ("good bad".into(), ScoreMap::Sigmoid));
        for (config, map) in [
            (r#"{"num_labels": 1}"#, ScoreMap::Sigmoid),
            (r#"{"num_labels": 1, "problem_type": "regression"}"#, ScoreMap::Identity),
            (
                r#"{"num_labels": 1, "sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}"#,
                ScoreMap::Identity,
            ),
            (
                r#"{"num_labels": 1, "sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"}}"#,
                ScoreMap::Sigmoid,
            ),
        ] {
            assert_eq!(read(config).unwrap().map, map, "{config}");
        }
        let unknown = r#"{"num_labels": 1, "sbert_ce_default_activation_function": "torch.nn.GELU"}"#;
        assert!(read(unknown).unwrap_err().to_string().contains("torch.nn.GELU"));
        assert!(read(r#"{"id2label": []}"#).is_err());
    }

    #[test]
    fn scores_become_probabilities() {
        let apply = |map, mut scores: Vec<f64>| {
            Scoring { labels: Vec::new(), map, mean: false }.apply(&mut scores);
            scores
        };
        assert_eq!(apply(ScoreMap::Identity, vec![3.5]), [3.5]);
        assert_eq!(apply(ScoreMap::Sigmoid, vec![0.0, 800.0, -800.0]), [0.5, 1.0, 0.0]);
        assert_eq!(apply(ScoreMap::Softmax, vec![900.0, 900.0]), [0.5, 0.5]);
    }
}
