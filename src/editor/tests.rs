//! Each answer on small texts; `‸` stands where it is asked for.

use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::json;

use super::*;
use crate::check::value::Value;
use crate::config::Config;
use crate::diagnostic::codes;
use crate::key::Key;
use crate::library::Library;
use crate::tensor::{Dtype, Header, TensorInfo};

/// A text, and where its mark stood.
fn marked(text: &str) -> (Document, usize) {
    let at = text.find('‸').expect("a mark");
    (document(&text.replacen('‸', "", 1)), at)
}

fn document(text: &str) -> Document {
    let source = Arc::new(SourceText { name: "/x/test.graft".to_owned(), text: text.to_owned() });
    Document::new(source, &Library::default())
}

/// Four layers with two experts each, and a config.
fn facts() -> Facts {
    facts_with(IndexMap::new())
}

fn facts_with(parameters: IndexMap<String, Value>) -> Facts {
    let info = || TensorInfo::new(Dtype::F32, [8u64, 8].as_slice());
    let mut keys: Vec<String> = vec!["model.embed_tokens.weight".to_owned()];
    for layer in 0..4 {
        keys.push(format!("model.layers.{layer}.attn.q.weight"));
        for expert in 0..2 {
            keys.push(format!("model.layers.{layer}.experts.{expert}.w1.weight"));
        }
    }
    let header = Header::from_infos(keys.iter().map(|key| (Key::from(key.as_str()), info())));
    let config = json!({ "heads": 4, "text_config": { "layers": 2 } });
    Facts::new(Some(Arc::new(header)), Config::from_value(config), parameters)
}

fn hover(text: &str) -> String {
    let (document, at) = marked(text);
    let facts = facts();
    let outcome = facts.outcome(&document);
    let found = document.hover(at, &facts, outcome.as_ref(), &Library::default());
    found.map(|hover| hover.text).unwrap_or_default()
}

fn completions(text: &str) -> Vec<String> {
    let (document, at) = marked(text);
    document.complete(at, &facts()).into_iter().map(|one| one.text).collect()
}

fn named(text: &str) -> Vec<String> {
    let (document, at) = marked(text);
    let found = document.references(at);
    found
        .iter()
        .map(|span| {
            let line = document.text()[..span.start as usize].matches('\n').count();
            format!("{line}:{}", document.slice(*span))
        })
        .collect()
}

fn renamed(text: &str, name: &str) -> Result<String, NoRename> {
    let (document, at) = marked(text);
    let mut new = document.text().to_owned();
    for span in document.rename(at, name)?.into_iter().rev() {
        new.replace_range(span.range(), name);
    }
    Ok(new)
}

#[test]
fn ops_are_explained_by_their_row() {
    let text = hover("map \"a.{e}\" <-> \"b\" via sta‸ck(e)");
    assert!(text.contains("`stack(e[, dim])`"), "{text}");
    assert!(text.contains("undone by: `unstack`"), "{text}");
    // The row of those that share a name is the one that the arguments mean.
    let text = hover("map \"a.{s: 0..2}\" <-> \"b\" via conc‸at(0, over s)");
    assert!(text.contains("all values of `s`"), "{text}");
    assert!(hover("create \"a\" = zer‸os([4], F32)").contains("sinusoids"));
    // Where the statement doesn't parse, by the word alone.
    assert!(hover("map \"a\" via trans‸pose(").contains("swaps two dimensions"));
}

#[test]
fn words_are_explained_by_the_reference() {
    assert!(hover("re‸name \"a\" -> \"b\"").contains("rename"));
    assert!(hover("rename \"a\" -> \"b\" opti‸onal").contains("RG304"));
    assert!(hover("when ti‸ed {\n}").contains("tied"));
    assert_eq!(hover("# a comm‸ent about rename"), "");
}

