//! sinter-codegen-host

pub mod micro;
