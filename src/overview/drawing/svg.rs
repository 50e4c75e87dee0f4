//! A drawing as a picture: keys of the checkpoint on the left, ops in the middle, keys of the
//! result on the right, one row for each line of the plan. Self-contained: no script, no font, no
//! style from elsewhere. Colours are attributes, which the style of a page overrides by its classes.

use std::fmt::Write as _;

use super::text::entities;
use super::{Drawing, DrawnBox, Kind};

/// Sizes in pixels.
const ROW: usize = 22;
const DETAIL: usize = 14;
const GAP: usize = 14;
const CHARACTER: usize = 7;
const MARGIN: usize = 16;
const COLUMN_GAP: usize = 70;

/// Characters of a box that are shown; all of them are in its title.
const SHOWN: usize = 90;

#[derive(Clone, Copy)]
struct Placed {
    column: usize,
    y: usize,
    height: usize,
}

impl Drawing {
    /// As SVG.
    pub fn svg(&self) -> String {
        let (places, height) = place(self);
        let mut widths = [0usize; 3];
        for (one, place) in self.boxes.iter().zip(&places) {
            let longest = one.label.chars().count().max(one.detail.chars().count()).min(SHOWN);
            widths[place.column] = widths[place.column].max(longest * CHARACTER + 2 * 8);
        }
        let second = MARGIN + widths[0] + COLUMN_GAP;
        let starts = [MARGIN, second, second + widths[1] + COLUMN_GAP];
        let (width, whole) = (starts[2] + widths[2] + MARGIN, height + 40);
        let mut out = String::new();
        let _ = writeln!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{whole}\" viewBox=\"0 0 {width} {whole}\" font-family=\"monospace\" font-size=\"11\" role=\"img\" aria-label=\"the graph of keys\">"
        );
        out.push_str("<rect class=\"paper\" width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n");
        for arrow in &self.arrows {
            let (from, to) = (places[arrow.from], places[arrow.to]);
            let (x1, x2) = (starts[from.column] + widths[from.column], starts[to.column]);
            let (y1, y2) = (from.y + from.height / 2, to.y + to.height / 2);
            let (middle, dashes) = (x1.midpoint(x2), dashes(arrow.kind));
            let _ = writeln!(
                out,
                "<path class=\"arrow {}\" data-from=\"{}\" data-to=\"{}\" d=\"M{x1} {y1} C{middle} {y1} {middle} {y2} {x2} {y2}\" fill=\"none\" stroke=\"#777777\"{dashes}/>",
                arrow.kind.name(),
                arrow.from,
                arrow.to
            );
        }
        for (number, (one, place)) in self.boxes.iter().zip(&places).enumerate() {
            draw_box(one, number, (starts[place.column], widths[place.column]), *place, &mut out);
        }
        legend(height, &mut out);
        out.push_str("</svg>\n");
        out
    }
}

fn dashes(kind: Kind) -> &'static str {
    if matches!(kind, Kind::Tied | Kind::Dropped) { " stroke-dasharray=\"4 3\"" } else { "" }
}

/// The start of a text that is too long to be shown, with what shows that it goes on.
fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        None => entities(text),
        Some(_) => {
            let start: String = text.chars().take(SHOWN - 1).collect();
            format!("{}…", entities(&start))
        }
    }
}

fn draw_box(
    one: &DrawnBox,
    number: usize,
    (x, width): (usize, usize),
    place: Placed,
    out: &mut String,
) {
    let y = place.y;
    let _ = writeln!(
        out,
        "<g class=\"box {}\" data-box=\"{number}\"><title>{} {}</title><rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{}\" rx=\"4\" fill=\"{}\" stroke=\"#888888\"/>",
        one.kind.name(),
        entities(&one.label),
        entities(&one.detail),
        place.height,
        one.kind.colour()
    );
    let _ = write!(out, "<text x=\"{}\" y=\"{}\">{}</text>", x + 8, y + 15, shown(&one.label));
    if !one.detail.is_empty() {
        let _ = write!(
            out,
            "<text class=\"detail\" x=\"{}\" y=\"{}\" fill=\"#555555\">{}</text>",
            x + 8,
            y + 29,
            shown(&one.detail)
        );
    }
    out.push_str("</g>\n");
}

fn legend(height: usize, out: &mut String) {
    let mut x = MARGIN;
    for kind in Kind::ALL {
        let _ = writeln!(
            out,
            "<g class=\"key {}\"><rect x=\"{x}\" y=\"{}\" width=\"12\" height=\"12\" fill=\"{}\" stroke=\"#888888\"/><text x=\"{}\" y=\"{}\">{}</text></g>",
            kind.name(),
            height + 12,
            kind.colour(),
            x + 18,
            height + 22,
            kind.name()
        );
        x += 18 + kind.name().len() * CHARACTER + 20;
    }
}

/// Each box's column and place: what an arrow leaves only is a source, what it reaches only a
/// target, what it does both an op. Boxes come target by target, so each target's sources stand
/// beside it.
fn place(drawing: &Drawing) -> (Vec<Placed>, usize) {
    let count = drawing.boxes.len();
    let (mut leaves, mut into) = (vec![false; count], vec![Vec::new(); count]);
    for arrow in &drawing.arrows {
        leaves[arrow.from] = true;
        into[arrow.to].push(arrow.from);
    }
    let column = |number: usize| match (leaves[number], into[number].is_empty()) {
        (true, true) => 0,
        (true, false) => 1,
        (false, _) => 2,
    };
    let tall =
        |number: usize| ROW + if drawing.boxes[number].detail.is_empty() { 0 } else { DETAIL };
    let mut places: Vec<Placed> = (0..count)
        .map(|number| Placed { column: column(number), y: 0, height: tall(number) })
        .collect();
    let mut y = MARGIN;
    for target in (0..count).filter(|number| column(*number) == 2) {
        let (ops, direct): (Vec<usize>, Vec<usize>) =
            into[target].iter().partition(|from| column(**from) == 1);
        let behind = ops.iter().flat_map(|op| into[*op].iter().copied());
        let sources: Vec<usize> = direct.into_iter().chain(behind).collect();
        let tallest = sources.iter().map(|source| tall(*source) + 6).sum::<usize>();
        let band = tallest.saturating_sub(6).max(tall(target));
        let mut left = y + (band - tallest.saturating_sub(6)) / 2;
        for source in sources {
            places[source].y = left;
            left += tall(source) + 6;
        }
        for number in ops.into_iter().chain([target]) {
            places[number].y = y + (band - tall(number).min(band)) / 2;
        }
        y += band + GAP;
    }
    (places, y)
}
