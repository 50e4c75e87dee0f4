//! Conversions as a Rust program asks for them: what is found beside a checkpoint, what is given,
//! what is written, and how each way of failing is told.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use regraft::check::value::Value;
use regraft::config::Config;
use regraft::conversion::{Choice, Conversion, Goal, GoalError, Output, Planned};
use regraft::diagnostic::{Diagnostics, codes};
use regraft::error::{Error, ErrorKind};
use regraft::execute::{PatchOptions, Rank, WriteOptions};
use regraft::key::Key;
use regraft::plan::{Answer, RECORD_FILE, Verdict};
use regraft::store::{OpenOptions, StateDict, Store as _, open, safetensors_header};
use regraft::tensor::{Dtype, Header, TensorInfo, Wanted};
use regraft::{Direction, Failure, compile};

const EMBED: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";
const TIED: &str = r#"{"model_type": "llama", "tie_word_embeddings": true}"#;

/// A folder with files of tensors, each a row of eight bytes.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    fn tensors(&self, name: &str, tensors: &[(&str, u8)]) -> PathBuf {
        let row = TensorInfo::new(Dtype::F32, vec![2]);
        let infos: Vec<(Key, TensorInfo)> =
            tensors.iter().map(|(key, _)| (Key::from(*key), row.clone())).collect();
        let (mut bytes, _) = safetensors_header(&infos, &BTreeMap::new()).unwrap();
        bytes.extend(tensors.iter().flat_map(|(_, byte)| [*byte; 8]));
        let path = self.text(name, "");
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

/// Key -> the byte that its tensor is full of.
fn read(path: &Path) -> BTreeMap<String, u8> {
    let found = open(path, &OpenOptions::default()).unwrap();
    let byte = |key: &Key| {
        let mut bytes = [0; 8];
        found.read_at(key, 0, &mut bytes).unwrap();
        assert!(bytes.iter().all(|byte| *byte == bytes[0]), "{key}");
        (key.to_string(), bytes[0])
    };
    found.header().tensors.keys().map(byte).collect()
}

fn pairs<const N: usize>(pairs: [(&str, u8); N]) -> BTreeMap<String, u8> {
    pairs.map(|(key, byte)| (key.to_owned(), byte)).into()
}

fn keys(planned: &Planned) -> Vec<String> {
    planned.plan.targets.iter().map(|target| target.key.to_string()).collect()
}

fn world<T>(result: Result<T, Failure>) -> Error {
    match result {
        Err(Failure::World(error)) => error,
        Err(Failure::Rules(diagnostics)) => panic!("not the world: {diagnostics}"),
        Ok(_) => panic!("it worked"),
    }
}

fn rules<T>(result: Result<T, Failure>) -> Diagnostics {
    match result {
        Err(Failure::Rules(diagnostics)) => diagnostics,
        Err(Failure::World(error)) => panic!("not the rules: {error}"),
        Ok(_) => panic!("it worked"),
    }
}

fn codes_of(diagnostics: &[regraft::diagnostic::Diagnostic]) -> Vec<codes::Code> {
    diagnostics.iter().map(|diagnostic| diagnostic.code).collect()
}

#[test]
fn what_lies_beside_decides_and_what_is_given_wins() {
    let folder = Folder::new();
    folder.tensors("m/model.safetensors", &[(EMBED, 1)]);
    folder.text("m/config.json", TIED);
    let conversion = || Conversion::open(folder.path("m")).unwrap();

    let planned = conversion().plan().unwrap();
    assert_eq!(keys(&planned), [HEAD, EMBED], "tied by the config beside");
    let untied = Config::from_value(serde_json::json!({"model_type": "llama"}));
    let planned = conversion().config(untied.clone()).plan().unwrap();
    assert_eq!(keys(&planned), [EMBED], "the config that is given");
    let planned = conversion().config(untied).tied(true).plan().unwrap();
    assert_eq!(keys(&planned), [HEAD, EMBED], "the flag, whatever a config says");

    let prepared = conversion().prepare().unwrap();
    assert_eq!(prepared.choice, Choice::ByConfig);
    assert_eq!(prepared.config.model_type(), Some("llama"));
}

