//! Responses that can be asked for again: in memory, and only so many; the oldest are forgotten first.

use crate::serve::error::ApiError;
use axum::http::StatusCode;
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Responses that are kept at most.
const COUNT_MAX: usize = 1024;
/// Bytes of them, about, that are kept at most.
const BYTES_MAX: usize = 64 << 20;

/// A response that has ended.
#[derive(Debug)]
pub struct Stored {
    /// Its id.
    pub id: String,
    /// The response.
    pub response: Value,
    /// The items of its input, those of earlier responses included.
    pub input: Vec<Value>,
    bytes: usize,
}

impl Stored {
    /// A response with the items of its input.
    pub fn new(id: String, response: Value, input: Vec<Value>) -> Self {
        let bytes =
            response.to_string().len() + input.iter().map(|item| item.to_string().len()).sum::<usize>();
        Self { id, response, input, bytes }
    }
    /// What a response that goes on from here begins with: input and output.
    pub fn items(&self) -> Vec<Value> {
        let output = self.response["output"].as_array();
        self.input.iter().chain(output.into_iter().flatten()).cloned().collect()
    }
}

/// What is kept.
#[derive(Debug, Default)]
pub struct Store {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// The oldest first.
    list: VecDeque<Arc<Stored>>,
    bytes: usize,
}

impl Store {
    /// Keeps a response. One that is larger than all that may be kept is not.
    pub fn put(&self, stored: Stored) {
        if stored.bytes > BYTES_MAX {
            return;
        }
        let mut kept = self.kept();
        kept.bytes += stored.bytes;
        kept.list.push_back(Arc::new(stored));
        while kept.list.len() > COUNT_MAX || kept.bytes > BYTES_MAX {
            let Some(oldest) = kept.list.pop_front() else { return };
            kept.bytes -= oldest.bytes;
        }
    }
    /// A response by its id.
    ///
    /// # Errors
    /// There is none, or none any more.
    pub fn get(&self, id: &str) -> Result<Arc<Stored>, ApiError> {
        let found = self.kept().list.iter().rev().find(|stored| stored.id == id).cloned();
        found.ok_or_else(|| absent(id))
    }
    /// Forgets a response.
    ///
    /// # Errors
    /// There is none, or none any more.
    pub fn delete(&self, id: &str) -> Result<(), ApiError> {
        let mut kept = self.kept();
        let place = kept.list.iter().position(|stored| stored.id == id).ok_or_else(|| absent(id))?;
        let bytes = kept.list.remove(place).map_or(0, |stored| stored.bytes);
        kept.bytes -= bytes;
        Ok(())
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn absent(id: &str) -> ApiError {
    let shown: String = id.chars().take(80).collect();
    let message =
        format!("there is no response {shown:?}; the last {COUNT_MAX} are kept, as long as the server runs");
    ApiError::new(StatusCode::NOT_FOUND, "response_not_found", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn stored(id: usize, bytes: usize) -> Stored {
        Stored::new(id.to_string(), json!({ "output": ["b"], "x": "x".repeat(bytes) }), vec![json!("a")])
    }

    #[test]
    fn the_oldest_are_forgotten_first() {
        let store = Store::default();
        (0..=COUNT_MAX).for_each(|id| store.put(stored(id, 10)));
        assert_eq!(store.get("0").unwrap_err().status.as_u16(), 404);
        assert_eq!(store.get("1").unwrap().items(), [json!("a"), json!("b")]);
        store.delete("1").unwrap();
        assert!(store.get("1").is_err() && store.delete("1").is_err());
        store.put(stored(5000, BYTES_MAX));
        assert!(store.get("5000").is_err() && store.get("2").is_ok());
        store.put(stored(5001, BYTES_MAX - 1000));
        assert!(store.get("5001").is_ok() && store.get("2").is_err());
        store.delete("5001").unwrap();
        assert!(store.kept().bytes < BYTES_MAX / 100);
    }
}
