//! Cases made by transformers: what it made of a checkpoint and what it saved, byte for byte (see
//! tests/fixtures/cases/README.md).

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use regraft::Conversion;
use regraft::config::Config;
use regraft::execute::{Destination, Views, read_boxes, views};
use regraft::key::Key;
use regraft::library::{self, Route};
use regraft::plan::{Answer, Plan, PlanOptions, Question, TargetBox, plan_asking};
use regraft::store::tensors_equal;
use regraft::store::{OpenOptions, StateDict, Store as _, open};
use regraft::tensor::{Dtype, Storage, TensorInfo, TensorView, Wanted};
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// What a case says of a tensor: dtype, shape, and its hash if transformers knew the bytes.
#[derive(Deserialize)]
#[serde(untagged)]
enum Said {
    Bytes(Dtype, Vec<u64>, String),
    Info(Dtype, Vec<u64>),
}

impl Said {
    fn info(&self) -> TensorInfo {
        let (Said::Bytes(dtype, shape, _) | Said::Info(dtype, shape)) = self;
        TensorInfo::new(*dtype, shape.clone())
    }

    fn hash(&self) -> Option<&str> {
        match self {
            Said::Bytes(_, _, hash) => Some(hash),
            Said::Info(..) => None,
        }
    }
}

#[derive(Deserialize)]
struct Case {
    transformers: String,
    config: serde_json::Value,
    checkpoint: IndexMap<String, Said>,
    model: IndexMap<String, Said>,
    model_data: HashMap<String, String>,
    saved: IndexMap<String, Said>,
    #[serde(default)]
    ties: Vec<Vec<String>>,
}

impl Case {
    /// The layout that its model is in: `model`, or one of its version where that one held the model
    /// in other names than the newest.
    fn layout(&self) -> String {
        let version: Vec<&str> = self.transformers.split('.').take(2).collect();
        let own = format!("model_{}", version.join("_"));
        let files = library::candidates(&Config::from_value(self.config.clone()));
        let has_own = files.iter().filter_map(|rules| rules.layouts.as_ref());
        match has_own.map(|(_, right)| right).any(|right| *right == own) {
            true => own,
            false => library::MODEL.to_owned(),
        }
    }
}

/// Those kept here, and those of another directory if `REGRAFT_CASES` names one.
fn cases() -> Vec<(String, Case)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/cases");
    let more = std::env::var_os("REGRAFT_CASES").map(PathBuf::from);
    let files =
        std::iter::once(folder).chain(more).flat_map(|folder| std::fs::read_dir(folder).unwrap());
    let mut paths: Vec<PathBuf> = files.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    assert!(!paths.is_empty());
    let read = |path: PathBuf| {
        let case = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        (path.file_stem().unwrap().to_string_lossy().into_owned(), case)
    };
    paths.into_iter().map(read).collect()
}

/// The data of a key: FNV-1a seeds splitmix64.
fn data(key: &str, info: &TensorInfo) -> Vec<u8> {
    // 24 bits fit a float exactly, and so does the difference.
    let float = |z: u64| (f64::from(u32::try_from(z >> 40).unwrap()) / 8_388_608.0 - 1.0) as f32;
    match info.dtype {
        Dtype::F32 => drawn(key, info, |z| float(z).to_le_bytes().to_vec()),
        Dtype::BF16 => drawn(key, info, |z| half::bf16::from_f32(float(z)).to_le_bytes().to_vec()),
        Dtype::I64 => drawn(key, info, |z| (z % 100).to_le_bytes().to_vec()),
        other => panic!("{key} is {other}: cases are F32, BF16 and I64"),
    }
}

/// The data of a key as floats, whatever its dtype.
pub(crate) fn floats(key: &str, info: &TensorInfo) -> Vec<u8> {
    data(key, &TensorInfo::new(Dtype::F32, info.shape.clone()))
}

