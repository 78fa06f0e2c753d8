//! Who may ask: keys, compared without telling by the time how much of them was right.

use axum::http::{HeaderMap, header};
use sha2::{Digest, Sha256};

/// The keys that are accepted; none if everyone may ask.
#[derive(Clone, Default)]
pub struct Keys {
    digests: Vec<[u8; 32]>,
}

impl Keys {
    /// These keys.
    pub fn new(keys: &[String]) -> Self {
        Self { digests: keys.iter().map(|key| Sha256::digest(key).into()).collect() }
    }
    /// Whether a key is wanted at all.
    pub fn wanted(&self) -> bool {
        !self.digests.is_empty()
    }
    /// Whether a request has a key: `Authorization: Bearer KEY`, or `x-api-key: KEY`.
    pub fn accept(&self, headers: &HeaderMap) -> bool {
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| bearer(value.as_bytes()));
        let plain = headers.get("x-api-key").map(|value| value.as_bytes());
        !self.wanted() || [bearer, plain].into_iter().flatten().any(|key| self.has(key))
    }

    /// Compares digests, and all of every one: neither the length of a key nor a common beginning shows in the time.
    fn has(&self, key: &[u8]) -> bool {
        let given: [u8; 32] = Sha256::digest(key).into();
        let mut found = 0u8;
        for known in &self.digests {
            let differ = known.iter().zip(&given).fold(0u8, |sum, (a, b)| sum | (a ^ b));
            found |= u8::from(std::hint::black_box(differ) == 0);
        }
        found == 1
    }
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, key) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(keys: &Keys, name: &'static str, value: &'static str) -> bool {
        let headers = HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())]);
        keys.accept(&headers)
    }

    #[test]
    fn one_of_the_keys_is_wanted() {
        let keys = Keys::new(&["first".into(), "second".into()]);
        assert!(asked(&keys, "authorization", "Bearer second"));
        assert!(asked(&keys, "authorization", "bearer  first"));
        assert!(asked(&keys, "x-api-key", "first"));
        for wrong in ["Bearer firs", "Bearer firstt", "Bearer ", "first", "Basic first", "Bearer"] {
            assert!(!asked(&keys, "authorization", wrong), "{wrong}");
        }
        assert!(!keys.accept(&HeaderMap::new()));
        assert!(Keys::default().accept(&HeaderMap::new()));
    }
}
