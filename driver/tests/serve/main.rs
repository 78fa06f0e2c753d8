//! The server as its clients see it: the real binary, the real model, a client that can misbehave.

mod client;

mod answers;
mod errors;
mod life;
mod numbers;
mod protocols;
mod tools;
