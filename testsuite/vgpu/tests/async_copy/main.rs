//! Asynchronous copies against plain loops.

mod barriers;
mod tensor_maps;
