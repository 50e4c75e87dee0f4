//! Files that hold equal keys: named on the command line, and numbered as the rules say; Meta's
//! Llama there and back.

use std::ops::Range;

use super::sandbox::{Sandbox, Tensors, tensor};

/// A tensor of F32.
type Tensor = (Vec<usize>, Vec<u8>);

const HIDDEN: usize = 16;
const HEADS: usize = 8;
const VOCABULARY: usize = 24;
const INNER: usize = 32;

/// A Llama in hub names.
fn hub(kv_heads: usize) -> Tensors {
    let head = HIDDEN / HEADS;
    let mut tensors = Tensors::new();
    let mut add = |key: String, shape: &[usize]| {
        let tensor = tensor(&key, shape);
        tensors.insert(key, tensor);
    };
    add("model.embed_tokens.weight".to_owned(), &[VOCABULARY, HIDDEN]);
    add("lm_head.weight".to_owned(), &[VOCABULARY, HIDDEN]);
    add("model.norm.weight".to_owned(), &[HIDDEN]);
    for layer in 0..2 {
        for (name, shape) in [
            ("self_attn.q_proj", vec![HIDDEN, HIDDEN]),
            ("self_attn.k_proj", vec![kv_heads * head, HIDDEN]),
            ("self_attn.v_proj", vec![kv_heads * head, HIDDEN]),
            ("self_attn.o_proj", vec![HIDDEN, HIDDEN]),
            ("mlp.gate_proj", vec![INNER, HIDDEN]),
            ("mlp.up_proj", vec![INNER, HIDDEN]),
            ("mlp.down_proj", vec![HIDDEN, INNER]),
            ("input_layernorm", vec![HIDDEN]),
            ("post_attention_layernorm", vec![HIDDEN]),
        ] {
            add(format!("model.layers.{layer}.{name}.weight"), &shape);
        }
    }
    tensors
}

/// Some elements of a matrix, by row and column.
fn picked(whole: &Tensor, rows: &[usize], columns: Range<usize>) -> Tensor {
    let width = whole.0[1];
    let bytes = rows.iter().flat_map(|row| {
        let start = row * width;
        whole.1[(start + columns.start) * 4..(start + columns.end) * 4].to_vec()
    });
    (vec![rows.len(), columns.len()], bytes.collect())
}

/// Which part of a length one of some ranks has.
fn share(len: usize, rank: usize, ranks: usize) -> Range<usize> {
    len / ranks * rank..len / ranks * (rank + 1)
}

/// The rows of a projection as Meta has them: of each head, the two halves in turn.
fn in_turn(rows: usize, heads: usize) -> Vec<usize> {
    let head = rows / heads;
    let of_head = |at: usize| (0..head).map(move |i| at * head + i % 2 * (head / 2) + i / 2);
    (0..heads).flat_map(of_head).collect()
}

/// What Meta's file of one rank holds of a Llama.
fn meta(hub: &Tensors, kv_heads: usize, by_rows: bool, rank: usize, ranks: usize) -> Tensors {
    let rows = |whole: &Tensor, order: Vec<usize>| {
        picked(whole, &order[share(order.len(), rank, ranks)], 0..whole.0[1])
    };
    let in_order = |whole: &Tensor| rows(whole, (0..whole.0[0]).collect());
    let columns = |whole: &Tensor| {
        let all: Vec<usize> = (0..whole.0[0]).collect();
        picked(whole, &all, share(whole.0[1], rank, ranks))
    };
    let mut file = Tensors::new();
    let embed = &hub["model.embed_tokens.weight"];
    let embed = if by_rows { in_order(embed) } else { columns(embed) };
    file.insert("tok_embeddings.weight".to_owned(), embed);
    file.insert("output.weight".to_owned(), in_order(&hub["lm_head.weight"]));
    file.insert("norm.weight".to_owned(), hub["model.norm.weight"].clone());
    for layer in 0..2 {
        let of = |name: &str| &hub[&format!("model.layers.{layer}.{name}.weight")];
        let q = of("self_attn.q_proj");
        let k = of("self_attn.k_proj");
        for (name, part) in [
            ("attention.wq", rows(q, in_turn(q.0[0], HEADS))),
            ("attention.wk", rows(k, in_turn(k.0[0], kv_heads))),
            ("attention.wv", in_order(of("self_attn.v_proj"))),
            ("attention.wo", columns(of("self_attn.o_proj"))),
            ("feed_forward.w1", in_order(of("mlp.gate_proj"))),
            ("feed_forward.w3", in_order(of("mlp.up_proj"))),
            ("feed_forward.w2", columns(of("mlp.down_proj"))),
            ("attention_norm", of("input_layernorm").clone()),
            ("ffn_norm", of("post_attention_layernorm").clone()),
        ] {
            file.insert(format!("layers.{layer}.{name}.weight"), part);
        }
    }
    file
}

