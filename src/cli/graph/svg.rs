//! A drawing as a picture: keys of the checkpoint on the left, ops in the middle, keys of the
//! result on the right, one row for each line of the plan. Self-contained: no script, no font, no
//! style from elsewhere.

use std::fmt::Write as _;

use super::text::entities;
use super::{Drawing, Kind};

/// Sizes in pixels.
const ROW: usize = 22;
const GAP: usize = 14;
const CHARACTER: usize = 7;
const MARGIN: usize = 16;
const COLUMN_GAP: usize = 70;

struct Placed {
    column: usize,
    y: usize,
    height: usize,
}

/// As SVG.
pub(super) fn svg(drawing: &Drawing) -> String {
    let (places, height) = place(drawing);
    let mut widths = [0usize; 3];
    for (one, place) in drawing.boxes.iter().zip(&places) {
        let longest = one.label.chars().count().max(one.detail.chars().count());
        widths[place.column] = widths[place.column].max(longest * CHARACTER + 2 * 8);
    }
    let starts =
        [MARGIN, MARGIN + widths[0] + COLUMN_GAP, MARGIN + widths[0] + widths[1] + 2 * COLUMN_GAP];
    let width = starts[2] + widths[2] + MARGIN;
    let mut out = String::new();
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{}\" viewBox=\"0 0 {width} {}\" font-family=\"monospace\" font-size=\"11\">",
        height + 40,
        height + 40
    );
    let _ = writeln!(out, "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>");
    for arrow in &drawing.arrows {
        let (from, to) = (&places[arrow.from], &places[arrow.to]);
        let (x1, x2) = (starts[from.column] + widths[from.column], starts[to.column]);
        let (y1, y2) = (from.y + from.height / 2, to.y + to.height / 2);
        let middle = (x1 + x2) / 2;
        let dashes = if matches!(arrow.kind, Kind::Tied | Kind::Dropped) {
            " stroke-dasharray=\"4 3\""
        } else {
            ""
        };
        let _ = writeln!(
            out,
            "<path d=\"M{x1} {y1} C{middle} {y1} {middle} {y2} {x2} {y2}\" fill=\"none\" stroke=\"#777777\"{dashes}/>"
        );
    }
    for (one, place) in drawing.boxes.iter().zip(&places) {
        let (x, y) = (starts[place.column], place.y);
        let _ = writeln!(
            out,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"{}\" rx=\"4\" fill=\"{}\" stroke=\"#888888\"/>",
            widths[place.column],
            place.height,
            one.kind.colour()
        );
        let _ =
            writeln!(out, "<text x=\"{}\" y=\"{}\">{}</text>", x + 8, y + 15, entities(&one.label));
        if !one.detail.is_empty() {
            let _ = writeln!(
                out,
                "<text x=\"{}\" y=\"{}\" fill=\"#555555\">{}</text>",
                x + 8,
                y + 29,
                entities(&one.detail)
            );
        }
    }
    let mut x = MARGIN;
    for kind in Kind::ALL {
        let _ = writeln!(
            out,
            "<rect x=\"{x}\" y=\"{}\" width=\"12\" height=\"12\" fill=\"{}\" stroke=\"#888888\"/>",
            height + 12,
            kind.colour()
        );
        let _ =
            writeln!(out, "<text x=\"{}\" y=\"{}\">{}</text>", x + 18, height + 22, kind.name());
        x += 18 + kind.name().len() * CHARACTER + 20;
    }
    out.push_str("</svg>\n");
    out
}

/// Each box's column and place: what an arrow leaves only is a source, what it reaches only a
/// target, what it does both an op. Boxes come target by target, so each target's sources stand
/// beside it.
fn place(drawing: &Drawing) -> (Vec<Placed>, usize) {
    let mut columns = vec![0usize; drawing.boxes.len()];
    for (number, column) in columns.iter_mut().enumerate() {
        let leaves = drawing.arrows.iter().any(|arrow| arrow.from == number);
        let reached = drawing.arrows.iter().any(|arrow| arrow.to == number);
        *column = match (leaves, reached) {
            (true, false) => 0,
            (true, true) => 1,
            (false, _) => 2,
        };
    }
    let tall = |number: usize| if drawing.boxes[number].detail.is_empty() { ROW } else { ROW + 14 };
    let mut places: Vec<Placed> = (0..columns.len())
        .map(|number| Placed { column: columns[number], y: 0, height: tall(number) })
        .collect();
    let mut y = MARGIN;
    for target in (0..columns.len()).filter(|number| columns[*number] == 2) {
        let ops: Vec<usize> = drawing
            .arrows
            .iter()
            .filter(|arrow| arrow.to == target && columns[arrow.from] == 1)
            .map(|arrow| arrow.from)
            .collect();
        let sources: Vec<usize> = drawing
            .arrows
            .iter()
            .filter(|arrow| {
                columns[arrow.from] == 0 && (arrow.to == target || ops.contains(&arrow.to))
            })
            .map(|arrow| arrow.from)
            .collect();
        let mut left = y;
        for source in sources {
            places[source].y = left;
            left += tall(source) + 6;
        }
        let band = (left.saturating_sub(6)).max(y + tall(target)) - y;
        for number in ops.into_iter().chain([target]) {
            places[number].y = y + (band - tall(number).min(band)) / 2;
        }
        y += band + GAP;
    }
    (places, y)
}