fn drawn(key: &str, info: &TensorInfo, element_of: impl Fn(u64) -> Vec<u8>) -> Vec<u8> {
    let seed = key.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3)
    });
    let element = |at: u64| {
        let mut z = seed.wrapping_add(at.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        element_of(z)
    };
    (1..=info.numel().unwrap()).flat_map(element).collect()
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn state_dict(
    tensors: impl IntoIterator<Item = (String, TensorInfo, Vec<u8>)>,
) -> StateDict {
    let view = |(key, info, bytes): (String, TensorInfo, Vec<u8>)| {
        (Key::from(key), TensorView::contiguous(Storage::new(bytes), info, 0).unwrap())
    };
    StateDict::from_tensors(tensors.into_iter().map(view), BTreeMap::new())
}

fn planned(case: &Case, source: &StateDict, from: &str, to: &str, wanted: Option<&Wanted>) -> Plan {
    let config = Config::from_value(case.config.clone());
    let route = Route::by_config(&config, Some(from), Some(to)).unwrap();
    let answer = |asked: &Question| {
        let equal = tensors_equal(source, &asked.a, &asked.b)?.is_equal();
        Ok::<_, regraft::error::Error>(if equal { Answer::Equal } else { Answer::Differ(1) })
    };
    let options = PlanOptions { config, wanted, not_strict: true, ..PlanOptions::default() };
    plan_asking(&route.stages(), source.header(), &options, answer).unwrap().unwrap()
}

/// Whether a plan gives what transformers gave, key by key and byte by byte.
fn same(name: &str, plan: &Plan, source: &StateDict, said: &IndexMap<String, Said>) {
    let made = views(plan, source).unwrap();
    let mut given: Vec<&str> = made.tensors.keys().map(Key::as_str).collect();
    let mut expected: Vec<&str> = said
        .iter()
        .filter(|(_, said)| said.hash().is_some())
        .map(|(key, _)| key.as_str())
        .collect();
    given.sort_unstable();
    expected.sort_unstable();
    assert_eq!(given, expected, "{name}: keys");
    for (key, view) in &made.tensors {
        let said = &said[key.as_str()];
        assert_eq!(*view.info(), said.info(), "{name}: {key}");
        assert_eq!(Some(hash(&view.to_vec()).as_str()), said.hash(), "{name}: bytes of {key}");
    }
    same_boxes(name, plan, source, &made);
}

/// Whether boxes of all targets, read at once, are those of the whole tensors: a quarter of every
/// dimension that isn't aligned to anything, and each dimension cut as a rank of three would.
pub(super) fn same_boxes(name: &str, plan: &Plan, source: &StateDict, made: &Views) {
    let mut asked: Vec<(TargetBox, Vec<u8>)> = Vec::new();
    for (number, (key, view)) in (0u64..).zip(&made.tensors) {
        let info = view.info();
        let drawn = data(&format!("{name} {key}"), &TensorInfo::new(Dtype::I64, vec![8]));
        let mut boxes: Vec<Vec<(u64, u64)>> = vec![];
        let inside = |(dim, size): (usize, &u64)| {
            let start = u64::from(drawn[dim % 8 * 8]) % size.max(&1);
            (start, (size - start).min(1 + size / 4))
        };
        boxes.push(info.shape.iter().enumerate().map(inside).collect());
        for dim in 0..info.shape.len() {
            let size = info.shape[dim].div_ceil(3);
            let start = (number % 3 * size).min(info.shape[dim]);
            let mut whole: Vec<(u64, u64)> = info.shape.iter().map(|size| (0, *size)).collect();
            whole[dim] = (start, size.min(info.shape[dim] - start));
            boxes.push(whole);
        }
        for (start, shape) in
            boxes.into_iter().map(|sides| sides.into_iter().unzip::<_, _, Vec<u64>, Vec<u64>>())
        {
            let len = TensorInfo::new(info.dtype, shape.clone()).nbytes().unwrap();
            asked.push((TargetBox::new(key.clone(), start, shape), vec![0; len as usize]));
        }
    }
    let mut wanted: Vec<Destination<'_>> = asked
        .iter_mut()
        .map(|(part, buffer)| Destination::row_major(part.clone(), buffer))
        .collect();
    read_boxes(plan, source, &mut wanted, None).unwrap();
    for (part, buffer) in &asked {
        let mut view = made.tensors[&part.key].clone();
        for (dim, (start, len)) in part.start.iter().zip(part.shape.iter()).enumerate() {
            view = view.narrow(dim, *start, *len).unwrap();
        }
        assert!(view.to_vec() == *buffer, "{name}: {part:?}");
    }
}

#[test]
fn towards_the_model() {
    for (name, case) in cases() {
        let source = state_dict(
            case.checkpoint
                .iter()
                .map(|(key, said)| (key.clone(), said.info(), data(key, &said.info()))),
        );
        let wanted = Wanted {
            keys: case
                .model
                .iter()
                .map(|(key, said)| (Key::from(key.as_str()), Some(said.info())))
                .collect(),
        };
        let plan = planned(&case, &source, "hub", &case.layout(), Some(&wanted));
        same(&name, &plan, &source, &case.model);
    }
}

/// What transformers holds as one tensor is one tensor here: the same storage, offset, shape and
/// strides.
#[test]
fn ties_are_one_tensor_in_memory() {
    let mut groups = 0;
    for (name, case) in cases() {
        let source = state_dict(
            case.checkpoint
                .iter()
                .map(|(key, said)| (key.clone(), said.info(), data(key, &said.info()))),
        );
        let wanted = Wanted {
            keys: case
                .model
                .iter()
                .map(|(key, said)| (Key::from(key.as_str()), Some(said.info())))
                .collect(),
        };
        let made =
            views(&planned(&case, &source, "hub", &case.layout(), Some(&wanted)), &source).unwrap();
        for group in &case.ties {
            let views: Vec<&TensorView> =
                group.iter().filter_map(|key| made.tensors.get(key.as_str())).collect();
            assert!(
                views.is_empty() || views.len() == group.len(),
                "{name}: one of {group:?} is missing"
            );
            assert!(
                views.windows(2).all(|pair| pair[0].same_tensor(pair[1])),
                "{name}: {group:?} are not one"
            );
            groups += usize::from(!views.is_empty());
        }
    }
    assert!(groups >= 5, "{groups} groups");
}

#[test]
fn towards_the_hub() {
    for (name, case) in cases() {
        // Tied keys hold the data of the first of their group.
        let by_hash: HashMap<String, &str> = case
            .model
            .iter()
            .map(|(key, said)| (hash(&data(key, &said.info())), key.as_str()))
            .collect();
        let source = state_dict(case.model.iter().map(|(key, said)| {
            let of = by_hash[&case.model_data[key]];
            (key.clone(), said.info(), data(of, &said.info()))
        }));
        let plan = planned(&case, &source, &case.layout(), "hub", None);
        same(&name, &plan, &source, &case.saved);
    }
}

#[test]
fn the_example_is_its_case() {
    let (_, case) = cases().into_iter().find(|(name, _)| name == "mixtral").unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/mixtral");
    let checkpoint = open(&folder, &OpenOptions::default()).unwrap();
    assert_eq!(checkpoint.header().tensors.len(), case.checkpoint.len());
    for (key, said) in &case.checkpoint {
        assert_eq!(checkpoint.header().get(key), Some(&said.info()), "{key}");
        assert_eq!(checkpoint.view(key).unwrap().to_vec(), data(key, &said.info()), "{key}");
    }
}

/// What a training run leaves becomes what the model itself does.
#[test]
fn the_example_of_torch_is_the_same_model() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let out = tempfile::tempdir().unwrap();
    let written = ["mixtral", "training/last.pt"].map(|source| {
        let conversion = Conversion::open(folder.join(source)).unwrap().to("model");
        let place = out.path().join(source.replace('/', "-"));
        conversion.plan().unwrap().write(&place).unwrap();
        std::fs::read(place.join("model.safetensors")).unwrap()
    });
    assert!(written[0] == written[1]);
}
