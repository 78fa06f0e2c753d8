//! sinter-frontend
pub mod source;
mod map;
pub mod header;
mod shards;
pub mod weights;
mod json;
mod harmless;
pub mod config;
pub mod rope;
pub mod tokenizer;
pub mod generation;
pub mod pooling;