#[test]
fn the_choice_of_rules_says_why() {
    let folder = Folder::new();
    folder.tensors("m/model.safetensors", &[("a", 1)]);
    let choice = |conversion: Conversion| conversion.prepare().unwrap().choice;
    let open = || Conversion::open(folder.path("m")).unwrap();
    assert_eq!(choice(open()), Choice::NothingKnown);
    assert_eq!(choice(open().to("model")), Choice::NoConfig);
    assert_eq!(choice(open().rules([])), Choice::Named);
    folder.text("m/config.json", r#"{"model_type": "nobody"}"#);
    assert_eq!(choice(open()), Choice::NoRules { model_type: Some("nobody".to_owned()) });
    // Asked before everything else is known, it reads what lies beside.
    assert_eq!(open().choice().unwrap(), Choice::NoRules { model_type: Some("nobody".to_owned()) });
}

#[test]
fn what_has_the_name_of_a_config_and_is_no_file_is_not_passed_over() {
    let folder = Folder::new();
    folder.tensors("m/model.safetensors", &[("a", 1)]);
    for name in ["config.json", RECORD_FILE] {
        std::os::unix::fs::symlink("nowhere", folder.path("m").join(name)).unwrap();
        let error = world(Conversion::open(folder.path("m")).unwrap().prepare());
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.file().unwrap().ends_with(name), "{error}");
        std::fs::remove_file(folder.path("m").join(name)).unwrap();
    }
    Conversion::open(folder.path("m")).unwrap().prepare().unwrap();
}

#[test]
fn rules_are_named_loaded_or_checked_and_read_either_way() {
    let folder = Folder::new();
    let source = folder.tensors("m.safetensors", &[("a.w", 1)]);
    let file = folder.text("r.graft", "ruleset r: left <-> right\nrename \"a.**\" <-> \"b.**\"\n");
    let open = || Conversion::open(&source).unwrap();
    let load = || open().load([file.to_str().unwrap()]).unwrap();
    assert_eq!(keys(&load().plan().unwrap()), ["b.w"]);
    assert_eq!(keys(&load().to("right").plan().unwrap()), ["b.w"]);
    // A layout that is left already: the rules are read the other way, and find nothing.
    let planned = load().to("left").plan().unwrap();
    assert_eq!(
        (keys(&planned), planned.plan.verdict),
        (vec!["a.w".into()], Some(Verdict::Already))
    );
    assert_eq!(planned.route.describe(), [("r".to_owned(), Direction::Reverse)]);

    let two = ["rename \"a.**\" <-> \"b.**\"", "rename \"b.**\" <-> \"c.**\""];
    let two = || two.map(|text| compile(text).unwrap());
    assert_eq!(keys(&open().rules(two()).plan().unwrap()), ["c.w"]);
    let source = folder.tensors("c.safetensors", &[("c.w", 1)]);
    let back = Conversion::open(source).unwrap().rules(two()).reverse(true).plan().unwrap();
    assert_eq!(keys(&back), ["a.w"], "the last first");

    assert!(codes_of(&rules(open().load(["no_such"])).0).contains(&codes::UNKNOWN_RULES));
    let unknown = rules(load().to("nowhere").prepare());
    assert_eq!(codes_of(&unknown.0), [codes::UNKNOWN_LAYOUT]);
    assert_eq!(
        world(open().load([folder.path("no.graft").to_str().unwrap()])).kind(),
        ErrorKind::Io
    );
}

#[test]
fn without_rules_backwards_leads_from_the_model_to_the_hub() {
    let folder = |config: &str| {
        let folder = Folder::new();
        folder.tensors("m/model.safetensors", &[(EMBED, 1), (HEAD, 1)]);
        folder.text("m/config.json", config);
        folder
    };
    let tied = folder(TIED);
    let open = || Conversion::open(tied.path("m")).unwrap();
    // Saving leaves out what is tied, and equal.
    let saved = open().reverse(true).plan().unwrap();
    assert_eq!(keys(&saved), [EMBED]);
    assert_eq!(keys(&open().from("model").plan().unwrap()), [EMBED]);
    // Backwards, what is asked for is where the checkpoint comes from.
    assert_eq!(keys(&open().reverse(true).to("model").plan().unwrap()), [EMBED]);
}

