//! The front end: from a Hugging Face model directory to what the compiler works on.
//!
//! This is the only crate that reads Hugging Face files, and the only one that knows the names of model
//! families. Everything it reads comes from strangers, so each door checks before it trusts: names before
//! opening, sizes before allocating, depth before parsing, shapes before handing out bytes. No input makes it
//! panic; every error names the place, what was wanted, what was found and what to do.
//!
//! # The flow
//!
//! ```text
//! MODEL ──resolve──▶ ModelDir ──▶ RawConfig ──▶ ModelSpec ──▶ Graph ──────┐
//!                       │                                                 ├─▶ each weight checked
//!                       ├──▶ Weights (memory-mapped, checked) ────────────┘
//!                       ├──▶ Tokenizer, Detokenizer
//!                       ├──▶ ChatTemplate
//!                       └──▶ GenerationDefaults, Pooling
//! ```
//!
//! - [`source`]: a path or a hub id becomes a [`ModelDir`](source::ModelDir), which guards every file access.
//! - [`config`]: [`RawConfig`](config::RawConfig) has typed getters with ranges and remembers what was read, so
//!   that a field nobody understands is an error and not a wrong model. [`rope`] resolves the rotary fields.
//! - [`wrapper`]: of a model of several kinds of input, the configuration of its text model.
//! - [`family`]: what a row of the table of families says. [`resolve`] joins a row with the fields of a
//!   configuration into a [`ModelSpec`](spec::ModelSpec), in which nothing is left open.
//! - [`build`]: one builder writes the graph of every spec, in primitives only.
//! - [`weights`]: [`Weights`](weights::Weights) is every tensor by name; [`header`] is the pure parser beneath.
//! - [`tokenizer`], [`chat`]: text to ids and back, messages to prompts, both with limits on hostile files; [`spelled`]: what
//!   messages spell is no special token.
//! - [`generation`], [`pooling`], [`scoring`]: the model's wishes for sampling, for sentence vectors, and for scores.
//! - [`gguf`]: a single file seen as the model directory that it was converted from.
//! - [`model`]: [`Model::open`](model::Model::open) does all of this for a directory.
//!
//! # Example
//!
//! A header is parsed without a file, from the first bytes and the length that the file would have:
//!
//! ```
//! use sinter_frontend::config::{RawConfig, limits};
//! use sinter_frontend::header::parse_header;
//!
//! let json = br#"{"scale":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
//! let mut file = (json.len() as u64).to_le_bytes().to_vec();
//! file.extend(json);
//! let header = parse_header(&file, file.len() as u64 + 8)?;
//! assert_eq!(*header.tensors["scale"].shape, [2]);
//!
//! // One byte is missing: the file is refused before anything is read from it.
//! assert!(parse_header(&file, file.len() as u64 + 7).is_err());
//!
//! let config = RawConfig::parse(br#"{"hidden_size": 24, "surprise": 1}"#)?;
//! assert_eq!(config.root().usize("hidden_size", limits::WIDTH)?, 24);
//! let error = config.finish().unwrap_err();
//! assert!(error.to_string().contains("unsupported field `surprise` = 1"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod source;

pub mod config;
mod harmless;
mod json;
pub mod rope;

pub mod spec;

mod families;
pub mod family;
pub mod resolve;
pub mod wrapper;

pub mod build;
pub mod quant;

pub mod gguf;
pub mod header;
mod map;
mod shards;
pub mod weights;

mod bounded;
pub mod chat;
mod clock;
pub mod spelled;
pub mod token_bytes;
pub mod tokenizer;

pub mod generation;
pub mod pooling;
pub mod scoring;

pub mod model;
