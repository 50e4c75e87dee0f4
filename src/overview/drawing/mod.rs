//! [`Drawing`]: a plan as boxes and arrows, grouped so that a large model fits a page.

mod svg;
mod text;

use serde::Serialize;

use super::{Made, MadeBy, Overview, times};
use crate::execute::Sharing;
use crate::plan::Plan;

pub(super) use text::entities;

/// A drawing: boxes in three columns (keys of the checkpoint, ops, keys of the result) and arrows
/// between them.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Drawing {
    /// The boxes.
    pub boxes: Vec<DrawnBox>,
    /// What leads from one to another.
    pub arrows: Vec<Arrow>,
}

/// Keys, or ops.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct DrawnBox {
    /// The keys as one pattern, or the ops.
    pub label: String,
    /// dtype, shape and count of keys; or the rule of an op.
    pub detail: String,
    /// What becomes of them.
    pub kind: Kind,
}

/// An arrow from a box to another, by their numbers.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Arrow {
    /// Where it begins.
    pub from: usize,
    /// Where it ends.
    pub to: usize,
    /// What becomes of what it carries.
    pub kind: Kind,
}

/// What becomes of bytes; decides the colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
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
    /// What becomes of the bytes of a line.
    pub fn of(line: &Made) -> Self {
        match line.sharing {
            Some(Sharing::View) => Kind::Aliased,
            Some(Sharing::Copy) => Kind::Copied,
            Some(Sharing::Computed) | None => Kind::Transformed,
        }
    }

    /// All of them, in the order of a legend.
    pub const ALL: [Kind; 6] =
        [Kind::Source, Kind::Aliased, Kind::Copied, Kind::Transformed, Kind::Dropped, Kind::Tied];

    /// Its colour on paper.
    pub fn colour(self) -> &'static str {
        match self {
            Kind::Source => "#e8e8e8",
            Kind::Aliased => "#cfe8cf",
            Kind::Copied => "#cfe0f5",
            Kind::Transformed => "#f7dcc4",
            Kind::Dropped => "#f3c9c9",
            Kind::Tied => "#e6d7f2",
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
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

impl Kind {
    /// What it means, in a few words.
    pub fn meaning(self) -> &'static str {
        match self {
            Kind::Source => "of the checkpoint",
            Kind::Aliased => "in memory a view of the checkpoint's bytes",
            Kind::Copied => "the same values, in a place of their own",
            Kind::Transformed => "values are computed",
            Kind::Dropped => "not part of the result",
            Kind::Tied => "one tensor with another key",
        }
    }
}

impl Drawing {
    /// Draws at most so many lines of an overview, which has what each target is in memory.
    pub fn of(overview: &Overview, plan: &Plan, most: usize) -> Self {
        let mut drawing = Self::default();
        let made = overview.groups.iter().flat_map(|group| {
            let by = rule_of(group, plan);
            group.lines.iter().map(move |line| (line, by.clone()))
        });
        let unchanged = overview.unchanged_lines.iter().map(|line| (line, String::new()));
        for (line, by) in made.chain(unchanged).take(most) {
            drawing.draw(line, by);
        }
        for line in overview.tied.iter().take(most) {
            let detail = format!("tied{}", times(line.count));
            let tied = drawing.add(&line.keys, detail, Kind::Tied);
            let root = drawing.add(&line.with, String::new(), Kind::Source);
            drawing.arrow(root, tied, Kind::Tied);
        }
        for line in overview.dropped.iter().take(most) {
            let detail = times(line.count).trim().to_owned();
            let source = drawing.add(&line.keys, detail, Kind::Source);
            let gone = drawing.add(line.briefly, String::new(), Kind::Dropped);
            drawing.arrow(source, gone, Kind::Dropped);
        }
        drawing
    }

    fn draw(&mut self, line: &Made, by: String) {
        let kind = Kind::of(line);
        let detail = format!("{}{}", line.info, times(line.count));
        let target = self.add(&line.keys, detail, kind);
        let joint = if line.ops.is_empty() {
            target
        } else {
            let op = self.add(&line.ops.join(", "), by, kind);
            self.arrow(op, target, kind);
            op
        };
        for source in &line.sources {
            let detail = times(source.count).trim().to_owned();
            let source = self.add(&source.keys, detail, Kind::Source);
            self.arrow(source, joint, kind);
        }
    }

    fn add(&mut self, label: &str, detail: String, kind: Kind) -> usize {
        self.boxes.push(DrawnBox { label: label.to_owned(), detail, kind });
        self.boxes.len() - 1
    }

    fn arrow(&mut self, from: usize, to: usize, kind: Kind) {
        self.arrows.push(Arrow { from, to, kind });
    }
}

/// The last rule of a group, as `file:line`.
fn rule_of(group: &MadeBy, plan: &Plan) -> String {
    let rule = group.rules.last().and_then(|rule| plan.rules.get(rule.0 as usize));
    rule.map(|rule| format!("{}:{}", rule.file, rule.line)).unwrap_or_default()
}