#[test]
fn a_layout_that_no_rule_led_to_is_a_finding() {
    // As Meta publishes them; the config says nothing of a model that has such keys.
    let keys = ["tok_embeddings.weight", "layers.0.attention.wq.weight", "norm.weight"];
    let row = || TensorInfo::new(Dtype::F32, vec![2]);
    let header = Arc::new(Header::from_infos(keys.map(|key| (Key::from(key), row()))));
    let config = || Config::from_value(serde_json::json!({"model_type": "nobody"}));
    let no_way = |conversion: Conversion| {
        let planned = conversion.config(config()).plan().unwrap();
        codes_of(&planned.plan.findings).contains(&codes::NO_WAY)
    };
    let open = || Conversion::of_header(Arc::clone(&header));
    assert!(no_way(open().to("hub").from("model")));
    assert!(!no_way(open()), "nobody asked for a layout");
    // A target says itself whether it is met, and whoever names rules knows where they lead.
    let wanted = Wanted::from(&*header);
    assert!(!no_way(open().to("hub").from("model").target(Goal::whole(wanted))));
    assert!(!no_way(open().rules([])));
}

#[test]
fn parameters_are_given_and_known() {
    let folder = Folder::new();
    let source = folder.tensors("m.safetensors", &[("a.0", 1), ("a.1", 2)]);
    let open = || {
        let text = "let n\nrename \"a.{i:0..n}\" <-> \"b.{i}\"";
        Conversion::open(&source).unwrap().rules([compile(text).unwrap()])
    };
    assert_eq!(keys(&open().set("n", Value::Int(2)).plan().unwrap()), ["b.0", "b.1"]);
    // The last one given stands.
    let twice = open().set("n", Value::Int(2)).set("n", Value::Int(1)).plan().unwrap();
    assert_eq!(keys(&twice), ["a.1", "b.0"]);
    assert_eq!(twice.record().parameters["n"], "1");
    let unknown = rules(open().set("n", Value::Int(1)).set("m", Value::Int(1)).plan());
    assert_eq!(codes_of(&unknown.0), [codes::UNKNOWN_NAME]);
}

#[test]
fn a_target_is_met_or_a_part_of_one() {
    let folder = Folder::new();
    let source = folder.tensors("m.safetensors", &[("a", 1), ("b", 2), ("c", 3)]);
    let open = || Conversion::open(&source).unwrap().rules([]);
    let wanted = |keys: &[&str]| Wanted::from_keys(keys.iter().map(|key| Key::from(*key)));

    rules(open().target(Goal::whole(wanted(&["a", "b"]))).plan());
    let lax = open().target(Goal::whole(wanted(&["a", "b"]))).strict(false).plan().unwrap();
    assert_eq!(keys(&lax), ["a", "b"]);
    let stage = open().target(Goal::stage(wanted(&["a"]))).plan().unwrap();
    assert_eq!((keys(&stage), stage.rank()), (vec!["a".to_owned()], None));

    let stages = || vec![wanted(&["a", "b"]), wanted(&["c"])];
    let second = Goal::ranked(stages(), Rank::new(1, 2).unwrap()).unwrap();
    let planned = open().target(second).plan().unwrap();
    assert_eq!((keys(&planned), planned.rank()), (vec!["c".to_owned()], Rank::new(1, 2).ok()));
    // What no stage knows is unexpected.
    let some = Goal::ranked(vec![wanted(&["a"]), wanted(&["b"])], Rank::new(0, 2).unwrap());
    rules(open().target(some.unwrap()).plan());
}

#[test]
fn stages_that_make_no_target_are_refused() {
    let wanted = |rows: u64| {
        let info = TensorInfo::new(Dtype::F32, vec![rows]);
        Wanted { keys: [(Key::from("a"), Some(info))].into_iter().collect() }
    };
    let few = Goal::ranked(vec![wanted(1)], Rank::new(0, 2).unwrap()).unwrap_err();
    assert_eq!(few.to_string(), "there are 1 targets for 2 ranks: give one for each");
    let disagree = Goal::ranked(vec![wanted(1), wanted(2)], Rank::new(0, 2).unwrap());
    assert!(matches!(disagree, Err(GoalError::Disagree(found)) if *found.key == *"a"));
    let gone = Goal::read_ranked(&["no", "no"], Rank::new(0, 2).unwrap());
    assert!(matches!(gone, Err(GoalError::World(error)) if error.kind() == ErrorKind::Io));
    // Before anything is read.
    let few = Goal::read_ranked(&["no"], Rank::new(0, 2).unwrap());
    assert!(matches!(few, Err(GoalError::Ranks { stages: 1, world_size: 2 })));
}

