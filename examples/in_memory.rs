//! Converts a checkpoint in memory: renamed and sliced tensors are views of the file's map, and
//! only what has to be put together is copied.
//!
//! `cargo run --example in_memory`

use std::error::Error;

use regraft::config::Config;
use regraft::execute::views;
use regraft::library::Route;
use regraft::plan::{PlanOptions, plan};
use regraft::store::{OpenOptions, Store as _, open};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/mixtral");
    let checkpoint = open(folder, &OpenOptions::default())?;
    let config = Config::read(format!("{folder}/config.json"))?;

    // The rules that config.json asks for, from the published layout to the one that transformers
    // holds.
    let route = Route::by_config(&config, None, None)?;
    let plan = plan(
        &route.stages(),
        checkpoint.header(),
        &PlanOptions { config, ..PlanOptions::default() },
    )?;
    let model = views(&plan, &checkpoint)?;

    for (key, tensor) in &model.tensors {
        println!("{key}  {}", tensor.info());
    }
    println!(
        "{} bytes shared with the file, {} copied",
        model.report.bytes_aliased, model.report.bytes_copied
    );
    Ok(())
}
