use super::*;

fn read(text: &str) -> Parsed {
    parse(Arc::new(SourceText { name: "test.graft".to_owned(), text: text.to_owned() }))
}

fn good(text: &str) -> RuleFile {
    let parsed = read(text);
    assert!(parsed.diagnostics.is_empty(), "{}", crate::diagnostic::render_all(&parsed.diagnostics, false));
    parsed.file
}

#[test]
fn the_examples_of_the_design_parse() {
    let text = include_str!("../../../tests/corpus/syntax/design.graft");
    let file = good(text);
    assert_eq!(file.statements.len(), 7 + 10 + 5);
}

#[test]
fn scratch() {
    let text = r#"
map "a.{l: 0..n}.w{x: q=>query | k=>key}.**" | transpose(0, 1) optional, /a#(\d+)\/b/, zeros([4, 8], F32) -> "b.{2*l-1}.{name*}", "c.{path**}.x" | neg via stack(e) | split(0, 1, heads/2) unless "x", target "y" where l / 2 == 1 and not -l < 3 optional
cast "**" to BF16 lossy unless "z"
tie "a" from "b" if present alias
when tied { drop "q" } else when exists("a.**") { keep "w" where x == null } else { }
tie "a" from "b" when tied if absent error
map { "a" -> "b" where l
  /x\d/ -> "y"
  "z" -> "k" | slice(0, ..8) | slice(1, 2..) | slice(1, 2..8) | slice(1, ..) }
create "m" = zeros([64], F32)
expect "p.{l}.**" count config.a[0].b ?? 3
trust "nvidia/*"
example "a" ->
use "./f.graft"
use transformers/detr under "model.detr"
models a-b, "C d"
"#;
    let parsed = read(text);
    println!("{}", crate::diagnostic::render_all(&parsed.diagnostics, false));
    println!("{:#?}", parsed.file);
}