#[test]
fn values_are_those_of_the_pinned_config() {
    assert!(hover("let he‸ads = config.heads").contains("here: `4`"));
    assert!(hover("let a = config.he‸ads").contains("`config.heads` = `4`"));
    assert!(hover("let a = config.text_con‸fig.layers * 2").contains("= `2`"));
    assert!(hover("let off‸set").contains("not known here"));
    assert!(hover("let row‸s = size(\"model.embed_tokens.weight\", 0)").contains("here: `8`"));
    let text = "let n‸ = count(\"model.layers.{l}.experts.{e}.w1.weight\", l)";
    assert!(hover(text).contains("here: `4`"), "{}", hover(text));
    let (document, at) = marked("let off‸set");
    let given = facts_with(IndexMap::from([("offset".to_owned(), Value::Int(8))]));
    let shown = document.hover(at, &given, None, &Library::default()).unwrap();
    assert!(shown.text.contains("here: `8`"), "{}", shown.text);
    assert!(hover("let a = config.hea‸dz").contains("no field `headz`"));
    let text = "let n = config.heads\nrename \"a.{l: 0..n}\" <-> \"b.{‸l}\"";
    assert!(hover(text).contains("from 0 up to but not including 4"), "{}", hover(text));
}

#[test]
fn a_pattern_tells_what_it_takes_and_what_that_becomes() {
    let text = hover("rename \"model.lay‸ers.{l}.attn.**\" <-> \"h.{l}.attention.**\"");
    assert!(text.starts_with("takes 4 keys"), "{text}");
    let line = "`model.layers.0.attn.q.weight` → `h.0.attention.q.weight`";
    assert!(text.contains(line), "{text}");
    // After a statement before it, and by each source of a map.
    let text = hover(
        "rename \"model.**\" <-> \"m.**\"\n\
         map \"m.layers.{l}.experts.‸{e}.w1.weight\" <-> \"m.{l}.w1\" via stack(e)",
    );
    assert!(text.starts_with("takes 8 keys"), "{text}");
    assert!(text.contains("→ `m.0.w1`"), "{text}");
    // A pattern that takes nothing itself is looked at alone.
    let text = hover("drop \"model.‸**\" unless \"model.embed_tokens.weight\"");
    assert!(text.starts_with("fits 13 keys"), "{text}");
    assert!(hover("drop \"bana‸na\"").starts_with("no key"));
}

#[test]
fn rules_that_fit_only_backwards_are_read_so() {
    let text = hover("rename \"h.{l}.a.**\" <-> \"model.lay‸ers.{l}.attn.**\"");
    assert!(text.starts_with("takes 4 keys of the checkpoint, read backwards"), "{text}");
    assert!(text.contains("→ `h.0.a.q.weight`"), "{text}");
}

#[test]
fn what_the_grammar_takes_is_offered() {
    let words = completions("‸");
    assert!(words.contains(&"rename".to_owned()) && words.contains(&"untie".to_owned()));
    let words = completions("rename \"a\" -> \"b\" ‸");
    assert!(words.contains(&"where".to_owned()) && !words.contains(&"rename".to_owned()));
    assert!(completions("strip ‸").contains(&"leading".to_owned()));
    let words = completions("rename {\n  \"a\" -> \"b\"\n  ‸\n}");
    assert!(words.contains(&"unless".to_owned()), "{words:?}");
    assert!(!words.contains(&"drop".to_owned()), "no statement stands in a group");
    assert!(completions("# drop ‸").is_empty());
}

#[test]
fn ops_dtypes_files_and_names_are_offered_where_they_stand() {
    let ops = completions("map \"a\", \"b\" <-> \"c\" via ‸");
    assert!(ops.contains(&"concat".to_owned()) && !ops.contains(&"rename".to_owned()));
    assert!(completions("map \"a\" | ‸ <-> \"c\"").contains(&"transpose".to_owned()));
    let inside = completions("let n = 2\nmap \"a.{e}\" <-> \"c\" via stack(‸");
    assert_eq!(inside, ["e"]);
    assert!(completions("map \"a\" <-> \"c\" via cast(‸").contains(&"BF16".to_owned()));
    assert!(completions("cast \"a\" to ‸").contains(&"F32".to_owned()));
    assert!(completions("use mix‸").contains(&"mixtral".to_owned()));
    let values = completions("let n = 2\nrename \"a.{l}\" -> \"b.{l}\" where ‸");
    for name in ["n", "l", "config", "tied"] {
        assert!(values.contains(&name.to_owned()), "{name}: {values:?}");
    }
    assert_eq!(completions("let n = config.‸"), ["heads", "text_config"]);
    assert_eq!(completions("let n = config.text_config.la‸"), ["layers"]);
}

