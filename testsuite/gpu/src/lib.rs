//! Tests of what is compiled for GPUs: on the virtual GPU, and by the static gates of `ptxas`.
