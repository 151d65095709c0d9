//! The `genomill` command.

fn main() -> std::process::ExitCode {
    genomill::cli::main()
}
