//! A plan as a page of HTML: what `plan --html` writes and `graph --format html` prints.

use std::path::{Path, PathBuf};

use regraft::conversion::Planned;
use regraft::diagnostic::Diagnostic;
use regraft::error::Error;
use regraft::execute::Lanes;
use regraft::overview::{Overview, Page, Sights};
use regraft::store::NamedPath;

use super::conversion::in_order;
use super::{Failure, Result, summary};

/// What a page is made of.
pub(super) struct Facts<'a> {
    pub(super) sources: &'a [NamedPath],
    pub(super) planned: &'a Planned,
    pub(super) lanes: Option<&'a Lanes>,
}

/// The page of a plan, with what was found before it was made.
pub(super) fn page(facts: &Facts<'_>, before: &[Diagnostic], graph: bool) -> Page {
    let planned = facts.planned;
    let sights = Sights { unchanged: true, sharing: true };
    let overview = Overview::of(&planned.plan, planned.header(), sights);
    let mut page = Page::of_plan(&title(facts.sources), &planned.plan, &overview);
    page.findings.splice(0..0, before.iter().cloned());
    page.facts.insert(0, ("rules".to_owned(), in_order(&planned.route)));
    if let Some(lanes) = facts.lanes.filter(|lanes| !lanes.bytes.is_empty()) {
        page.facts.push(("bytes".to_owned(), summary::by_lane(&lanes.bytes)));
    }
    if graph {
        page.by = "regraft graph".to_owned();
        page.drawing_first = true;
    }
    page
}

/// What checkpoints are called, as they were given.
pub(super) fn title(sources: &[NamedPath]) -> String {
    let named = |source: &NamedPath| match &source.name {
        Some(name) => format!("{name}={}", source.path.display()),
        None => source.path.display().to_string(),
    };
    sources.iter().map(named).collect::<Vec<_>>().join(", ")
}

/// The name of a file for a page: only one that ends so, for a page takes the place of a file that
/// is there.
pub(super) fn html_file(name: &str) -> std::result::Result<PathBuf, String> {
    let path = PathBuf::from(name);
    match path.extension() {
        Some(ending) if ending == "html" || ending == "htm" => Ok(path),
        _ => Err("a page is a file whose name ends with `.html`".to_owned()),
    }
}

/// Writes a page.
pub(super) fn write(path: &Path, page: &Page) -> Result<()> {
    std::fs::write(path, page.html())
        .map_err(|error| Failure::World(Error::io("cannot write", path, error)))
}
