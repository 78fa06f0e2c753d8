//! sinter-passes