/// A folder `hub` and one `ranks` of the same Llama.
fn llama(kv_heads: usize, by_rows: bool, ranks: usize) -> Sandbox {
    let sandbox = Sandbox::new();
    let hub = hub(kv_heads);
    sandbox.checkpoint("hub/model.safetensors", &hub);
    for rank in 0..ranks {
        let mut file = meta(&hub, kv_heads, by_rows, rank, ranks);
        // What can be computed again isn't converted.
        file.insert("rope.freqs".to_owned(), tensor("rope.freqs", &[HIDDEN / HEADS / 2]));
        sandbox.checkpoint(&format!("ranks/consolidated.{rank:02}.safetensors"), &file);
    }
    let config = format!(
        r#"{{"model_type": "llama", "num_attention_heads": {HEADS}, "num_key_value_heads": {kv_heads}, "hidden_size": {HIDDEN}, "vocab_size": {VOCABULARY}}}"#
    );
    sandbox.write("hub/config.json", &config);
    sandbox.write("ranks/config.json", &config);
    sandbox
}

/// The safetensors files of a folder, by name.
fn files(sandbox: &Sandbox, folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(sandbox.path(folder)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.contains("safetensors")).collect();
    names.sort();
    names
}

/// One file, as a folder of its own.
fn one(sandbox: &Sandbox, file: &str, folder: &str) -> Tensors {
    std::fs::create_dir_all(sandbox.path(folder)).unwrap();
    std::fs::copy(sandbox.path(file), sandbox.path(folder).join("x.safetensors")).unwrap();
    let tensors = sandbox.tensors(folder);
    std::fs::remove_dir_all(sandbox.path(folder)).unwrap();
    tensors
}

#[test]
fn llama_of_meta_comes_together_and_apart() {
    for (ranks, kv_heads, by_rows) in
        [(1, 8, false), (2, 8, false), (2, 4, true), (2, 2, false), (8, 8, true), (8, 8, false)]
    {
        let sandbox = llama(kv_heads, by_rows, ranks);
        let embed = format!("embed_by_rows={by_rows}");
        let arguments = ["apply", "ranks", "-o", "out", "--rules", "meta_llama", "--set", &embed];
        let ran = sandbox.run(&arguments);
        assert_eq!(ran.code, 0, "{ranks} ranks: {}", ran.err);
        assert_eq!(sandbox.tensors("out"), hub(kv_heads), "{ranks} ranks, {kv_heads} heads");

        let count = format!("ranks={ranks}");
        let back = ["apply", "out", "-o", "back", "--rules", "meta_llama", "--reverse"];
        let ran = sandbox.run(&[&back[..], &["--set", &count, "--set", &embed]].concat());
        assert_eq!(ran.code, 0, "{ranks} ranks: {}", ran.err);
        let names: Vec<String> =
            (0..ranks).map(|rank| format!("consolidated.{rank:02}.safetensors")).collect();
        assert_eq!(files(&sandbox, "back"), names, "a file for each rank, and no index");
        for (rank, name) in names.iter().enumerate() {
            let expected = meta(&hub(kv_heads), kv_heads, by_rows, rank, ranks);
            assert_eq!(one(&sandbox, &format!("back/{name}"), "x"), expected, "{name} of {ranks}");
        }
        assert_eq!(
            sandbox
                .run(&["apply", "back", "-o", "again", "--rules", "meta_llama", "--set", &embed])
                .code,
            0
        );
        assert_eq!(sandbox.tensors("again"), hub(kv_heads));
    }
}

/// `ranks` are two files in Meta's layout, `torch` the same as `torch.save` writes them, and `hub`
/// is what transformers' convert_llama_weights_to_hf.py made of them.
#[test]
fn two_ranks_become_what_the_script_of_transformers_makes_of_them() {
    let sandbox = Sandbox::new();
    let fixture = format!("{}/tests/fixtures/meta_llama", env!("CARGO_MANIFEST_DIR"));
    for kind in ["ranks", "torch"] {
        let ranks = format!("{fixture}/{kind}");
        let ran = sandbox.run(&["apply", &ranks, "-o", kind, "--rules", "meta_llama"]);
        assert_eq!(ran.code, 0, "{kind}: {}", ran.err);
        let ran = sandbox.run(&["diff", kind, &format!("{fixture}/hub")]);
        assert_eq!((ran.code, ran.out.as_str()), (0, "equal: 21 keys byte for byte\n"), "{kind}");
    }
}

