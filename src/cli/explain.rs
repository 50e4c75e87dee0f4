//! `regraft explain`: why a key is what it is.

use regraft::conversion::Prepared;
use regraft::diagnostic::{Diagnostics, did_you_mean};
use regraft::overview::{Explained, Subject};
use regraft::plan::Plan;
use regraft::store::NamedPath;

use super::complete;
use super::console::Console;
use super::conversion::ConversionArguments;
use super::source::named_path;
use super::{Exit, Failure, Result};

/// Explain a key: which rules touched it, what they captured, how its tensor is made; or why no
/// rule did
#[derive(clap::Args)]
#[command(after_help = "Examples:
  regraft explain mixtral-8x7b/ model.layers.3.block_sparse_moe.experts.0.w1.weight
  regraft explain mixtral-8x7b/ model.layers.3.mlp.experts.gate_up_proj")]
pub(super) struct Arguments {
    /// A file of safetensors, torch.save or NumPy, a directory, an index, or a manifest
    #[arg(value_name = "[NAME=]SRC", value_parser = named_path(), value_hint = clap::ValueHint::AnyPath)]
    source: NamedPath,

    /// A key of the checkpoint, or of what it becomes
    #[arg(value_name = "KEY", add = complete::keys())]
    key: String,

    #[command(flatten)]
    conversion: ConversionArguments,
}

pub(super) fn run(arguments: &Arguments, console: Console) -> Result<Exit> {
    let prepared =
        arguments.conversion.prepare(std::slice::from_ref(&arguments.source), console)?;
    let key = arguments.key.as_str();
    // Where the whole can't be planned, the way of one key can still be told.
    let (plan, failed) = match prepared.plan_by_headers().map_err(Failure::from) {
        Ok(planned) => (planned.plan, None),
        Err(Failure::Rules(diagnostics)) => (Plan::default(), Some(diagnostics)),
        Err(failure) => return Err(failure),
    };
    let subject = Subject {
        header: prepared.header(),
        stages: prepared.route.stages(),
        config: &prepared.config,
        tied: prepared.tied,
        parameters: &prepared.parameters,
        plan: &plan,
    };
    let Some(explained) = Explained::of(key, &subject) else {
        return Err(unknown_key(key, &prepared, &plan, failed));
    };
    if console.json {
        console.json(&explained.as_json()?)?;
    } else {
        if let Some(failed) = &failed {
            console.findings(&failed.0);
        }
        console.fitted(&explained.text()?)?;
    }
    Ok(Exit::findings(failed.is_some()))
}

fn unknown_key(
    key: &str,
    prepared: &Prepared,
    plan: &Plan,
    failed: Option<Diagnostics>,
) -> Failure {
    if let Some(failed) = failed {
        return Failure::Rules(failed);
    }
    let known =
        prepared.header().tensors.keys().chain(plan.targets.iter().map(|target| &target.key));
    let hint = match did_you_mean(key, known.map(|key| key.as_str())) {
        Some(close) => format!("; did you mean `{close}`?"),
        None => "; `regraft inspect` lists the keys of the checkpoint".to_owned(),
    };
    Failure::Usage(format!("neither the checkpoint nor its result has the key `{key}`{hint}"))
}
