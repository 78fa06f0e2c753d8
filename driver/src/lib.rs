//! sinter-driver