#[test]
fn keys_are_offered_segment_by_segment() {
    assert_eq!(completions("drop \"‸\""), ["model"]);
    assert_eq!(completions("drop \"model.‸\""), ["embed_tokens", "layers"]);
    assert_eq!(completions("drop \"model.layers.‸\""), ["{l}"]);
    // The closing quote isn't written yet.
    assert_eq!(completions("drop \"model.layers.{i}.‸"), ["attn", "experts"]);
    assert_eq!(completions("rename \"**.experts.{e}.‸"), ["w1"]);
    // Keys of examples are keys as well: those of the right layout nobody else knows.
    let text = "example \"a\" -> \"out.w\"\nrename \"model.**\" <-> \"out.‸\"";
    assert_eq!(completions(text), ["w"]);
    assert_eq!(completions("rename \"a.{layer}.{e}\" <-> \"b.{‸}\""), ["layer", "e"]);
}

#[test]
fn a_completion_replaces_the_word_that_is_begun() {
    let (document, at) = marked("drop \"model.emb‸\"");
    let found = document.complete(at, &facts());
    assert_eq!(document.slice(found[0].span), "emb");
    let (document, at) = marked("map \"a\", \"b\" <-> \"c\" via con‸");
    let found = document.complete(at, &Facts::default());
    let concat = found.iter().find(|one| one.text == "concat").unwrap();
    assert_eq!(document.slice(concat.span), "con");
    assert_eq!(concat.snippet.as_deref(), Some("concat(${1:dim})"));
}

#[test]
fn captures_of_one_rule_belong_together() {
    let text = "rename {\n  \"a.{l}\" <-> \"b.{‸l}\" unless \"a.{l}.c\" where l > 2\n  \"c.{l}\" <-> \"d.{l}\"\n}";
    assert_eq!(named(text), ["1:l", "1:l", "1:l"], "not those of `unless`, nor of another rule");
    assert_eq!(
        named("map \"a.{e‸}\" <-> \"b\" via stack(e)"),
        ["0:e", "0:e"],
        "arguments of ops too"
    );
    assert_eq!(named("map \"a.{s: 0..2}\" <-> \"b\" via concat(0, over s‸)").len(), 2);
    assert_eq!(named("rename /a(?<n>.)/ -> \"b.{n‸}\"").len(), 2, "the groups of a regex");
    assert_eq!(named("rename \"a.{l}\" -> \"b.{l}\" where exists(\"c.{l‸}\")").len(), 3);
}

#[test]
fn a_name_in_arithmetic_is_what_the_reference_says() {
    let text = "let n‸ = 2\nrename \"a.{l}\" <-> \"b.{l+n}\"\nrename \"c.{n}\" <-> \"d.{n}\"";
    assert_eq!(named(text), ["0:n", "1:n"], "a capture of that name hides it");
    assert_eq!(named("let n = 2\nrename \"a.{l: 0..n‸}\" <-> \"b.{l}\"").len(), 2);
}

#[test]
fn definitions_are_found() {
    let find = |text: &str| {
        let (document, at) = marked(text);
        document.definition(at, &Library::default()).map(|found| match found {
            Definition::Here(span) => format!("{}", span.start),
            Definition::File(source) => source.name.clone(),
        })
    };
    assert_eq!(find("let n = 2\nlet m = n‸ + 1").as_deref(), Some("4"));
    // A capture is bound where its form is written.
    assert_eq!(find("rename \"a.{x}\" <-> \"b.{x‸: q=>k}\"").as_deref(), Some("23"));
    assert_eq!(find("use mixt‸ral under \"a\"").as_deref(), Some("mixtral"));
    assert_eq!(find("use nobody‸"), None);
    assert_eq!(find("drop \"a‸\""), None);
}

