//! Pages of HTML: what plan, graph and diff write to be looked at.

use super::sandbox::{Sandbox, mixtral, tensor};

/// A key that would run if a page took it for markup.
const HOSTILE: &str = "a<script>alert(1)</script>\"'&<img src=x onerror=alert(2)>";

/// The only script of a page is its own, and nothing is fetched.
fn is_safe(page: &str) {
    assert!(page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"));
    assert_eq!(page.matches("<script").count(), 1, "{page}");
    assert_eq!(page.matches("</script").count(), 1, "{page}");
    assert!(!page.contains("<img"), "{page}");
    for outside in ["src=\"", "href=\"", "url(", "@import"] {
        assert!(!page.contains(outside), "{outside} in {page}");
    }
}

#[test]
fn a_plan_is_a_page() {
    let sandbox = Sandbox::new();
    sandbox.checkpoint("model.safetensors", &mixtral(8));
    let ran =
        sandbox.run(&["plan", "model.safetensors", "--rules", "mixtral", "--html", "plan.html"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    // What is printed is as it is without.
    assert_eq!(ran.out, sandbox.run(&["plan", "model.safetensors", "--rules", "mixtral"]).out);
    let page = std::fs::read_to_string(sandbox.path("plan.html")).unwrap();
    is_safe(&page);
    assert!(page.contains("<p class=\"verdict good\">converts</p>"), "{page}");
    // Two layers of eight experts: both projections that become one, and the one that is stacked.
    for keys in [
        "model.layers.{0..1}.mlp.experts.gate_up_proj",
        "model.layers.{0..1}.mlp.experts.down_proj",
        "model.layers.{0..1}.block_sparse_moe.experts.{0..7}.w1.weight",
    ] {
        assert!(page.contains(&format!("<code class=\"keys\">{keys}</code>")), "{keys}: {page}");
    }
    assert!(page.contains("<li>stack(0)</li><li>concat(1)</li>"), "{page}");
    // Four keys are copied: two layers of two.
    assert!(page.contains("<b>4</b> copied"), "{page}");
    assert!(page.contains("<svg "), "{page}");
}

#[test]
fn names_are_no_markup() {
    let sandbox = Sandbox::new();
    let both = [(HOSTILE.to_owned(), tensor("a", &[2])), ("b".to_owned(), tensor("b", &[2]))];
    sandbox.checkpoint("a.safetensors", &both.clone().into());
    sandbox.checkpoint("b.safetensors", &[both[1].clone()].into());
    sandbox.write("r.graft", "rename \"b\" -> \"c<script>\"\ndrop \"a{rest*}\"\n");
    let rules = ["--rules", "r.graft"];
    let ran = sandbox.run(&[&["plan", "a.safetensors", "--html", "p.html"], &rules[..]].concat());
    assert!(ran.code <= 1, "{}", ran.err);
    let ran = sandbox.run(&[&["graph", "a.safetensors", "--format", "html"], &rules[..]].concat());
    assert!(ran.code <= 1, "{}", ran.err);
    is_safe(&ran.out);
    let ran = sandbox.run(&["diff", "a.safetensors", "b.safetensors", "--html", "d.html"]);
    assert_eq!(ran.code, 1, "{}", ran.err);
    for page in ["p.html", "d.html"] {
        let page = std::fs::read_to_string(sandbox.path(page)).unwrap();
        is_safe(&page);
        assert!(page.contains("a&lt;script&gt;alert(1)&lt;/script&gt;"), "{page}");
    }
}

#[test]
fn a_difference_is_a_page() {
    let sandbox = Sandbox::new();
    let mut tensors = mixtral(2);
    sandbox.checkpoint("a.safetensors", &tensors);
    tensors.remove("lm_head.weight").unwrap();
    tensors.insert("model.norm.weight".to_owned(), tensor("another", &[4]));
    sandbox.checkpoint("b.safetensors", &tensors);
    let ran = sandbox.run(&["diff", "a.safetensors", "b.safetensors", "--html", "d.html"]);
    assert_eq!(ran.code, 1, "{}", ran.err);
    let page = std::fs::read_to_string(sandbox.path("d.html")).unwrap();
    assert!(page.contains("<p class=\"verdict poor\">2 keys differ</p>"), "{page}");
    let (only, bytes) = (page.find("<h2>only in A</h2>"), page.find("<h2>other bytes</h2>"));
    assert!(only.unwrap() < bytes.unwrap() && !page.contains("<h2>only in B</h2>"), "{page}");
    let ran = sandbox.run(&["diff", "a.safetensors", "a.safetensors", "--html", "d.html"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let page = std::fs::read_to_string(sandbox.path("d.html")).unwrap();
    assert!(page.contains("<p class=\"verdict good\">the same</p>"), "{page}");
}

#[test]
fn a_page_replaces_no_other_file() {
    let sandbox = Sandbox::new();
    sandbox.checkpoint("a.safetensors", &mixtral(2));
    let before = std::fs::read(sandbox.path("a.safetensors")).unwrap();
    let ran =
        sandbox.run(&["plan", "a.safetensors", "--rules", "mixtral", "--html", "a.safetensors"]);
    assert_eq!(ran.code, 2, "{}", ran.err);
    assert!(ran.err.contains("ends with `.html`"), "{}", ran.err);
    assert_eq!(std::fs::read(sandbox.path("a.safetensors")).unwrap(), before);
    let ran =
        sandbox.run(&["plan", "a.safetensors", "--rules", "mixtral", "--html", "no/where.html"]);
    assert!(ran.code > 1 && ran.err.contains("no/where.html"), "{} {}", ran.code, ran.err);
}
