//! What is fuzzed, as plain functions: each takes bytes and panics on a finding.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use regraft::diagnostic::SourceText;
use regraft::execute::{WriteOptions, naive, views, write};
use regraft::key::Key;
use regraft::plan::{Plan, PlanOptions};
use regraft::store::{OpenOptions, StateDict, Store, Window, open, torch};
use regraft::syntax::{parse, print};
use regraft::tensor::{Dtype, Header, Storage, TensorInfo, TensorView};
use regraft::{Route, compile, plan as plan_by};

/// Inputs beyond this say nothing more.
const LONGEST: usize = 1 << 16;

/// Rule text never panics, and what parses is printed as text that parses to the same tree.
pub fn rules(data: &[u8]) {
    let Some(text) = std::str::from_utf8(data).ok().filter(|text| text.len() <= LONGEST) else {
        return;
    };
    let _ = compile(text);
    let parse =
        |text: &str| parse(Arc::new(SourceText { name: "fuzz".to_owned(), text: text.to_owned() }));
    let parsed = parse(text);
    if parsed.diagnostics.is_empty() {
        let printed = print(&parsed.file);
        let again = parse(&printed);
        assert!(again.diagnostics.is_empty(), "what was printed doesn't parse:\n{printed}");
        assert!(again.file == parsed.file, "what was printed means something else:\n{printed}");
    }
}

/// What is accepted as a safetensors file, the safetensors crate accepts with the same meaning.
pub fn header(data: &[u8]) {
    let Ok(dict) = StateDict::from_bytes(data.to_vec()) else { return };
    let theirs = match safetensors::SafeTensors::deserialize(data) {
        Ok(theirs) => theirs,
        Err(error) => panic!("accepted, but the safetensors crate says {error}"),
    };
    assert_eq!(theirs.len(), dict.header().tensors.len());
    for (key, view) in theirs.iter() {
        let ours = dict.get(key).unwrap_or_else(|| panic!("{key:?} is missing"));
        let shape: Vec<u64> = view.shape().iter().map(|n| *n as u64).collect();
        assert_eq!(&ours.info().shape[..], &shape[..], "{key:?}");
        assert_eq!(ours.to_vec(), view.data(), "{key:?}");
    }
}

/// A file that `torch.save` may have written: values name values that are there, and a tensor has
/// as many strides as dimensions.
pub fn torch(data: &[u8]) {
    let Ok(saved) = torch::read(Window::new(&data, data.len() as u64)) else { return };
    let count = saved.values.iter().count();
    assert!(count <= data.len(), "more values than bytes");
    let there = |id: &torch::Id| assert!(saved.values.get(*id).is_some(), "{id:?} isn't there");
    for (id, value) in saved.values.iter() {
        saved.values.tuple(id).iter().for_each(there);
        match value {
            torch::Value::List(ids) | torch::Value::Set(ids) => ids.iter().for_each(there),
            torch::Value::Dict(entries) => {
                entries.iter().for_each(|(key, value)| [key, value].into_iter().for_each(there));
            }
            torch::Value::Persistent(id) => there(id),
            torch::Value::Call(call) => {
                [call.function, call.arguments].iter().for_each(there);
                call.items.iter().chain(&call.state).for_each(there);
                call.entries
                    .iter()
                    .for_each(|(key, value)| [key, value].into_iter().for_each(there));
            }
            _ => {}
        }
    }
    for (id, meaning) in torch::Meanings::of(&saved.values).iter() {
        there(&id);
        if let torch::Meaning::Tensor(tensor) = meaning {
            assert_eq!(tensor.shape.len(), tensor.strides.len());
        }
    }
}

/// An index beside a shard: what opens has only keys that the shard has.
pub fn index(data: &[u8]) {
    static PLACE: OnceLock<tempfile::TempDir> = OnceLock::new();
    let place = PLACE.get_or_init(|| {
        let place = tempfile::tempdir().expect("a temporary directory");
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::U8, vec![2], &[1, 2])
            .expect("a tensor");
        let path = place.path().join("model-00001-of-00001.safetensors");
        safetensors::serialize_to_file([("a", view)], None, &path).expect("a shard");
        place
    });
    static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let path = place.path().join(format!("{number}.safetensors.index.json"));
    std::fs::write(&path, data).expect("an index");
    for strict in [true, false] {
        if let Ok(checkpoint) = open(&path, &OpenOptions { strict, ..OpenOptions::default() }) {
            for key in checkpoint.header().tensors.keys() {
                // A document may also be a manifest, which has no files.
                assert!(!checkpoint.has_bytes() || key.as_str() == "a", "{key:?} is in no shard");
            }
        }
    }
    let _ = std::fs::remove_file(&path);
}

