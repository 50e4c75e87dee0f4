//! How long an editor waits: a file of 1,000 rules is read anew and asked about, as after a
//! keystroke, and planned over 90,000 keys, which the server does in the background.
//!
//! `cargo run --release --example editor_speed`

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use indexmap::IndexMap;
use regraft::config::Config;
use regraft::diagnostic::SourceText;
use regraft::editor::{Document, Facts};
use regraft::key::Key;
use regraft::library::Library;
use regraft::tensor::{Dtype, Header, TensorInfo};

/// Times that each is done; the fastest counts, as other programs may be busy too.
const TIMES: usize = 9;

fn fastest(what: &str, mut work: impl FnMut()) {
    let mut times: Vec<f64> = (0..TIMES)
        .map(|_| {
            let started = Instant::now();
            work();
            started.elapsed().as_secs_f64() * 1000.0
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!("{what:<42} {:>8.2} ms", times[0]);
}

fn main() {
    let mut text = String::from("let layers = config.num_layers\n");
    for part in 0..1000 {
        let begins = if part % 50 == 0 { "rename {\n" } else { "" };
        let ends = if part % 50 == 49 { "}\n" } else { "" };
        let _ = write!(
            text,
            "{begins}  \"model.layers.{{l: 0..layers}}.part{part}.**\" <-> \"h.{{l}}.p{part}.**\"\n{ends}"
        );
    }
    let info = || TensorInfo::new(Dtype::F32, [8u64, 8].as_slice());
    let keys = (0..90).flat_map(|layer| {
        (0..1000).map(move |part| format!("model.layers.{layer}.part{part}.weight"))
    });
    let header = Header::from_infos(keys.map(|key| (Key::from(key), info())));
    let config = Config::from_value(serde_json::json!({ "num_layers": 90 }));
    let facts = Facts::new(Some(Arc::new(header)), config, IndexMap::new());
    let library = Library::default();
    let open = || {
        let name = "/speed.graft".to_owned();
        Document::new(Arc::new(SourceText { name, text: text.clone() }), &library)
    };
    let parsed = || {
        let name = "/speed.graft".to_owned();
        regraft::syntax::parse(Arc::new(SourceText { name, text: text.clone() }))
    };
    fastest("parsed", || drop(parsed()));
    fastest("tokens", || drop(regraft::syntax::tokens(&text)));
    let tree = parsed();
    fastest("checked", || drop(regraft::check::check_partly(&tree, &library)));
    fastest("read, checked, named", || drop(open()));
    let document = open();
    assert!(document.is_sound());
    let outcome = facts.outcome(&document);
    let at = text.find("part500").unwrap_or_default();
    fastest("hover over a pattern", || {
        assert!(document.hover(at, &facts, outcome.as_ref(), &library).is_some());
    });
    fastest("hover over a pattern that isn't planned", || {
        assert!(document.hover(at, &facts, None, &library).is_some());
    });
    fastest("completion of a segment", || assert!(!document.complete(at, &facts).is_empty()));
    let end = text.len();
    fastest("completion of a statement", || assert!(!document.complete(end, &facts).is_empty()));
    fastest("references", || drop(document.references(at)));
    fastest("semantic tokens", || drop(document.classified()));
    fastest("formatting", || drop(document.formatted()));
    fastest("outline and folds", || drop((document.outline(), document.folds())));
    fastest("lenses", || drop(document.lenses(outcome.as_ref(), None)));
    fastest("planned over 90,000 keys (background)", || drop(facts.outcome(&document)));
}