#[test]
fn shapes_tell_how_an_embedding_is_parted_and_how_many_heads_there_are() {
    for (ranks, kv_heads, by_rows) in [(1, 4, true), (2, 8, true), (2, 8, false), (8, 8, true)] {
        let sandbox = llama(kv_heads, by_rows, ranks);
        std::fs::remove_file(sandbox.path("ranks/config.json")).unwrap();
        let ran = sandbox.run(&["apply", "ranks", "-o", "out", "--rules", "meta_llama"]);
        assert_eq!(ran.code, 0, "{ranks} ranks: {}", ran.err);
        assert_eq!(sandbox.tensors("out"), hub(kv_heads), "{ranks} ranks, by rows: {by_rows}");
    }
}

#[test]
fn without_what_tells_the_heads_their_flag_is_named() {
    let sandbox = llama(4, false, 2);
    std::fs::remove_file(sandbox.path("ranks/config.json")).unwrap();
    for rank in 0..2 {
        let name = format!("ranks/consolidated.{rank:02}.safetensors");
        sandbox.checkpoint(&name, &meta(&hub(4), 4, false, rank, 2));
    }
    let apply = ["apply", "ranks", "-o", "out", "--rules", "meta_llama"];
    let ran = sandbox.run(&apply);
    assert_eq!(ran.code, 2);
    assert!(
        ran.err.contains("RG209") && ran.err.contains("give --set heads=VALUE, or"),
        "{}",
        ran.err
    );
    let ran = sandbox.run(&[&apply[..], &["--set", &format!("heads={HEADS}")]].concat());
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(sandbox.tensors("out"), hub(4));
}

#[test]
fn backwards_the_vocabulary_tells_how_to_part_an_embedding() {
    let sandbox = llama(8, false, 2);
    let back = ["apply", "hub", "-o", "back", "--rules", "meta_llama", "--reverse", "--force"];
    let back = [&back[..], &["--set", "ranks=2"]].concat();
    let config = std::fs::read_to_string(sandbox.path("hub/config.json")).unwrap();
    let of_llama_3 = config.replace("\"vocab_size\": 24", "\"vocab_size\": 128256");
    let unsaid = config.replace(", \"vocab_size\": 24", "");
    for (config, by_rows) in [(config, false), (unsaid, false), (of_llama_3, true)] {
        sandbox.write("hub/config.json", config);
        let ran = sandbox.run(&back);
        assert_eq!(ran.code, 0, "{}", ran.err);
        let expected = meta(&hub(8), 8, by_rows, 1, 2);
        assert_eq!(one(&sandbox, "back/consolidated.01.safetensors", "x"), expected);
    }
}

#[test]
fn columns_that_are_not_as_many_as_the_hidden_size_are_refused() {
    let sandbox = llama(8, false, 2);
    let ran = sandbox.run(&["plan", "ranks", "--rules", "meta_llama", "--set", "hidden=24"]);
    assert_eq!(ran.code, 1);
    let said = ran.err.contains("RG303") && ran.err.contains("slice(1, ..hidden, hidden)");
    assert!(said, "{}", ran.err);
}