/// A file of tensors of any format; a pickle alone is put into an archive beside some storages.
/// What is read has as many bytes as its shape says, and its plain values are JSON.
pub fn saved(data: &[u8]) {
    let bytes = if data.starts_with(b"\x80") { archive(data) } else { data.to_vec() };
    let slice = bytes.as_slice();
    let _ = torch::PlainValues::read(Window::new(&slice, bytes.len() as u64))
        .map(|values| serde_json::to_string(&values).expect("values are JSON"));
    for root in [None, Some(""), Some("state_dict.model")] {
        let Ok(dict) = StateDict::from_file("file", bytes.clone(), root) else { continue };
        for (key, view) in dict.iter() {
            let Some(len) = view.info().nbytes().filter(|len| *len <= LONGEST as u64) else {
                continue;
            };
            assert_eq!(view.to_vec().len() as u64, len, "{key:?}");
            let boxes = dict.boxes(key).expect("a tensor has boxes");
            assert_eq!(boxes.info(), view.info());
        }
        for keys in &dict.header().shared {
            assert!(keys.iter().all(|key| dict.get(key).is_some()), "{keys:?}");
        }
    }
}

/// An archive as `torch.save` writes it, without checksums: this pickle, and storages `0` to `3`.
fn archive(pickle: &[u8]) -> Vec<u8> {
    let storage: Vec<u8> = (0..64).collect();
    let members: Vec<(String, &[u8])> = std::iter::once(("a/data.pkl".to_owned(), pickle))
        .chain((0..4).map(|at| (format!("a/data/{at}"), &storage[..])))
        .collect();
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    let number = |len: usize| u32::try_from(len).expect("a short file").to_le_bytes();
    for (name, content) in &members {
        let start = number(bytes.len());
        let sizes = [number(content.len()), number(content.len())].concat();
        let name_len = [u8::try_from(name.len()).expect("a short name"), 0];
        bytes.extend(b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0\0\0\0\0");
        bytes.extend([&sizes[..], &name_len, b"\0\0", name.as_bytes(), content].concat());
        directory.extend(b"PK\x01\x02\x14\0\x14\0\0\0\0\0\0\0\0\0\0\0\0\0");
        directory.extend([&sizes[..], &name_len, &[0; 12], &start, name.as_bytes()].concat());
    }
    let (start, len) = (number(bytes.len()), number(directory.len()));
    bytes.extend(directory);
    bytes.extend(b"PK\x05\x06\0\0\0\0\x05\0\x05\0");
    bytes.extend([&len[..], &start, b"\0\0"].concat());
    bytes
}

/// `.metadata` of a checkpoint of several processes, beside a file of one: what opens is covered by
/// parts that are there.
pub fn metadata(data: &[u8]) {
    static PLACE: OnceLock<tempfile::TempDir> = OnceLock::new();
    static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let place = PLACE.get_or_init(|| tempfile::tempdir().expect("a directory"));
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let folder = place.path().join(number.to_string());
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::write(folder.join(".metadata"), data).expect("a file");
    std::fs::write(folder.join("__0_0.distcp"), PARTS).expect("a file");
    if let Ok(checkpoint) = open(&folder, &OpenOptions::default()) {
        for (key, entry) in &checkpoint.header().tensors {
            let Some(len) = entry.info.nbytes().filter(|len| *len <= LONGEST as u64) else {
                continue;
            };
            let mut bytes = vec![0; usize::try_from(len).expect("a short tensor")];
            checkpoint.read_at(key, 0, &mut bytes).expect("a tensor that was checked");
        }
    }
    std::fs::remove_dir_all(&folder).expect("a folder to remove");
}

/// A file of `torch.distributed.checkpoint` with the parts of a few small tensors.
const PARTS: &[u8] = include_bytes!("../tests/fixtures/dcp/by_hand/ckpt/__0_0.distcp");

fn planned(rules: &str, header: &Header) -> Option<Plan> {
    let route = Route::named(vec![compile(rules).ok()?], None, None, false).ok()?;
    plan_by(&route.stages(), header, &PlanOptions::default()).ok()
}

/// Rules over any keys: a plan has each key once, and none from nowhere.
pub fn plan(data: &[u8]) {
    let Some(text) = std::str::from_utf8(data).ok().filter(|text| text.len() <= LONGEST) else {
        return;
    };
    let (rules, keys) = text
        .split_once('\0')
        .unwrap_or((text, "model.layers.0.a.weight\nmodel.layers.1.a.weight\nmodel.norm.weight"));
    let infos = keys
        .lines()
        .take(1000)
        .map(|key| (Key::from(key), TensorInfo::new(Dtype::F32, &[4u64, 6][..])));
    let header = Header::from_infos(infos);
    if let Some(plan) = planned(rules, &header) {
        let keys: BTreeSet<&str> = plan.targets.iter().map(|target| target.key.as_str()).collect();
        assert_eq!(keys.len(), plan.targets.len(), "a key comes twice");
        for target in &plan.targets {
            assert!(
                (target.node.0 as usize) < plan.nodes.len(),
                "{} comes from nowhere",
                target.key
            );
        }
    }
}

/// A small checkpoint with tensors of several shapes.
fn checkpoint() -> &'static StateDict {
    static DICT: OnceLock<StateDict> = OnceLock::new();
    DICT.get_or_init(|| {
        let mut dict = StateDict::new();
        let mut next = 1u8;
        let mut add = |key: String, dtype: Dtype, shape: &[u64]| {
            let info = TensorInfo::new(dtype, shape);
            let len =
                info.nbytes().and_then(|len| usize::try_from(len).ok()).expect("a small tensor");
            let bytes: Vec<u8> = (0..len)
                .map(|_| {
                    next = next.wrapping_mul(5).wrapping_add(17);
                    // Exponents of every width stay clear of NaN, whose bits differ between
                    // machines.
                    next & 0x3b
                })
                .collect();
            dict.insert(
                Key::from(key),
                TensorView::contiguous(Storage::new(bytes), info, 0).expect("it fits"),
            );
        };
        for layer in 0..2 {
            for name in ["q", "k", "v"] {
                add(format!("model.layers.{layer}.{name}.weight"), Dtype::BF16, &[8, 6]);
                add(format!("model.layers.{layer}.{name}.bias"), Dtype::BF16, &[8]);
            }
            for expert in 0..3 {
                add(
                    format!("model.layers.{layer}.experts.{expert}.w1.weight"),
                    Dtype::F32,
                    &[4, 6],
                );
            }
        }
        add("model.norm.weight".to_owned(), Dtype::F32, &[6]);
        dict
    })
}

