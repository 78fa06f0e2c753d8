//! sinter-runtime