#[test]
fn names_are_changed_everywhere_or_not_at_all() {
    let text = "let n = 2\nrename \"a.{‸l}\" <-> \"b.{2*l+n}\" where l < n";
    let changed = "let n = 2\nrename \"a.{i}\" <-> \"b.{2*i+n}\" where i < n";
    assert_eq!(renamed(text, "i").as_deref(), Ok(changed));
    assert_eq!(renamed(text, "n"), Err(NoRename::Taken));
    assert_eq!(renamed(text, "2l"), Err(NoRename::NotAName));
    assert_eq!(renamed(text, "and"), Err(NoRename::NotAName));
    assert_eq!(renamed("use mixt‸ral", "x"), Err(NoRename::NoName));
    assert_eq!(renamed("rename /a(.)/ -> \"b.{1‸}\"", "x"), Err(NoRename::NoName));
    let text = "let n‸ = 2\nlet m = n\nrename \"a.{(n)}\" -> \"b\"";
    assert_eq!(
        renamed(text, "k").as_deref(),
        Ok("let k = 2\nlet m = k\nrename \"a.{(k)}\" -> \"b\"")
    );
}

#[test]
fn hints_with_a_replacement_are_actions() {
    let fixed = |text: &str| {
        let document = document(text);
        let mut new = text.to_owned();
        let actions = document.findings().iter().flat_map(|finding| document.actions(finding));
        let actions: Vec<Action> = actions.collect();
        for action in actions.iter().rev() {
            new.replace_range(action.span.range(), &action.text);
        }
        (actions.into_iter().map(|action| action.title).collect::<Vec<_>>(), new)
    };
    for (before, title, after) in [
        ("renam \"a\" -> \"b\"", "change `renam` to `rename`", "rename \"a\" -> \"b\""),
        ("drop \"a\";", "leave out `;`", "drop \"a\""),
        (
            "map \"a.{e}\" -> \"b\" via stak(e)",
            "change `stak` to `stack`",
            "map \"a.{e}\" -> \"b\" via stack(e)",
        ),
        ("cast \"a\" to BF61", "change `BF61` to `BF16`", "cast \"a\" to BF16"),
        ("use mixtrall", "change `mixtrall` to `mixtral`", "use mixtral"),
        (
            "let heads = 4\ndrop \"a.{l}\" where l > haeds",
            "change `haeds` to `heads`",
            "let heads = 4\ndrop \"a.{l}\" where l > heads",
        ),
        (
            "map \"a <-> b\" <-> \"c\" via cast(F32)",
            "change `<->` to `->`",
            "map \"a <-> b\" -> \"c\" via cast(F32)",
        ),
    ] {
        assert_eq!(fixed(before), (vec![title.to_owned()], after.to_owned()), "{before}");
    }
    let mentions = fixed("drop \"a\" where not_there").0;
    assert_eq!(mentions, Vec::<String>::new(), "a hint that leaves a choice is none");
}

#[test]
fn a_plan_asks_for_changes_too() {
    let facts = facts();
    let document = document("rename \"nothing\" <-> \"else\"\nrename \"model.**\" <-> \"m.**\"");
    let outcome = facts.outcome(&document).unwrap();
    let unmatched =
        outcome.findings.iter().find(|finding| finding.code == codes::UNMATCHED_RULE).unwrap();
    let [action] = &document.actions(unmatched)[..] else { panic!("one action") };
    assert_eq!((action.title.as_str(), action.span.start), ("add `optional`", 27));
}

#[test]
fn rules_beside_a_broken_one_are_known() {
    let text = "rename \"model.lay‸ers.{l}.attn.**\" <-> \"h.{l}.**\"\nmap \"a\" via\ndrop {";
    assert!(hover(text).starts_with("takes 4 keys"), "{}", hover(text));
}

#[test]
fn outlines_and_folds_follow_the_statements() {
    let text = "## One\n## two\nruleset a: x <-> y\nrename {\n  \"a\" <-> \"b\"\n  \"c\"\n  <-> \"d\"\n}\n\
                when tied {\n  drop \"e\"\n}\n";
    let document = document(text);
    let outline = document.outline();
    let names: Vec<&str> = outline.iter().map(|symbol| symbol.name.as_str()).collect();
    assert_eq!(names, ["ruleset a: x <-> y", "rename", "when tied { … }"]);
    assert_eq!(outline[1].children[1].name, "\"c\" <-> \"d\"");
    assert_eq!(outline[2].children[0].name, "drop \"e\"");
    let line = |at: u32| text[..at as usize].matches('\n').count();
    let folds: Vec<(usize, usize, bool)> = document
        .folds()
        .iter()
        .map(|fold| (line(fold.span.start), line(fold.span.end), fold.comment))
        .collect();
    assert_eq!(folds, [(0, 1, true), (3, 7, false), (5, 6, false), (8, 10, false)]);
}

