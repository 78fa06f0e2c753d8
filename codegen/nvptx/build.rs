//! Compiles the registration of dialects, the one piece of C++ of the house.

fn main() {
    // Cargo's configuration sets the prefix; see `.cargo/config.toml`.
    let prefix = std::env::var("MLIR_SYS_220_PREFIX").unwrap_or_else(|_| "/usr/lib/llvm-22".into());
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .flag("-fno-rtti")
        .flag("-w")
        .include(format!("{prefix}/include"))
        .file("src/emit/register.cc")
        .compile("sinter_register");
    println!("cargo:rerun-if-changed=src/emit/register.cc");
    println!("cargo:rerun-if-env-changed=MLIR_SYS_220_PREFIX");
}
