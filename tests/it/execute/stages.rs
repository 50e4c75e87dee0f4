//! One stage of a pipeline: it reads what it needs, byte for byte, and is content with its part.

use std::collections::BTreeMap;
use std::path::Path;

use regraft::diagnostic::{Diagnostics, codes};
use regraft::execute::{Ties, WriteOptions, views, write};
use regraft::key::Key;
use regraft::library::{Route, load};
use regraft::plan::{Answer, Plan, PlanOptions, Question, Share, plan_asking};
use regraft::store::differing_bytes;
use regraft::store::{Checkpoint, Counted, OpenOptions, Store, open, safetensors_header};
use regraft::tensor::{Dtype, TensorInfo, Wanted};

use super::over::Over;

const EMBED: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

fn info(key: &str) -> TensorInfo {
    let shape: &[u64] = match key {
        EMBED | HEAD => &[32, 4],
        key if key.ends_with("norm.weight") => &[4],
        _ => &[4, 4],
    };
    TensorInfo::new(Dtype::F32, shape)
}

fn bytes(key: &str) -> u64 {
    info(key).nbytes().unwrap()
}

fn layer(layer: usize) -> [String; 2] {
    [
        format!("model.layers.{layer}.self_attn.q_proj.weight"),
        format!("model.layers.{layer}.input_layernorm.weight"),
    ]
}

/// Eight layers over four stages: the first has the embedding, the last the norm and the head.
fn stages() -> Vec<Wanted> {
    let keys = |stage: usize| {
        let mut keys: Vec<String> =
            [2 * stage, 2 * stage + 1].into_iter().flat_map(layer).collect();
        match stage {
            0 => keys.push(EMBED.to_owned()),
            3 => keys.extend(["model.norm.weight".to_owned(), HEAD.to_owned()]),
            _ => {}
        }
        keys
    };
    let wanted = |stage| Wanted {
        keys: keys(stage).iter().map(|key| (Key::from(key.as_str()), Some(info(key)))).collect(),
    };
    (0..4).map(wanted).collect()
}

/// A file of these keys, in which every tensor's bytes are different.
fn checkpoint(path: &Path, keys: &[String]) -> Checkpoint {
    let infos: Vec<(Key, TensorInfo)> =
        keys.iter().map(|key| (Key::from(key.as_str()), info(key))).collect();
    let (mut file, offsets) = safetensors_header(&infos, &BTreeMap::new()).unwrap();
    let start = file.len();
    for (at, ((_, info), offset)) in infos.iter().zip(offsets).enumerate() {
        let data = (0..info.nbytes().unwrap()).map(|byte| (byte as usize * 7 + at * 31) as u8);
        assert_eq!(file.len(), start + offset as usize, "one after the other");
        file.extend(data);
    }
    std::fs::write(path, file).unwrap();
    open(path, &OpenOptions::default()).unwrap()
}

fn tied_checkpoint(path: &Path) -> Checkpoint {
    let mut keys: Vec<String> = (0..8).flat_map(layer).collect();
    keys.insert(0, EMBED.to_owned());
    keys.push("model.norm.weight".to_owned());
    checkpoint(path, &keys)
}

/// Plans a stage over a store whose reads are counted.
fn planned(
    source: &Counted<'_>,
    whole: Option<&Wanted>,
    part: Share<'_>,
) -> Result<Plan, Diagnostics> {
    let route = Route::named(
        ["wrappers", "tied_lm_head"].map(|name| load(name).unwrap()).to_vec(),
        None,
        None,
        false,
    )
    .unwrap();
    let answer = |asked: &Question| {
        let differing = differing_bytes(source, &asked.a, &asked.b)?;
        Ok::<_, regraft::error::Error>(differing.map_or(Answer::Unknown, Answer::of_differing))
    };
    let options = PlanOptions { tied: Some(true), wanted: whole, part, ..PlanOptions::default() };
    plan_asking(&route.stages(), source.header(), &options, answer).unwrap()
}

