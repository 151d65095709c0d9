//! Records where libtorch lies, so that the binary finds it at run time without `LD_LIBRARY_PATH`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        let beside = match std::env::var("CARGO_CFG_TARGET_OS").as_deref() {
            Ok("macos") => "@loader_path",
            _ => "$ORIGIN",
        };
        println!("cargo::rustc-link-arg=-Wl,-rpath,{beside}/libtorch/torch/lib");
        println!("cargo::rustc-link-arg=-Wl,-rpath,{lib}");
    }
}