#[test]
fn bytes_are_compared_only_where_a_tie_asks() {
    let folder = Folder::new();
    folder.tensors("m/model.safetensors", &[(EMBED, 1), (HEAD, 1), ("model.norm.weight", 1)]);
    folder.text("m/config.json", TIED);
    let prepared = Conversion::open(folder.path("m")).unwrap().prepare().unwrap();
    let planned = prepared.plan().unwrap();
    assert_eq!(planned.bytes_compared, 16, "two tensors, not three");
    let [(asked, found)] = &planned.compared[..] else { panic!("{:?}", planned.compared) };
    assert_eq!(*found, Answer::Equal);
    assert_eq!([&asked.a, &asked.b].map(|key| **key == *HEAD || **key == *EMBED), [true; 2]);

    let unread = prepared.plan_by_headers().unwrap();
    assert_eq!(unread.bytes_compared, 0);
    let [(not_compared, Answer::Unknown)] = &unread.compared[..] else { panic!() };
    assert_eq!(not_compared, asked);
    assert_eq!(unread.plan.questions, [], "nobody is going to answer");

    // Whoever has the bytes answers; and what an answer fails with is no tie that is not made.
    let mut asked = 0;
    let planned = prepared.plan_answering(|_| {
        asked += 1;
        Ok::<_, Error>(Answer::Differ(3))
    });
    assert_eq!(asked, 1);
    assert_eq!(planned.unwrap().unwrap().compared[0].1, Answer::Differ(3));
    let failed = prepared.plan_answering(|_| Err("no light")).map(drop);
    assert_eq!(failed, Err("no light"));
}