fn data(checkpoint: &Checkpoint, key: &str) -> Vec<u8> {
    checkpoint.view(key).unwrap().to_vec()
}

#[test]
fn each_stage_reads_its_own_bytes_and_no_others() {
    let directory = tempfile::tempdir().unwrap();
    let source = tied_checkpoint(&directory.path().join("model.safetensors"));
    let (stages, layers) = (stages(), 2 * (bytes(&layer(0)[0]) + bytes(&layer(0)[1])));
    let whole = Wanted::join(&stages).unwrap();
    let expected =
        [layers + bytes(EMBED), layers, layers, layers + bytes("model.norm.weight") + bytes(EMBED)];
    for (rank, (stage, expected)) in stages.iter().zip(expected).enumerate() {
        for ties in [Ties::Alias, Ties::Materialize] {
            // Each byte is counted: the system copies none by itself.
            let through = Over { files: false, ..Over::new(&source) };
            let counted = Counted::new(&through);
            let plan = planned(&counted, Some(&whole), Share::Keys(stage)).unwrap();
            assert_eq!(counted.bytes_read(), 0, "stage {rank}: planning reads headers only");
            let out = directory.path().join(format!("stage{rank}-{ties:?}"));
            let report =
                write(&plan, &counted, &out, &WriteOptions { ties, ..WriteOptions::default() })
                    .unwrap();
            assert_eq!(counted.bytes_read(), expected, "stage {rank}");
            assert_eq!(report.bytes_read, expected, "stage {rank}: and says so");
            let written = open(&out, &OpenOptions::default()).unwrap();
            let mut keys: Vec<&Key> = written.header().tensors.keys().collect();
            let mut asked: Vec<&Key> = stage.keys.keys().collect();
            keys.sort_unstable();
            asked.sort_unstable();
            assert_eq!(keys, asked, "stage {rank}");
            for key in keys {
                let origin = if key.as_str() == HEAD { EMBED } else { key };
                assert_eq!(data(&written, key), data(&source, origin), "stage {rank}: {key}");
            }
            // Of the embedding, which is the head's, nothing is left over; the rest is others'.
            let report = plan.report.unwrap();
            assert!(report.missing.is_empty() && report.unexpected.is_empty());
            assert_eq!(report.elsewhere.len(), whole.keys.len() - stage.keys.len());
            assert!(plan.findings.iter().all(|finding| !finding.is_error()));
        }
    }
}

#[test]
fn in_memory_the_head_of_the_last_stage_is_the_embedding() {
    let directory = tempfile::tempdir().unwrap();
    let source = tied_checkpoint(&directory.path().join("model.safetensors"));
    let stages = stages();
    let whole = Wanted::join(&stages).unwrap();
    let counted = Counted::new(&source);
    let plan = planned(&counted, Some(&whole), Share::Keys(&stages[3])).unwrap();
    let made = views(&plan, &counted).unwrap();
    assert!(!made.tensors.contains_key(EMBED));
    assert_eq!(made.tensors.len(), stages[3].keys.len());
    let embedding = source.view(EMBED).unwrap();
    assert_eq!(
        made.tensors[HEAD].data_ptr(),
        embedding.data_ptr(),
        "the same bytes of the mapped file"
    );
    assert_eq!(made.tensors[HEAD].info(), embedding.info());
    assert_eq!((counted.bytes_read(), made.report.bytes_read, made.report.bytes_copied), (0, 0, 0));
}

#[test]
fn a_stage_whose_neighbours_are_not_known_is_content() {
    let directory = tempfile::tempdir().unwrap();
    let source = tied_checkpoint(&directory.path().join("model.safetensors"));
    let counted = Counted::new(&source);
    let stage = &stages()[2];
    let plan = planned(&counted, Some(stage), Share::Open).unwrap();
    assert_eq!(plan.targets.len(), 4);
    let report = plan.report.unwrap();
    assert!(report.unexpected.is_empty());
    // The embedding, the norm, the head that is tied, and six layers of two tensors.
    assert_eq!(report.elsewhere.len(), 3 + 12);
    // The same manifest for a whole model knows too little.
    let refused = planned(&counted, Some(stage), Share::Whole).unwrap_err();
    assert!(
        refused.0.iter().any(|finding| finding.code == codes::UNEXPECTED_KEY && finding.is_error())
    );
}

