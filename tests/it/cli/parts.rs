//! `--part`: what one of several ranks holds of each tensor.

use super::sandbox::{Sandbox, Tensors, tensor};

/// A checkpoint of two experts that the rules below pack, and more.
fn checkpoint() -> (Sandbox, Tensors) {
    let sandbox = Sandbox::new();
    let mut tensors = Tensors::new();
    for (key, shape) in [
        ("e.0.up", &[6, 4][..]),
        ("e.1.up", &[6, 4]),
        ("q.weight", &[10, 4]),
        ("o.weight", &[4, 10]),
        ("norm.weight", &[4]),
    ] {
        tensors.insert(key.to_owned(), tensor(key, shape));
    }
    sandbox.checkpoint("whole.safetensors", &tensors);
    sandbox.write("pack.graft", "map \"e.{i}.up\" -> \"e.up\" via transpose(0, 1) | stack(i)\n");
    (sandbox, tensors)
}

/// Some rows, and some columns of them, of a matrix of F32.
fn cut(
    bytes: &[u8],
    width: usize,
    rows: std::ops::Range<usize>,
    columns: std::ops::Range<usize>,
) -> Vec<u8> {
    rows.flat_map(|row| {
        bytes[(row * width + columns.start) * 4..(row * width + columns.end) * 4].to_vec()
    })
    .collect()
}

#[test]
fn a_part_is_of_the_result_and_what_fits_no_pattern_stays_whole() {
    let (sandbox, source) = checkpoint();
    // torch.chunk: 10 in 4 parts are 3, 3, 3, 1.
    let rows = [0..3, 3..6, 6..9, 9..10];
    for (rank, rows) in rows.into_iter().enumerate() {
        let out = format!("out{rank}");
        let parts = [
            format!("q.{{t: weight|bias}}[0, {rank}/4]"),
            format!("o.weight[1,{rank}/4]"),
            format!("e.up[ 1 , {rank}/4 ]"),
        ];
        let mut arguments = vec!["apply", "whole.safetensors", "-o", &out, "--rules", "pack.graft"];
        for part in &parts {
            arguments.extend(["--part", part]);
        }
        let ran = sandbox.run(&arguments);
        assert_eq!(ran.code, 0, "{}", ran.err);
        let found = sandbox.tensors(&out);
        assert_eq!(found.len(), 4);
        assert_eq!(found["norm.weight"], source["norm.weight"]);
        let expected = cut(&source["q.weight"].1, 4, rows.clone(), 0..4);
        assert_eq!(found["q.weight"], (vec![rows.len(), 4], expected));
        let expected = cut(&source["o.weight"].1, 10, 0..4, rows.clone());
        assert_eq!(found["o.weight"], (vec![4, rows.len()], expected));
        // Row `rank` of a transposed expert is its column `rank`.
        let expected = ["e.0.up", "e.1.up"]
            .iter()
            .flat_map(|key| cut(&source[*key].1, 4, 0..6, rank..rank + 1))
            .collect();
        assert_eq!(found["e.up"], (vec![2, 1, 6], expected));
    }
}

#[test]
fn a_key_is_cut_along_two_dimensions() {
    let (sandbox, source) = checkpoint();
    sandbox.write("only.graft", "keep \"{m: q|o}.weight\"\n");
    let ran = sandbox.run(&[
        "apply",
        "whole.safetensors",
        "-o",
        "out",
        "--rules",
        "only.graft",
        "--part",
        "q.weight[0, 1/2]",
        "--part",
        "**.weight[1, 0/2]",
    ]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let found = sandbox.tensors("out");
    assert_eq!(found["q.weight"], (vec![5, 2], cut(&source["q.weight"].1, 4, 5..10, 0..2)));
    assert_eq!(found["o.weight"], (vec![4, 5], cut(&source["o.weight"].1, 10, 0..4, 0..5)));
}

#[test]
fn parts_that_are_not_there_are_refused_and_nothing_is_written() {
    let (sandbox, _) = checkpoint();
    let mut told = String::new();
    for (parts, code, why) in [
        (&["q.wight[0, 0/2]"][..], 1, "no key of the result fits `q.wight[0, 0/2]`"),
        (&["norm.weight[1, 0/2]"], 1, "has no dimension 1"),
        (&["norm.weight[0, 4/5]"], 1, "part 4 of 5 along dimension 0 of F32 [4] is empty"),
        (&["q.weight[0, 0/2]", "q.**[0, 1/2]"], 1, "two parts along dimension 0"),
        (&["q.weight[0, 2/2]"], 2, "there is no part 2 of 2: they are 0 to 1"),
        (&["q.weight"], 2, "is no `PATTERN[dim, i/n]`"),
        (&["q..weight[0, 0/2]"], 2, "a segment is empty"),
    ] {
        let mut arguments = vec!["apply", "whole.safetensors", "-o", "out"];
        for part in parts {
            arguments.extend(["--part", part]);
        }
        let ran = sandbox.run(&arguments);
        assert!(ran.err.contains(why), "{parts:?}: {}", ran.err);
        assert_eq!(ran.code, code, "{parts:?}: {}", ran.err);
        assert!(!sandbox.path("out").exists(), "{parts:?}");
        if code == 1 {
            told.push_str(&ran.err);
        }
    }
    insta::assert_snapshot!(told);
    let ran = sandbox.run(&[
        "apply",
        "whole.safetensors",
        "-o",
        "out",
        "--record",
        "--part",
        "q.weight[0, 0/2]",
    ]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("a record is of whole tensors"), "{}", ran.err);
}

#[test]
fn scales_are_cut_as_the_tensor_is() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "header.json",
        r#"{"a.weight": ["F8_E4M3", [512, 256]], "a.weight_scale_inv": ["F32", [4, 2]],
            "b.weight": ["F8_E4M3", [512, 256]], "b.weight_scale": ["F32", [1]]}"#,
    );
    for (parts, code, why) in [
        (&["a.weight[0, 1/4]"][..], 1, "what scales the tensor is not cut as it is"),
        (&["a.{t: weight|weight_scale_inv}[0, 1/4]"], 0, ""),
        (&["a.{t: weight|weight_scale_inv}[0, 1/8]"], 1, "ends within a block"),
        (&["a.weight[0, 1/4]", "a.weight_scale_inv[1, 1/2]"], 1, "is not cut as it is"),
        (&["b.weight[0, 1/8]"], 0, ""),
    ] {
        let mut arguments = vec!["plan", "header.json"];
        for part in parts {
            arguments.extend(["--part", part]);
        }
        let ran = sandbox.run(&arguments);
        assert!(ran.err.contains(why), "{parts:?}: {}", ran.err);
        assert_eq!(ran.code, code, "{parts:?}: {}{}", ran.out, ran.err);
    }
}