#[test]
fn bytes_that_cannot_be_read_are_a_failure_of_the_world() {
    let folder = Folder::new();
    let file = folder.tensors("m/model.safetensors", &[(EMBED, 1), (HEAD, 1)]);
    folder.text("m/config.json", TIED);
    let prepared = Conversion::open(folder.path("m")).unwrap().prepare().unwrap();
    std::fs::write(file, "short").unwrap();
    let error = world(prepared.plan());
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

#[test]
fn files_are_written_with_what_lies_beside_and_never_over_their_source() {
    let folder = Folder::new();
    folder.tensors("m/model.safetensors", &[("a.w", 1), ("a.b", 2)]);
    folder.text("m/config.json", r#"{"x": 1}"#);
    folder.text("m/tokenizer.json", "{}");
    let planned = Conversion::open(folder.path("m"))
        .unwrap()
        .rules([compile("rename \"a.**\" <-> \"b.**\"").unwrap()])
        .plan()
        .unwrap();
    let report = planned.write(folder.path("out")).unwrap();
    assert!(report.complete);
    assert_eq!(read(&folder.path("out")), pairs([("b.b", 2), ("b.w", 1)]));
    assert_eq!(std::fs::read(folder.path("out/tokenizer.json")).unwrap(), b"{}");
    assert!(!folder.path("out").join(RECORD_FILE).exists(), "a record is asked for");

    let mut bare = Output::default();
    bare.side_files = false;
    planned.write_with(folder.path("bare"), bare).unwrap();
    assert!(!folder.path("bare/tokenizer.json").exists());

    let exists = planned.write(folder.path("out")).unwrap_err();
    assert_eq!(exists.kind(), ErrorKind::Exists);
    let force = Output::new(WriteOptions { force: true, ..WriteOptions::default() });
    for inside in ["m", "m/deeper"] {
        let error = planned.write_with(folder.path(inside), force.clone()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exists, "{inside}: {error}");
    }
    assert_eq!(read(&folder.path("m")), pairs([("a.b", 2), ("a.w", 1)]));
}

#[test]
fn a_record_turns_back_what_rules_alone_cannot() {
    let folder = Folder::new();
    folder.tensors("m/model.safetensors", &[("old.w", 1), ("new.b", 2)]);
    folder.text("m/tokenizer.json", "{}");
    let open = |name: &str| {
        let rules = compile("rename \"old.**\" -> \"new.**\"").unwrap();
        Conversion::open(folder.path(name)).unwrap().rules([rules])
    };
    let planned = open("m").plan().unwrap();
    let mut output = Output::default();
    output.record = true;
    planned.write_with(folder.path("out"), output).unwrap();
    assert_eq!(read(&folder.path("out")), pairs([("new.b", 2), ("new.w", 1)]));

    let back = open("out").reverse(true).plan().unwrap();
    assert_eq!(keys(&back), ["new.b", "old.w"]);
    back.write(folder.path("back")).unwrap();
    assert!(!folder.path("back").join(RECORD_FILE).exists(), "it tells of another conversion");
    assert!(folder.path("back/tokenizer.json").exists());

    // Given by hand, where none lies beside; and a damaged one is no missing one.
    std::fs::remove_file(folder.path("out").join(RECORD_FILE)).unwrap();
    rules(open("out").reverse(true).plan());
    let lossy = open("out").reverse(true).allow_lossy(true).plan().unwrap();
    assert_eq!(keys(&lossy), ["new.b", "new.w"]);
    let given = open("out").reverse(true).record(planned.record()).plan().unwrap();
    assert_eq!(keys(&given), ["new.b", "old.w"]);
    folder.text(&format!("out/{RECORD_FILE}"), "{}");
    assert_eq!(world(open("out").prepare()).kind(), ErrorKind::Corrupt);
}

/// What two processes saved of one tensor is as long as both parts, and files are one checkpoint.
#[test]
fn lengths_are_of_whole_tensors_and_counts_of_all_files() {
    let saved = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/dcp/mesh_2/ckpt");
    let whole = open(&saved, &OpenOptions::default()).unwrap().header().tensors["rows"].clone();
    let text = "let n = size(\"rows\", 0)\nmap \"rows\" -> \"flat\" via reshape([n, -1])";
    let planned = Conversion::open(&saved).unwrap().rules([compile(text).unwrap()]).plan();
    let planned = planned.unwrap();
    assert_eq!(
        planned.plan.info(planned.plan.target("flat").unwrap()).shape[0],
        whole.info.shape[0]
    );

    let folder = Folder::new();
    for (file, key) in [("m/a.safetensors", "0.w"), ("m/b.safetensors", "1.w")] {
        folder.tensors(file, &[(key, 1)]);
    }
    let index = r#"{"weight_map": {"0.w": "a.safetensors", "1.w": "b.safetensors"}}"#;
    folder.text("m/model.safetensors.index.json", index);
    let text =
        "let n = count(\"{l}.w\", l)\nmap \"{l: 0..n}.w\" -> \"w\" via stack(l) | reshape([n, -1])";
    let rules = compile(text).unwrap();
    let planned = Conversion::open(folder.path("m")).unwrap().rules([rules]).plan().unwrap();
    assert_eq!(planned.plan.info(planned.plan.target("w").unwrap()).shape[..], [2, 2]);
}

#[test]
fn in_place_only_headers_change() {
    let folder = Folder::new();
    let file = folder.tensors("m/model.safetensors", &[("a.w", 1)]);
    let rename = || compile("rename \"a.**\" <-> \"b.**\"").unwrap();
    let planned = Conversion::open(&file).unwrap().rules([rename()]).plan().unwrap();
    assert!(planned.lanes(&WriteOptions::default()).unwrap().in_place.is_some());
    planned.patch(&PatchOptions::default()).unwrap();
    assert_eq!(read(&file), pairs([("b.w", 1)]));
}

#[test]
fn tensors_in_memory_are_converted_and_shared() {
    let folder = Folder::new();
    let file = folder.tensors("m.safetensors", &[("a.w", 7)]);
    let source = open(&file, &OpenOptions::default()).unwrap();
    let mut state = StateDict::default();
    state.insert(Key::from("a.w"), source.view("a.w").unwrap());
    let state = Arc::new(state);
    let rename = compile("rename \"a.**\" <-> \"b.**\"").unwrap();
    let planned = Conversion::of_store(state.clone()).rules([rename]).plan().unwrap();
    let views = planned.views().unwrap();
    assert!(views.tensors["b.w"].same_tensor(&state.view("a.w").unwrap()));
    planned.write(folder.path("out")).unwrap();
    assert_eq!(read(&folder.path("out")), pairs([("b.w", 7)]));
    let error = planned.patch(&PatchOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
fn headers_alone_are_planned_and_not_carried_out() {
    let folder = Folder::new();
    let manifest = folder.text("m.json", r#"{"a.w": ["F32", [2]]}"#);
    let row = TensorInfo::new(Dtype::F32, vec![2]);
    let header = Header::from_infos([(Key::from("a.w"), row)]);
    let of_manifest = Conversion::open(manifest).unwrap();
    for conversion in [of_manifest, Conversion::of_header(Arc::new(header))] {
        let rename = compile("rename \"a.**\" <-> \"b.**\"").unwrap();
        let prepared = conversion.rules([rename]).prepare().unwrap();
        assert!(!prepared.has_bytes());
        let planned = prepared.plan().unwrap();
        assert_eq!(keys(&planned), ["b.w"]);
        let errors = [
            planned.views().map(drop).unwrap_err(),
            planned.write(folder.path("out")).map(drop).unwrap_err(),
            planned.patch(&PatchOptions::default()).map(drop).unwrap_err(),
        ];
        assert!(errors.iter().all(|error| error.kind() == ErrorKind::Unsupported), "{errors:?}");
        assert!(errors.iter().all(|error| error.advice().is_some()));
    }
    assert!(!folder.path("out").exists());
}

#[test]
fn several_paths_are_one_checkpoint() {
    let folder = Folder::new();
    let paths = [
        folder.tensors("a.safetensors", &[("a", 1)]),
        folder.tensors("b.safetensors", &[("b", 2)]),
    ];
    let all = Conversion::open_all(&paths, &OpenOptions::default()).unwrap();
    all.rules([]).plan().unwrap().write(folder.path("out")).unwrap();
    assert_eq!(read(&folder.path("out")), pairs([("a", 1), ("b", 2)]));
    let none = Conversion::open(folder.path("none")).map(drop).unwrap_err();
    assert_eq!(none.kind(), ErrorKind::Io);
}

#[test]
fn a_file_for_each_rank_and_layer_is_read_and_written() {
    let folder = Folder::new();
    for (layer, rank) in [(1, 0), (1, 1), (3, 0), (3, 1)] {
        let file = format!("m/layer_{layer:02}-model_{rank:02}-model_states.safetensors");
        folder.tensors(&file, &[("norm", layer), ("w", 10 * layer + rank)]);
    }
    // It is of no layer.
    folder.tensors("m/mp_rank_00_model_states.safetensors", &[("step", 7)]);
    let text = "shards {r: 0..n} in \"layer_{l}-model_{r}-model_states.pt\"\nlet n\n\
                map \"{r: 0..n}.{l+1}.norm\" <-> \"h.{l}.norm\" via same(over r)\n\
                map \"{r: 0..n}.{l+1}.w\" <-> \"h.{l}.w\" via stack(r)";
    let open = |name: &str| {
        let conversion = Conversion::open(folder.path(name)).unwrap();
        conversion.rules([compile(text).unwrap()])
    };
    let planned = open("m").plan().unwrap();
    planned.write(folder.path("out")).unwrap();
    let out = regraft::store::open(folder.path("out"), &OpenOptions::default()).unwrap();
    let keys: Vec<&str> = out.header().tensors.keys().map(Key::as_str).collect();
    assert_eq!(keys, ["h.0.norm", "h.0.w", "h.2.norm", "h.2.w"]);
    for (key, expected) in [("h.0.w", [10, 11]), ("h.2.w", [30, 31])] {
        let mut bytes = [0; 16];
        out.read_at(&Key::from(key), 0, &mut bytes).unwrap();
        assert_eq!([bytes[0], bytes[8]], expected, "{key}");
    }

    let planned = open("out").reverse(true).set("n", Value::Int(2)).plan().unwrap();
    planned.write(folder.path("back")).unwrap();
    let mut names: Vec<String> = std::fs::read_dir(folder.path("back"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [(1, 0), (1, 1), (3, 0), (3, 1)].map(|(layer, rank)| format!(
            "layer_{layer:02}-model_{rank:02}-model_states.safetensors"
        ))
    );
    for name in names {
        assert_eq!(read(&folder.path("back").join(&name)), read(&folder.path("m").join(&name)));
    }

    // A layer that lacks a rank is no whole layer.
    let lost = "m/layer_03-model_01-model_states.safetensors";
    std::fs::remove_file(folder.path(lost)).unwrap();
    assert!(open("m").plan().is_err());
    folder.tensors(lost, &[("norm", 3), ("w", 31)]);
    // Two files of the same numbers can't both be meant.
    folder.tensors("m/layer_3-model_1-model_states.safetensors", &[("norm", 3), ("w", 31)]);
    let error = world(open("m").plan()).to_string();
    assert!(error.contains("rank 1.3 is there twice"), "{error}");
}

#[test]
fn rules_say_how_files_of_ranks_are_told_apart() {
    let folder = Folder::new();
    for (file, byte) in [("m/c.0.safetensors", 1), ("m/c.1.safetensors", 1)] {
        folder.tensors(file, &[("norm", byte)]);
    }
    let text = "shards {r: 0..n} in \"c.{r:0}.pth\"\nlet n\nmap \"{r: 0..n}.norm\" <-> \"norm\" via same(over r)";
    let open = |name: &str| {
        let conversion = Conversion::open(folder.path(name)).unwrap();
        conversion.rules([compile(text).unwrap()])
    };
    let planned = open("m").plan().unwrap();
    assert_eq!(planned.compared.len(), 1, "what is the same, bytes tell");
    assert_eq!(planned.rank_files(), None);
    planned.write(folder.path("out")).unwrap();
    assert_eq!(read(&folder.path("out")), pairs([("norm", 1)]));

    let planned = open("out").reverse(true).set("n", Value::Int(3)).plan().unwrap();
    assert_eq!(planned.rank_files().unwrap().name(&[2]), "c.2.safetensors");
    let files = planned.lanes(&WriteOptions::default()).unwrap().files;
    let report = planned.write(folder.path("back")).unwrap();
    let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["c.0.safetensors", "c.1.safetensors", "c.2.safetensors"]);
    assert_eq!(report.files, names);
    for name in names {
        assert_eq!(read(&folder.path("back").join(name)), pairs([("norm", 1)]));
    }
    // Without these rules they can't be told apart.
    let other = Conversion::open(folder.path("m")).unwrap().rules([]);
    assert_eq!(world(other.prepare()).kind(), ErrorKind::Corrupt);
}

/// Files named as Meta names those of ranks: which rules read them so is said.
#[test]
fn rules_for_files_of_ranks_are_named_where_none_are() {
    let ranks = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/meta_llama/ranks");
    let error = world(Conversion::open(ranks).unwrap().prepare());
    let advice = error.advice().unwrap();
    assert!(advice.contains("--rules meta_llama") && advice.contains("rank0=FILE"), "{advice}");
}

#[test]
fn what_a_rank_holds_once_its_own_file_says_and_no_other_has_it_for_it() {
    let folder = Folder::new();
    let row = TensorInfo::new(Dtype::F32, vec![2]);
    let infos = ["0.a", "1.a", "2.a"].map(|key| (Key::from(key), row.clone()));
    // Two heads that are one tensor with an embedding of their rank, and one with that of another.
    let says = [("0.b", "0.a"), ("1.b", "1.a"), ("2.b", "0.a"), ("step", "7")];
    let says: BTreeMap<String, String> =
        says.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let (mut bytes, _) = safetensors_header(&infos, &says).unwrap();
    bytes.extend([1, 2, 3].iter().flat_map(|byte| [*byte; 8]));
    std::fs::create_dir(folder.path("m")).unwrap();
    std::fs::write(folder.path("m/model.safetensors"), bytes).unwrap();

    let text = "shards {r: 0..3} in \"c.{r:0}.pth\"\nrename \"{r}.c\" <-> \"{r}.a\"";
    let rules = || [compile(text).unwrap()];
    let planned = Conversion::open(folder.path("m")).unwrap().rules(rules()).reverse(true).plan();
    planned.unwrap().write(folder.path("out")).unwrap();
    let file = |rank: u32| {
        let path = folder.path("out").join(format!("c.{rank}.safetensors"));
        let says = open(&path, &OpenOptions::default()).unwrap().header().metadata.clone();
        (read(&path), says)
    };
    let says = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    assert_eq!(file(0), (pairs([("c", 1)]), says(&[("b", "c"), ("step", "7")])));
    assert_eq!(file(1), (pairs([("c", 2)]), says(&[("b", "c"), ("step", "7")])));
    assert_eq!(file(2), (pairs([("b", 1), ("c", 3)]), says(&[("step", "7")])));

    let back = Conversion::open(folder.path("out")).unwrap().rules(rules()).plan().unwrap();
    assert_eq!(keys(&back), ["0.a", "0.b", "1.a", "1.b", "2.a", "2.b"]);
}