#[test]
fn what_no_stage_knows_and_what_this_one_lacks_stop() {
    let directory = tempfile::tempdir().unwrap();
    let mut keys: Vec<String> =
        (0..8).flat_map(layer).filter(|key| !key.contains("layers.5.self_attn")).collect();
    keys.extend([EMBED.to_owned(), "model.norm.weight".to_owned()]);
    let source = checkpoint(&directory.path().join("lacking.safetensors"), &keys);
    let (stages, counted) = (stages(), Counted::new(&source));
    let whole = Wanted::join(&stages).unwrap();
    let codes_of = |rank: usize| -> Vec<_> {
        match planned(&counted, Some(&whole), Share::Keys(&stages[rank])) {
            Ok(_) => Vec::new(),
            Err(diagnostics) => diagnostics
                .0
                .iter()
                .filter(|finding| finding.is_error())
                .map(|finding| finding.code)
                .collect(),
        }
    };
    assert_eq!(codes_of(2), [codes::MISSING_KEY], "layer 5 is stage 2's");
    assert_eq!(codes_of(1), [], "and no matter of stage 1");

    keys.push("model.layers.9.self_attn.q_proj.weight".to_owned());
    let source = checkpoint(&directory.path().join("more.safetensors"), &keys);
    let counted = Counted::new(&source);
    let refused = planned(&counted, Some(&whole), Share::Keys(&stages[1])).unwrap_err();
    let error = refused.0.iter().find(|finding| finding.is_error()).unwrap();
    assert_eq!(error.code, codes::UNEXPECTED_KEY);
    assert_eq!(error.keys, ["model.layers.9.self_attn.q_proj.weight"]);
}

/// With a head of its own in the checkpoint, whether it is the embedding's is a question for who
/// holds both.
#[test]
fn only_who_holds_both_compares() {
    let directory = tempfile::tempdir().unwrap();
    let mut keys: Vec<String> = (0..8).flat_map(layer).collect();
    keys.extend([EMBED.to_owned(), HEAD.to_owned(), "model.norm.weight".to_owned()]);
    let source = checkpoint(&directory.path().join("both.safetensors"), &keys);
    let stages = stages();
    let whole = Wanted::join(&stages).unwrap();
    for stage in &stages {
        let counted = Counted::new(&source);
        let plan = planned(&counted, Some(&whole), Share::Keys(stage)).unwrap();
        assert_eq!(counted.bytes_read(), 0);
        assert!(plan.findings.iter().all(|finding| finding.code != codes::TIE_DIFFERS));
        if stage.contains(HEAD) {
            let out = directory.path().join("last");
            write(&plan, &counted, &out, &WriteOptions::default()).unwrap();
            assert_eq!(
                data(&open(&out, &OpenOptions::default()).unwrap(), HEAD),
                data(&source, HEAD),
                "its own, not the embedding"
            );
        }
    }
    let counted = Counted::new(&source);
    let plan = planned(&counted, Some(&whole), Share::Whole).unwrap();
    assert_eq!(counted.bytes_read(), bytes(EMBED) + bytes(HEAD));
    let differs = plan.findings.iter().find(|finding| finding.code == codes::TIE_DIFFERS).unwrap();
    let differing =
        data(&source, EMBED).iter().zip(data(&source, HEAD)).filter(|(a, b)| *a != b).count();
    assert!(
        differs.message.ends_with(&format!("differs from it in {differing} bytes")),
        "{}",
        differs.message
    );
    assert_eq!(differs.keys, [HEAD, EMBED]);
}
