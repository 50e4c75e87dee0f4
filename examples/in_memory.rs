//! Converts a checkpoint in memory: renamed and sliced tensors are views of the file's map, and
//! only what has to be put together is copied.
//!
//! `cargo run --example in_memory`

use regraft::{Conversion, Failure};

fn main() -> Result<(), Failure> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/mixtral");

    // By the rules that config.json asks for, from the published layout to the one that
    // transformers holds.
    let planned = Conversion::open(folder)?.from("hub").to("model").plan()?;
    for finding in &planned.plan.findings {
        println!("{finding}");
    }
    let model = planned.views()?;

    for (key, tensor) in &model.tensors {
        println!("{key}  {}", tensor.info());
    }
    println!(
        "{} bytes shared with the file, {} copied",
        model.report.bytes_aliased, model.report.bytes_copied
    );
    Ok(())
}