#[test]
fn tokens_tell_captures_in_quotes() {
    let document = document("let n = 2 # two\nmap \"a.{l}\" <-> \"b.{l+n}\" via cast(F32)");
    let found: Vec<(&str, TokenClass)> =
        document.classified().iter().map(|(span, class)| (document.slice(*span), *class)).collect();
    use TokenClass::{Capture, Comment, Dtype, Keyword, Let, Number, Op, Sign, Text};
    assert_eq!(
        found,
        [
            ("let", Keyword),
            ("n", Let),
            ("=", Sign),
            ("2", Number),
            ("# two", Comment),
            ("map", Keyword),
            ("\"a.{", Text),
            ("l", Capture),
            ("}\"", Text),
            ("<->", Sign),
            ("\"b.{", Text),
            ("l", Capture),
            ("+", Text),
            ("n", Let),
            ("}\"", Text),
            ("via", Keyword),
            ("cast", Op),
            ("F32", Dtype),
        ]
    );
}

#[test]
fn lenses_count_keys_and_examples() {
    let text = "rename \"model.layers.{l}.**\" <-> \"h.{l}.**\"\n\
                example \"model.layers.0.w\" <-> \"h.0.w\"\nexample \"model.layers.0.w\" <-> \"x\"";
    let document = document(text);
    let outcome = facts().outcome(&document);
    let examples = crate::library::check_examples(document.rules());
    let lenses = document.lenses(outcome.as_ref(), Some(&examples));
    let titles: Vec<&str> = lenses.iter().map(|lens| lens.title.as_str()).collect();
    assert_eq!(titles, ["12 keys match", "holds", "does not hold"]);
    assert_eq!(hover::grouped(90_427), "90,427");
    assert_eq!(hover::grouped(4), "4");
}

#[test]
fn shapes_stand_after_ops() {
    let text = "map \"model.layers.{l}.experts.{e}.w1.weight\" | transpose(0, 1) <-> \"a.{l}\", \"b.{l}\"\n\
                via stack(e) | split(1, 3, 1)";
    let document = document(text);
    let outcome = facts().outcome(&document).unwrap();
    let shown: Vec<(&str, String)> = document
        .inlays(&outcome)
        .into_iter()
        .map(|inlay| {
            let before = &text[..inlay.offset as usize];
            (before.rsplit([' ', '|']).next().unwrap(), inlay.text)
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("1)", "[8, 8]".to_owned()),
            ("stack(e)", "[2, 8, 8]".to_owned()),
            ("1)", "[2, 6, 8], [2, 2, 8]".to_owned()),
        ]
    );
}

#[test]
fn pins_are_comments() {
    let pins = document("# checkpoint: a/b.json\n# set: n=2\n# config: \n## note: c").pins();
    assert_eq!(pins.checkpoint.map(|(_, path)| path).as_deref(), Some("a/b.json"));
    assert_eq!(pins.config, None, "nothing is said");
    assert_eq!(pins.set.len(), 1);
}

/// Whatever is asked anywhere in texts that end anywhere, something is answered.
#[test]
fn no_text_is_too_broken() {
    let whole = "let n = config.a ?? 2\nrename {\n  \"a.{l: 0..n}.é\" | cast(F32) <-> \"b.{l+1}\" # é\n}\n\
                 map /x(?<y>.)/ -> \"{y}\" where exists(\"q.{y}\")\nuse \"./x.graft\"";
    let facts = facts();
    for (end, _) in whole.char_indices() {
        let document = document(&whole[..end]);
        let outcome = facts.outcome(&document);
        for at in (end.saturating_sub(12)..=end).filter(|at| whole.is_char_boundary(*at)) {
            document.hover(at, &facts, outcome.as_ref(), &Library::default());
            document.complete(at, &facts);
            document.references(at);
        }
        let classified = document.classified();
        let apart = classified.windows(2).all(|pair| pair[0].0.end <= pair[1].0.start);
        assert!(apart, "{}", &whole[..end]);
        document.folds();
        document.outline();
    }
}
