//! Rule files of less than 100 KB that ask for much: each is checked, proven as far as it goes, and
//! planned, and says what it left open.

use rayon::prelude::*;
use regraft::check::{Idempotence, Rules, idempotence, repeats_backwards};
use regraft::compile;
use regraft::key::Key;
use regraft::tensor::{Dtype, Header, TensorInfo};
use regraft::{Route, plan};

fn group(count: usize, line: impl Fn(usize) -> String) -> String {
    let lines: String = (0..count).map(|n| format!("  {}\n", line(n))).collect();
    format!("rename {{\n{lines}}}\n")
}

fn words(start: char, count: usize) -> String {
    (0..count).map(|n| format!("{start}{n}")).collect::<Vec<_>>().join("|")
}

/// Name, text, whether its rules are too many to compare, and whether it stays open if applying
/// them twice changes anything (not asked of all, as it takes as long for each).
fn files() -> Vec<(&'static str, String, bool, Option<bool>)> {
    vec![
        (
            "two-way rules that all may meet",
            group(3000, |n| format!("\"**.a{n}.**\" <-> \"**.b{n}.**\"")),
            true,
            None,
        ),
        (
            "one-way rules that all may meet",
            group(3000, |n| format!("\"**.a{n}.**\" -> \"**.b{n}.**\"")),
            false,
            None,
        ),
        (
            "rules that don't meet",
            group(3000, |n| format!("\"a{n}.x\" <-> \"b{n}.x\"")),
            false,
            Some(false),
        ),
        (
            "rules of many words",
            group(200, |n| {
                format!("\"**.{{w: {}}}.x{n}.**\" <-> \"**.{{w}}.y{n}.**\"", words('a', 60))
            }),
            true,
            None,
        ),
        (
            "many statements",
            (0..1800).map(|n| format!("rename \"**.a{n}.**\" <-> \"**.b{n}.**\"\n")).collect(),
            false,
            Some(true),
        ),
        (
            "many exceptions",
            format!(
                "rename \"**.a.**\" -> \"**.b.**\" unless {}\n",
                (0..4000).map(|n| format!("\"**.c{n}\"")).collect::<Vec<_>>().join(", ")
            ),
            false,
            Some(true),
        ),
        (
            "one long alternation",
            format!("rename \"**.{{w: {}}}.**\" <-> \"**.x_{{w}}.**\"\n", words('a', 6000)),
            false,
            Some(true),
        ),
    ]
}

fn compiled(name: &str, text: &str) -> Rules {
    assert!(text.len() < 100_000, "{name}: {} bytes", text.len());
    compile(text).unwrap_or_else(|found| panic!("{name}: {found}"))
}

#[test]
fn costly_files_end_and_say_what_they_left_open() {
    let header = Header::from_infos(
        ["m.a1.w", "a1.x", "a1.x1.w", "m.a.w"]
            .map(|key| (Key::from(key), TensorInfo::new(Dtype::F32, vec![4]))),
    );
    files().into_par_iter().for_each(|(name, text, too_many, open)| {
        let rules = compiled(name, &text);
        let notes =
            rules.findings.iter().filter(|finding| finding.code.to_string() == "RG110").count();
        assert_eq!(notes, usize::from(too_many), "{name}");
        if let Some(open) = open {
            let proof = idempotence(&rules);
            assert_eq!(matches!(&proof, Idempotence::Undecided { .. }), open, "{name}");
            let _ = repeats_backwards(&rules);
        }
        let route = Route::named(vec![rules], None, None, false).unwrap();
        plan(&route.stages(), &header, &Default::default())
            .unwrap_or_else(|found| panic!("{name}: {found}"));
    });
}
