//! Records where libtorch lies, so that the binary finds it at run time without `LD_LIBRARY_PATH`, and builds the C faces of
//! its c10d, of its hooks on gradients, of its fused optimizer and of what it knows of a GPU, and those of our own kernels.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        let beside = match std::env::var("CARGO_CFG_TARGET_OS").as_deref() {
            Ok("macos") => "@loader_path",
            _ => "$ORIGIN",
        };
        println!("cargo::rustc-link-arg=-Wl,-rpath,{beside}/libtorch/torch/lib");
        println!("cargo::rustc-link-arg=-Wl,-rpath,{lib}");
        #[cfg(feature = "train")]
        faces(std::path::Path::new(&lib));
    }
}

/// Compiles the C faces against the headers that lie beside the libraries in `lib`.
#[cfg(feature = "train")]
fn faces(lib: &std::path::Path) {
    let folder = "pipeline/collective";
    let files = [
        "pipeline/collective/c10d.cpp",
        "pipeline/collective/hooks.cpp",
        "pipeline/model/fused/face.cpp",
        "pipeline/model/gpu.cpp",
        "pipeline/train/adamw.cpp",
    ];
    for path in files.into_iter().chain([
        "pipeline/collective/gloo",
        "pipeline/collective/caught.hpp",
        "pipeline/collective/library.hpp",
        "pipeline/collective/nccl.hpp",
    ]) {
        println!("cargo::rerun-if-changed={path}");
    }
    for variable in ["LIBTORCH_INCLUDE", "LIBTORCH_CXX11_ABI"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let beside = || lib.parent().unwrap_or(lib).to_owned();
    let include = std::env::var_os("LIBTORCH_INCLUDE").map_or_else(beside, Into::into).join("include");
    let header = include.join("torch/csrc/distributed/c10d/ProcessGroupGloo.hpp");
    assert!(header.is_file(), "this libtorch has no `{}`: take one with c10d and Gloo", header.display());
    let abi = std::env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".to_owned());
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .warnings(false)
        .debug(false)
        .define("_GLIBCXX_USE_CXX11_ABI", abi.as_str())
        .define("USE_DISTRIBUTED", None)
        .define("USE_C10D_GLOO", None)
        .include(folder)
        .include(include.join("torch/csrc/api/include"))
        .include(include)
        .files(files)
        .compile("genomill_faces");
}
