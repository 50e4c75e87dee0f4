//! `regraft graph`: the key graph as a drawing, grouped by rules and by indices so that a large
//! model fits a page.

mod svg;
mod text;

use clap::ValueEnum;
use indexmap::IndexMap;
use regraft::plan::{DropReason, Plan, RuleId};
use regraft::store::NamedPath;
use serde::Serialize;

use super::console::{Console, has_findings};
use super::conversion::ConversionArguments;
use super::lines::Gathered;
use super::related::SourceKeys;
use super::source::named_path;
use super::summary::{MadeAs, made_as};
use super::{Exit, Result};

/// Draws which keys become which, through which ops
#[derive(clap::Args)]
#[command(after_help = "Examples:
  regraft graph mixtral-8x7b/ --format svg > graph.svg
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
}

/// A drawing: boxes in three columns (keys of the checkpoint, ops, keys of the result) and arrows
/// between them.
#[derive(Debug, Default, Serialize)]
struct Drawing {
    boxes: Vec<Box>,
    arrows: Vec<Arrow>,
}

#[derive(Debug, Serialize)]
struct Box {
    label: String,
    /// dtype, shape and count of keys; or the rule of an op.
    detail: String,
    kind: Kind,
}

#[derive(Debug, Serialize)]
struct Arrow {
    from: usize,
    to: usize,
    kind: Kind,
}

/// What becomes of bytes; decides the colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    /// Keys of the checkpoint.
    Source,
    /// The result is a view of the source's bytes.
    Aliased,
    /// Bytes move, values stay.
    Copied,
    /// Values change.
    Transformed,
    /// Not part of the result.
    Dropped,
    /// One tensor with another key.
    Tied,
}

impl Kind {
    const ALL: [Kind; 6] =
        [Kind::Source, Kind::Aliased, Kind::Copied, Kind::Transformed, Kind::Dropped, Kind::Tied];

    fn colour(self) -> &'static str {
        match self {
            Kind::Source => "#e8e8e8",
            Kind::Aliased => "#cfe8cf",
            Kind::Copied => "#cfe0f5",
            Kind::Transformed => "#f7dcc4",
            Kind::Dropped => "#f3c9c9",
            Kind::Tied => "#e6d7f2",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Source => "source",
            Kind::Aliased => "aliased",
            Kind::Copied => "copied",
            Kind::Transformed => "transformed",
            Kind::Dropped => "dropped",
            Kind::Tied => "tied",
        }
    }
}

pub(super) fn run(arguments: &Arguments, console: Console) -> Result<Exit> {
    let prepared = arguments.conversion.prepare(&arguments.sources, console)?;
    let plan = prepared.plan_by_headers()?.plan;
    let drawing = draw(&plan, arguments.all);
    match arguments.format {
        _ if console.json => console.json(&drawing)?,
        Format::Json => console.json(&drawing)?,
        Format::Dot => console.out(&text::dot(&drawing))?,
        Format::Mermaid => console.out(&text::mermaid(&drawing))?,
        Format::Svg => console.out(&svg::svg(&drawing))?,
    }
    Ok(Exit::findings(has_findings(&plan.findings)))
}

fn draw(plan: &Plan, all: bool) -> Drawing {
    let mut drawing = Drawing::default();
    let mut by_rules: IndexMap<&[RuleId], Gathered<MadeAs>> = IndexMap::new();
    let (mut ties, mut drops) = (Gathered::new(), Gathered::new());
    for target in &plan.targets {
        match &target.tied_to {
            Some(root) => ties.add_made(&target.key, SourceKeys::of(root), ()),
            None if target.rules.is_empty() && !all => {}
            None => {
                let (shape, sources) = made_as(plan, target);
                by_rules.entry(&target.rules).or_insert_with(Gathered::new).add_made(
                    &target.key,
                    sources,
                    shape,
                );
            }
        }
    }
    for dropped in &plan.dropped {
        let why = match &dropped.reason {
            DropReason::Rule(_) => "dropped",
            DropReason::TiedTo(_) => "one tensor with a key that stays",
            DropReason::NotWanted => "not asked for",
        };
        drops.add(&dropped.key, why);
    }
    by_rules.sort_by(|a, _, b, _| a.cmp(b));
    for (rules, groups) in &by_rules {
        let rule = rules.last().and_then(|rule| plan.rules.get(rule.0 as usize));
        for line in groups.lines() {
            let shape = line.shared;
            let sources = line.sources();
            let kind = becomes(shape, sources.is_empty());
            let detail = format!("{}{}", shape.info, times(line.count()));
            let target = drawing.add(line.text(), detail, kind);
            let joint = if shape.ops.is_empty() {
                target
            } else {
                let by =
                    rule.map(|rule| format!("{}:{}", rule.file, rule.line)).unwrap_or_default();
                let op = drawing.add(shape.ops.join(", "), by, kind);
                drawing.arrow(op, target, kind);
                op
            };
            for (source, count) in sources {
                let source =
                    drawing.add(source, times(count as u64).trim().to_owned(), Kind::Source);
                drawing.arrow(source, joint, kind);
            }
        }
    }
    for line in ties.lines() {
        let tied = drawing.add(line.text(), format!("tied{}", times(line.count())), Kind::Tied);
        let root = line.sources().into_iter().next().map(|(root, _)| root).unwrap_or_default();
        let root = drawing.add(root, String::new(), Kind::Source);
        drawing.arrow(root, tied, Kind::Tied);
    }
    for line in drops.lines() {
        let source = drawing.add(line.text(), times(line.count()).trim().to_owned(), Kind::Source);
        let gone = drawing.add((*line.shared).to_owned(), String::new(), Kind::Dropped);
        drawing.arrow(source, gone, Kind::Dropped);
    }
    drawing
}

impl Drawing {
    fn add(&mut self, label: String, detail: String, kind: Kind) -> usize {
        self.boxes.push(Box { label, detail, kind });
        self.boxes.len() - 1
    }

    fn arrow(&mut self, from: usize, to: usize, kind: Kind) {
        self.arrows.push(Arrow { from, to, kind });
    }
}

/// What happens to the bytes of a target: joins copy, arithmetic transforms, everything else is a
/// view.
fn becomes(shape: &MadeAs, made: bool) -> Kind {
    let any =
        |names: &[&str]| shape.ops.iter().any(|op| names.iter().any(|name| op.starts_with(name)));
    let computes = [
        "cast",
        "add",
        "sub",
        "mul",
        "div",
        "neg",
        "exp",
        "log",
        "norm",
        "absmax",
        "unpack",
        "decode",
        "lookup",
        "one_for_zero",
    ];
    if any(&computes) {
        Kind::Transformed
    } else if any(&["stack", "concat", "fill", "expand", "count"]) || made {
        Kind::Copied
    } else {
        Kind::Aliased
    }
}

fn times(count: u64) -> String {
    if count == 1 { String::new() } else { format!("  x {count}") }
}
