//! sinter-testsuite
