//! What the command reads from the environment; nothing below this crate does.

use sinter_frontend::source::HubCache;
use std::ffi::OsString;
use std::path::PathBuf;

/// The places that the environment names.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// The local hub cache: `HF_HUB_CACHE`, else `HF_HOME/hub`, else `~/.cache/huggingface/hub`.
    pub hub_cache: Option<HubCache>,
    /// Where plans and bundles are kept: `SINTER_CACHE`, else `XDG_CACHE_HOME/sinter`, else `~/.cache/sinter`.
    pub cache: Option<PathBuf>,
    /// A key that requests to the server must have: `SINTER_API_KEY`.
    pub api_key: Option<String>,
}

impl Environment {
    /// Reads the variables of the process.
    pub fn read() -> Self {
        Self::from_variables(&|name| std::env::var_os(name))
    }

    /// Reads the variables from a function; empty ones count as absent.
    pub fn from_variables(variable: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let path = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = path("HOME");
        let caches = path("XDG_CACHE_HOME").or_else(|| home.map(|home| home.join(".cache")));
        let hub = path("HF_HUB_CACHE").or_else(|| path("HF_HOME").map(|home| home.join("hub")));
        let hub = hub.or_else(|| caches.as_ref().map(|caches| caches.join("huggingface").join("hub")));
        let cache = path("SINTER_CACHE").or_else(|| caches.map(|caches| caches.join("sinter")));
        let api_key = variable("SINTER_API_KEY").and_then(|key| key.into_string().ok());
        let api_key = api_key.filter(|key| !key.is_empty());
        Self { hub_cache: hub.map(|root| HubCache { root }), cache, api_key }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(variables: &[(&str, &str)]) -> (Option<PathBuf>, Option<PathBuf>) {
        let find =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        let environment = Environment::from_variables(&find);
        (environment.hub_cache.map(|hub| hub.root), environment.cache)
    }

    #[test]
    fn the_nearer_variable_wins() {
        let some = |hub: &str, cache: &str| (Some(PathBuf::from(hub)), Some(PathBuf::from(cache)));
        assert_eq!(places(&[]), (None, None));
        assert_eq!(places(&[("HOME", "/h")]), some("/h/.cache/huggingface/hub", "/h/.cache/sinter"));
        let xdg = [("HOME", "/h"), ("XDG_CACHE_HOME", "/x"), ("HF_HOME", "")];
        assert_eq!(places(&xdg), some("/x/huggingface/hub", "/x/sinter"));
        let all = [("HOME", "/h"), ("HF_HOME", "/f"), ("SINTER_CACHE", "/s")];
        assert_eq!(places(&all), some("/f/hub", "/s"));
        assert_eq!(places(&[("HF_HOME", "/f"), ("HF_HUB_CACHE", "/c")]), (Some("/c".into()), None));
    }
}