#[test]
fn ranks_that_are_missing_or_too_many_are_told() {
    let sandbox = llama(8, false, 8);
    let plan = |more: &[&str]| {
        let ran = sandbox.run(&[&["plan", "ranks", "--rules", "meta_llama"], more].concat());
        (ran.code, ran.err)
    };
    let (code, err) = plan(&["--set", "ranks=4"]);
    assert_eq!(code, 1);
    assert!(err.contains("4 more ranks there than the rules ask for, which is 0..4"), "{err}");

    let third = sandbox.path("ranks/consolidated.03.safetensors");
    std::fs::copy(&third, sandbox.path("ranks/consolidated.3.safetensors")).unwrap();
    let (code, err) = plan(&[]);
    assert_eq!(code, 3);
    assert!(err.contains("rank 3 is there twice: consolidated.03.safetensors"), "{err}");

    std::fs::remove_file(sandbox.path("ranks/consolidated.3.safetensors")).unwrap();
    std::fs::remove_file(third).unwrap();
    let ran = sandbox.run(&["apply", "ranks", "-o", "out", "--rules", "meta_llama"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("1 of 8 ranks is missing: 3"), "{}", ran.err);
    assert!(!sandbox.path("out").exists());

    // By name, a part is read as one; that there is more is said.
    let ran = sandbox.run(&["plan", "ranks/consolidated.00.safetensors", "--rules", "meta_llama"]);
    assert!(ran.err.contains("6 more files of ranks beside it are not given"), "{}", ran.err);
}

#[test]
fn rules_that_read_such_files_are_named() {
    let sandbox = Sandbox::new();
    for (name, expected) in [
        ("consolidated.{}.pth", "--rules llama4_meta_ranks or --rules meta_llama read files"),
        (
            "layer_{}-model_00-model_states.pt",
            "--rules bloom_megatron or --rules gpt_neox_megatron read files",
        ),
        ("mp_rank_{}_model_states.pt", "--rules gpt_neox_megatron_whole reads files"),
        ("my_{}.pt", "help: give the file itself"),
    ] {
        let folder = sandbox.path(&name[..2]);
        std::fs::create_dir(&folder).unwrap();
        for number in ["01", "02"] {
            std::fs::write(folder.join(name.replace("{}", number)), "").unwrap();
        }
        let ran = sandbox.run(&["plan", folder.to_str().unwrap()]);
        assert_eq!(ran.code, 3);
        assert!(ran.err.contains("2 files that may be the checkpoint"), "{}", ran.err);
        assert!(ran.err.contains(expected), "{}", ran.err);
    }
}

#[test]
fn what_should_be_the_same_in_all_ranks_and_is_not_stops_the_work() {
    let sandbox = llama(8, false, 2);
    let mut second = one(&sandbox, "ranks/consolidated.01.safetensors", "x");
    second.get_mut("layers.1.ffn_norm.weight").unwrap().1[5] ^= 1;
    sandbox.checkpoint("ranks/consolidated.01.safetensors", &second);
    let ran = sandbox.run(&["apply", "ranks", "-o", "out", "--rules", "meta_llama"]);
    assert_eq!(ran.code, 1);
    let message =
        "`1.layers.1.ffn_norm.weight` differs from `0.layers.1.ffn_norm.weight` in 1 byte";
    assert!(ran.err.contains("RG351") && ran.err.contains(message), "{}", ran.err);
    assert!(!sandbox.path("out").exists());
    // Without a look at bytes it isn't known, and said.
    let ran = sandbox.run(&["plan", "ranks", "--rules", "meta_llama"]);
    assert_eq!(ran.code, 0);
    assert!(ran.err.contains("RG322") && ran.err.contains("not compared here"), "{}", ran.err);
    let ran = sandbox.run(&["plan", "ranks", "--rules", "meta_llama", "--compare"]);
    assert_eq!(ran.code, 1);
}

#[test]
fn what_ranks_hold_alike_is_no_disagreement() {
    let sandbox = llama(8, false, 2);
    let ran = sandbox.run(&["ties", "ranks", "--rules", "meta_llama"]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("0.norm.weight = 1.norm.weight"), "{}", ran.out);
    assert!(ran.out.contains("disagreements: none"), "{}", ran.out);
}

#[test]
fn files_of_ranks_make_a_directory_of_whole_files() {
    let sandbox = llama(8, false, 2);
    let back = ["apply", "hub", "--rules", "meta_llama", "--reverse", "--set", "ranks=2"];
    let run = |more: &[&str]| sandbox.run(&[&back[..], more].concat());
    for (more, code, why) in [
        (&["-o", "one.safetensors"][..], 3, "the files of ranks are not written as one file"),
        (&["-o", "out", "--max-shard-size", "1MB"], 2, "--max-shard-size can't part it"),
        (&["--in-place"], 3, "the files of ranks are new files"),
    ] {
        let ran = run(more);
        assert_eq!(ran.code, code, "{more:?}: {}", ran.err);
        assert!(ran.err.contains(why), "{more:?}: {}", ran.err);
    }
    let mut more = hub(8);
    more.insert("other".to_owned(), tensor("other", &[2]));
    sandbox.checkpoint("hub/model.safetensors", &more);
    let ran = run(&["-o", "out"]);
    assert_eq!(ran.code, 3);
    assert!(ran.err.contains("key \"other\": the key belongs to no rank's file"), "{}", ran.err);
    assert!(!sandbox.path("out").exists());
    // How many is a parameter.
    let ran = sandbox.run(&["apply", "hub", "-o", "out", "--rules", "meta_llama", "--reverse"]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("RG213") && ran.err.contains("--set ranks="), "{}", ran.err);
}

#[test]
fn checksums_of_ranks_tell_equal_keys_apart() {
    let sandbox = llama(8, false, 2);
    let back = ["apply", "hub", "-o", "out", "--rules", "meta_llama", "--reverse"];
    let ran = sandbox.run(&[&back[..], &["--set", "ranks=2", "--checksums"]].concat());
    assert_eq!(ran.code, 0, "{}", ran.err);
    let ran = sandbox.run(&["verify", "out"]);
    assert_eq!((ran.code, ran.out.starts_with("2 files as their checksums say")), (0, true));
    let file = sandbox.path("out/consolidated.01.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let ran = sandbox.run(&["verify", "out"]);
    assert_eq!(ran.code, 1);
    let told: Vec<&str> =
        ran.out.lines().chain(ran.err.lines()).filter(|line| line.contains("differs")).collect();
    assert_eq!(told.len(), 2, "the file, and one tensor: {told:?}");
    assert!(told.iter().all(|line| line.contains("consolidated.01.safetensors")), "{told:?}");
}

/// Two files with one key, and rules that join it.
fn pair() -> Sandbox {
    let sandbox = Sandbox::new();
    for rank in ["a", "b"] {
        let tensors = [("w".to_owned(), tensor(rank, &[2, 3]))].into();
        sandbox.checkpoint(&format!("{rank}.safetensors"), &tensors);
    }
    sandbox.write("join.graft", "map \"rank{r: 0..2}.w\" -> \"w\" via concat(0, over r)\n");
    sandbox
}

#[test]
fn a_name_stands_before_the_keys_of_a_file() {
    let sandbox = pair();
    let named = ["rank0=a.safetensors", "rank1=b.safetensors"];
    let apply = ["apply", named[0], named[1], "-o", "out", "--rules", "join.graft"];
    let ran = sandbox.run(&apply);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let whole = [tensor("a", &[2, 3]).1, tensor("b", &[2, 3]).1].concat();
    assert_eq!(sandbox.tensors("out"), [("w".to_owned(), (vec![4, 3], whole))].into());

    let listed = sandbox.run(&["inspect", named[0], named[1], "--all"]);
    assert!(listed.out.contains("rank0.w ") && listed.out.contains("rank1.w "), "{}", listed.out);
    assert_eq!(sandbox.run(&["ties", named[0], named[1]]).code, 0);
    assert_eq!(sandbox.run(&["detect", named[0], named[1]]).code, 1);
    let drawn = sandbox.run(&["graph", named[0], named[1], "--rules", "join.graft"]);
    assert!(drawn.out.contains("rank"), "{}", drawn.out);
    let ran = sandbox.run(&["diff", "x=a.safetensors", "x=b.safetensors"]);
    assert!(ran.out.contains("x.w"), "{}", ran.out);
    let ran = sandbox.run(&["explain", "rank0=a.safetensors", "rank0.w", "--rules", "join.graft"]);
    assert!(ran.out.contains("rank0.w"), "{}{}", ran.out, ran.err);

    // A manifest, a directory, and names of several segments.
    sandbox.write("b.json", r#"{"w": ["F32", [2, 3]]}"#);
    let ran =
        sandbox.run(&["plan", "rank0=a.safetensors", "rank1=b.json", "--rules", "join.graft"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let ran = sandbox.run(&["inspect", "a.b=out", "--all"]);
    assert!(ran.out.contains("a.b.w "), "{}", ran.out);
}

#[test]
fn files_with_equal_keys_are_refused_with_a_way_out() {
    let sandbox = pair();
    let ran = sandbox.run(&["plan", "a.safetensors", "b.safetensors", "--rules", "join.graft"]);
    assert_eq!(ran.code, 3);
    assert!(ran.err.contains("key \"w\": the key is in ./a.safetensors too"), "{}", ran.err);
    assert!(ran.err.contains("rank0=FILE rank1=FILE"), "{}", ran.err);
    // So are those of a directory.
    let ran = sandbox.run(&["inspect", "."]);
    assert_eq!(ran.code, 3);
    assert!(ran.err.contains("rank0=FILE rank1=FILE"), "{}", ran.err);
}

#[test]
fn names_that_name_nothing_are_refused() {
    let sandbox = pair();
    for (argument, code, why) in [
        ("rank0=", 2, "`rank0=` names no file"),
        ("=a.safetensors", 2, "can't stand before a key"),
        ("a..b=a.safetensors", 2, "can't stand before a key"),
        ("rank0=c.safetensors", 3, "c.safetensors: cannot open"),
        // No name has a slash, so this is a path.
        ("x/rank0=a.safetensors", 3, "x/rank0=a.safetensors: cannot open"),
    ] {
        let ran = sandbox.run(&["inspect", argument]);
        assert_eq!(ran.code, code, "{argument}: {}", ran.err);
        assert!(ran.err.contains(why), "{argument}: {}", ran.err);
    }
    let ran = sandbox.run(&["inspect", "x=a.safetensors", "x=b.safetensors"]);
    assert_eq!(ran.code, 3);
    assert!(ran.err.contains("the name `x` is given twice"), "{}", ran.err);
}

#[test]
fn what_is_there_with_a_sign_in_its_name_is_a_path() {
    let sandbox = pair();
    std::fs::copy(sandbox.path("a.safetensors"), sandbox.path("x=b.safetensors")).unwrap();
    let ran = sandbox.run(&["diff", "x=b.safetensors", "a.safetensors"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "equal: 1 key byte for byte\n"));
    let ran = sandbox.run(&["inspect", "x=./b.safetensors", "--all"]);
    assert!(ran.out.contains("x.w "), "{}", ran.out);
}

#[test]
fn named_files_are_not_changed_in_place() {
    let sandbox = pair();
    sandbox.write("r.graft", "rename \"x.w\" <-> \"v\"\n");
    let ran = sandbox.run(&["apply", "x=a.safetensors", "--rules", "r.graft", "--in-place"]);
    assert_eq!(ran.code, 3);
    assert!(ran.err.contains("read with names before them"), "{}", ran.err);
    let ran = sandbox.run(&["plan", "x=a.safetensors", "--rules", "r.graft"]);
    assert!(ran.code == 0 && !ran.out.contains("in-place"), "{}", ran.out);
}

#[test]
fn a_rule_file_says_how_files_of_ranks_are_named() {
    let sandbox = pair();
    std::fs::create_dir(sandbox.path("ckpt")).unwrap();
    for (from, to) in [("a", "ckpt/rank0.safetensors"), ("b", "ckpt/rank1.safetensors")] {
        std::fs::rename(sandbox.path(&format!("{from}.safetensors")), sandbox.path(to)).unwrap();
    }
    sandbox.checkpoint("ckpt/other.safetensors", &[("w".to_owned(), tensor("c", &[1]))].into());
    sandbox.write("base.graft", "shards {r: 0..n} in \"rank{r:0}.pt\"\nlet n\nmap \"{r: 0..n}.w\" <-> \"v\" via concat(0, over r)\n");
    sandbox.write("user.graft", "use \"base.graft\"\nrename \"v\" <-> \"whole\"\n");
    let ran = sandbox.run(&["apply", "ckpt", "-o", "out", "--rules", "user.graft"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains("ckpt/other.safetensors is no part of the checkpoint"), "{}", ran.err);
    let whole = [tensor("a", &[2, 3]).1, tensor("b", &[2, 3]).1].concat();
    assert_eq!(sandbox.tensors("out"), [("whole".to_owned(), (vec![4, 3], whole))].into());
    let back = ["apply", "out", "-o", "back", "--rules", "user.graft", "--reverse", "--set", "n=4"];
    let ran = sandbox.run(&back);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let names = ["rank0", "rank1", "rank2", "rank3"].map(|name| format!("{name}.safetensors"));
    assert_eq!(files(&sandbox, "back"), names);
    let first = one(&sandbox, "back/rank0.safetensors", "x");
    assert_eq!(first["w"], picked(&tensor("a", &[2, 3]), &[0], 0..3));
    // Where no file is named so, that is said.
    let ran = sandbox.run(&["plan", "out", "--rules", "user.graft"]);
    assert!(ran.err.contains("no file of out is named rank{…}.pt"), "{}", ran.err);
}

#[test]
fn two_rule_files_that_name_files_differently_are_refused() {
    let sandbox = llama(8, false, 2);
    sandbox.write("other.graft", "shards {r} in \"rank{r}.pt\"\n");
    let ran = sandbox.run(&["plan", "ranks", "--rules", "other.graft,meta_llama"]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("two rule files name the files of ranks differently"), "{}", ran.err);
}
