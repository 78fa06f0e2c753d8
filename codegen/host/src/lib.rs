//! sinter-codegen-host
