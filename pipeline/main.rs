//! The `genomill` command.

use std::ffi::c_int;
use std::io::{Write, stdout};

unsafe extern "C" {
    fn _exit(code: c_int) -> !;
}

fn main() {
    let code = genomill::cli::main();
    drop(stdout().flush());
    // SAFETY: any code will do. All that is ours is written and dropped; what is skipped are libtorch's destructors, which take a third
    // as long as its start to take down what is gone anyway.
    unsafe { _exit(code.into()) }
}
