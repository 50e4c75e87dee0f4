//! `regraft graph`: the key graph as a drawing, grouped by rules and by indices so that a large
//! model fits a page.

use clap::ValueEnum;
use regraft::overview::{Drawing, Overview, Sights};
use regraft::store::NamedPath;

use super::console::{Console, has_findings};
use super::conversion::ConversionArguments;
use super::report::{Facts, page};
use super::source::named_path;
use super::{Exit, Result};

/// Draw which keys become which, through which ops
#[derive(clap::Args)]
#[command(after_help = "Examples:
  regraft graph mixtral-8x7b/ --format svg > graph.svg
  regraft graph mixtral-8x7b/ --format html > graph.html
  regraft graph header.json --rules deepseek_v3 | dot -Tpdf > graph.pdf")]
pub(super) struct Arguments {
    /// A file of safetensors, torch.save or NumPy, a directory, an index, or a manifest; several
    /// count as one checkpoint, and `NAME=SRC` puts `NAME.` before its keys
    #[arg(required = true, value_name = "[NAME=]SRC", value_parser = named_path())]
    sources: Vec<NamedPath>,

    #[command(flatten)]
    conversion: ConversionArguments,

    /// What to print
    #[arg(long, value_name = "FORMAT", default_value = "dot")]
    format: Format,

    /// Draw the keys that stay as they are, too
    #[arg(long)]
    all: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// Graphviz.
    Dot,
    /// For Markdown.
    Mermaid,
    /// Boxes and arrows as data.
    Json,
    /// A picture that needs nothing else.
    Svg,
    /// A page that needs nothing else: the picture, to be followed, with what `plan --html` tells.
    Html,
}

pub(super) fn run(arguments: &Arguments, console: Console) -> Result<Exit> {
    let prepared = arguments.conversion.prepare(&arguments.sources, console)?;
    let planned = prepared.plan_by_headers()?;
    let plan = &planned.plan;
    let sights = Sights { unchanged: arguments.all, sharing: true };
    let overview = Overview::of(plan, planned.header(), sights);
    let drawing = Drawing::of(&overview, plan, usize::MAX);
    match arguments.format {
        _ if console.json => console.json(&drawing)?,
        Format::Json => console.json(&drawing)?,
        Format::Dot => console.out(&drawing.dot())?,
        Format::Mermaid => console.out(&drawing.mermaid())?,
        Format::Svg => console.out(&drawing.svg())?,
        Format::Html => {
            let facts = Facts { sources: &arguments.sources, planned: &planned, lanes: None };
            console.exact(&page(&facts, &prepared.findings, true).html())?;
        }
    }
    Ok(Exit::findings(has_findings(&plan.findings)))
}
