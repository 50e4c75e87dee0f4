//! Rule files of less than 100 KB that ask for much: each is checked, proven as far as it goes, and planned, and says what it left open.

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

/// Name, text, whether its rules are too many to compare, and whether the proof of idempotence is left open for that.
fn files() -> Vec<(&'static str, String, bool, bool)> {
    vec![
        ("two-way rules that all may meet", group(3000, |n| format!("\"**.a{n}.**\" <-> \"**.b{n}.**\"")), true, true),
        ("one-way rules that all may meet", group(3000, |n| format!("\"**.a{n}.**\" -> \"**.b{n}.**\"")), false, true),
        ("rules that don't meet", group(3000, |n| format!("\"a{n}.x\" <-> \"b{n}.x\"")), false, false),
        ("rules of many words", group(200, |n| format!("\"**.{{w: {}}}.x{n}.**\" <-> \"**.{{w}}.y{n}.**\"", words('a', 60))), true, true),
        ("many statements", (0..1800).map(|n| format!("rename \"**.a{n}.**\" <-> \"**.b{n}.**\"\n")).collect(), false, true),
        (
            "many exceptions",
            format!(
                "rename \"**.a.**\" -> \"**.b.**\" unless {}\n",
                (0..4000).map(|n| format!("\"**.c{n}\"")).collect::<Vec<_>>().join(", ")
            ),
            false,
            true,
        ),
        ("one long alternation", format!("rename \"**.{{w: {}}}.**\" <-> \"**.x_{{w}}.**\"\n", words('a', 6000)), false, false),
    ]
}

fn compiled(name: &str, text: &str) -> Rules {
    assert!(text.len() < 100_000, "{name}: {} bytes", text.len());
    compile(text).unwrap_or_else(|found| panic!("{name}: {found}"))
}

#[test]
fn costly_files_end_and_say_what_they_left_open() {
    let header =
        Header::from_infos(["m.a1.w", "a1.x", "a1.x1.w", "m.a.w"].map(|key| (Key::from(key), TensorInfo::new(Dtype::F32, vec![4]))));
    let mut wrong = String::new();
    for (name, text, too_many, open) in files() {
        let rules = compiled(name, &text);
        let notes = rules.findings.iter().filter(|finding| finding.code.to_string() == "RG110").count();
        let proof = idempotence(&rules);
        let is_open = matches!(&proof, Idempotence::Undecided { .. });
        if notes != usize::from(too_many) || is_open != open {
            wrong.push_str(&format!("{name}: {notes} notes, {proof:?}\n"));
        }
        let _ = repeats_backwards(&rules);
        let route = Route::named(vec![rules], None, None, false).unwrap();
        plan(&route.stages(), &header, &Default::default()).unwrap_or_else(|found| panic!("{name}: {found}"));
    }
    assert!(wrong.is_empty(), "{wrong}");
}
