//! Records where libtorch lies, so that the binary finds it at run time without `LD_LIBRARY_PATH`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,$ORIGIN/libtorch/torch/lib");
        println!("cargo::rustc-link-arg=-Wl,-rpath,{lib}");
    }
}
