//! The server as its clients see it: the real binary, the real model, a client that can misbehave.

mod client;
mod reader_models;

mod answers;
mod errors;
mod life;
mod numbers;
mod protocols;
mod reader_errors;
mod reader_life;
mod readers;
mod tools;
mod traces;
