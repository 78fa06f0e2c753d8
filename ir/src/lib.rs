//! sinter-ir