/// Rules over a small checkpoint: in memory and in files, every tensor is what the reference says.
pub fn execute(data: &[u8]) {
    let Some(text) = std::str::from_utf8(data).ok().filter(|text| text.len() <= LONGEST) else {
        return;
    };
    let dict = checkpoint();
    let Some(plan) = planned(text, dict.header()) else { return };
    // Made tensors may be of any size; only small ones are carried out.
    if plan.nodes.iter().any(|node| node.info.nbytes().is_none_or(|len| len > 1 << 20))
        || plan.targets.len() > 200
    {
        return;
    }
    let expected: Result<Vec<Vec<u8>>, _> =
        plan.targets.iter().map(|target| naive::evaluate(&plan, dict, target.node)).collect();
    let views = views(&plan, dict);
    let Ok(expected) = expected else { return };
    let views = views.unwrap_or_else(|error| panic!("in memory: {error}"));
    for (target, expected) in plan.targets.iter().zip(&expected) {
        assert!(
            views.tensors[&target.key].to_vec() == *expected,
            "{} differs in memory",
            target.key
        );
    }
    let place = tempfile::tempdir().expect("a temporary directory");
    let out = place.path().join("out.safetensors");
    let options = WriteOptions { memory: 1, sync: false, ..WriteOptions::default() };
    match write(&plan, dict, &out, &options) {
        Ok(_) => {}
        // What memory can hold and the format can't: a key of that name, or too long.
        Err(error) if error.key().is_some() => return,
        Err(error) => panic!("to a file: {error}"),
    }
    let written = StateDict::from_bytes(std::fs::read(&out).expect("the output"))
        .unwrap_or_else(|error| panic!("what was written: {error}"));
    for (target, expected) in plan.targets.iter().zip(&expected) {
        if let Some(view) = written.get(&target.key) {
            assert!(view.to_vec() == *expected, "{} differs in a file", target.key);
        }
    }
}
