//! The command line.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
