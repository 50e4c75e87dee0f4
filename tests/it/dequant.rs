//! Quantized checkpoints are what their own libraries make of them, bit for bit
//! (`scripts/make_dequant_fixtures.py`): in memory, in files, in boxes, and element by element.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use regraft::Conversion;
use regraft::config::Config;
use regraft::conversion::Planned;
use regraft::execute::{Destination, naive, read_boxes};
use regraft::plan::TargetBox;
use regraft::store::{StateDict, Store};
use regraft::tensor::{Dtype, Storage, TensorInfo, TensorView};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/dequant")
}

/// The names of all cases, in order.
fn names() -> Vec<String> {
    let files = std::fs::read_dir(folder()).unwrap().map(|file| file.unwrap().path());
    let mut names: Vec<String> = files
        .filter(|path| path.extension().is_some_and(|ending| ending == "json"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

fn tensors(name: &str) -> StateDict {
    StateDict::from_bytes(std::fs::read(folder().join(name)).unwrap()).unwrap()
}

fn config(name: &str) -> Config {
    let text = std::fs::read_to_string(folder().join(format!("{name}.json"))).unwrap();
    Config::from_value(serde_json::from_str(&text).unwrap())
}

fn planned(source: &Arc<StateDict>, name: &str) -> Planned {
    let conversion = Conversion::of_store(Arc::clone(source) as _);
    let conversion = conversion.config(config(name));
    let planned = conversion.load(["dequant"]).unwrap().plan();
    planned.unwrap_or_else(|failure| panic!("{name}: {failure}"))
}

#[test]
fn what_libraries_make_of_quantized_checkpoints() {
    let names: Vec<String> = names().into_iter().filter(|name| name != "weight_norm").collect();
    assert_eq!(names.len(), 20, "{names:?}");
    for name in names {
        let source = Arc::new(tensors(&format!("{name}.safetensors")));
        let expected = tensors(&format!("{name}.expected.safetensors"));
        let planned = planned(&source, &name);
        agrees(&name, &planned, &source, &expected);
    }
}

/// Every way of carrying a plan out gives what is expected.
fn agrees(name: &str, planned: &Planned, source: &StateDict, expected: &StateDict) {
    let plan = &planned.plan;
    let keys: Vec<&str> = plan.targets.iter().map(|target| target.key.as_str()).collect();
    let mut wanted: Vec<&str> = expected.header().tensors.keys().map(|key| key.as_str()).collect();
    wanted.sort_unstable();
    assert_eq!(keys, wanted, "{name}");
    let views = planned.views().unwrap().tensors;
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out.safetensors");
    let options = regraft::execute::WriteOptions::default();
    regraft::execute::write(plan, source, &out, &options).unwrap();
    let written = StateDict::from_bytes(std::fs::read(&out).unwrap()).unwrap();
    for target in &plan.targets {
        let key = target.key.as_str();
        let whole = expected.get(key).unwrap();
        let bytes = whole.to_vec();
        assert_eq!(views[key].info(), whole.info(), "{name}: {key}");
        assert!(views[key].to_vec() == bytes, "{name}: {key} in memory");
        assert!(written.get(key).unwrap().to_vec() == bytes, "{name}: {key} in a file");
        let plain = naive::evaluate(plan, source, target.node).unwrap();
        assert!(plain == bytes, "{name}: {key} element by element");
        // The second half of the rows.
        let mut shape = whole.info().shape.to_vec();
        let half = shape[0] / 2;
        let mut start = vec![0; shape.len()];
        (start[0], shape[0]) = (half, shape[0] - half);
        let row = bytes.len() / whole.info().shape[0] as usize;
        let mut found = vec![0; bytes.len() - row * half as usize];
        let part = TargetBox::new(key, start, shape);
        read_boxes(plan, source, &mut [Destination::row_major(part, &mut found)], None).unwrap();
        assert!(found == bytes[row * half as usize..], "{name}: {key} in a box");
    }
}

fn by_rules(source: &Arc<StateDict>, rules: &str) -> Planned {
    let rules = regraft::compile(rules).unwrap();
    let conversion = Conversion::of_store(Arc::clone(source) as _).rules([rules]);
    conversion.plan().unwrap_or_else(|failure| panic!("{failure}"))
}

#[test]
fn weight_norm_is_folded_as_pytorch_folds_it() {
    let source = Arc::new(tensors("weight_norm.safetensors"));
    let expected = tensors("weight_norm.expected.safetensors");
    let rules = r#"map "{i}.weight_g", "{i}.weight_v" -> "{i}.weight" via weight_norm"#;
    agrees("weight_norm", &by_rules(&source, rules), &source, &expected);
}

#[test]
fn what_is_quantized_again_by_the_same_scales_is_what_it_was() {
    for name in ["fp8_block", "fp8_tensor", "fp8_row", "ct_fp8_channel"] {
        let source = tensors(&format!("{name}.safetensors"));
        let scale = if name == "fp8_block" { "weight_scale_inv" } else { "weight_scale" };
        let codes = source.get("a.weight").unwrap().to_vec();
        let dequantized = tensors(&format!("{name}.expected.safetensors"));
        let mut again = StateDict::new();
        again.insert("a.weight".into(), dequantized.get("a.weight").unwrap().clone());
        again.insert("a.scale".into(), source.get(&format!("a.{scale}")).unwrap().clone());
        let again = Arc::new(again);
        let rules =
            r#"map "a.weight", "a.scale" -> "a.weight", "a.scale" via quant_fp8_by([8, 16])"#;
        let views = by_rules(&again, rules).views().unwrap().tensors;
        assert_eq!(views["a.weight"].info().dtype, Dtype::F8_E4M3);
        assert!(views["a.weight"].to_vec() == codes, "{name}");
        assert_eq!(views["a.scale"].info(), again.get("a.scale").unwrap().info());
    }
}

/// Of a tensor and back: each element within a sixteenth of itself, or within half of the smallest
/// step of its block, which is its largest magnitude over 448 times 2^-9.
#[test]
fn what_is_quantized_comes_back_with_its_stated_error() {
    let weight = tensors("bnb_nf4_nested.expected.safetensors").get("a.weight").unwrap().clone();
    let [rows, columns] = *weight.info().shape else { panic!() };
    let floats = |bytes: &[u8]| -> Vec<f32> {
        bytes
            .chunks(2)
            .map(|two| f32::from_bits(u32::from(two[1]) << 24 | u32::from(two[0]) << 16))
            .collect()
    };
    let before = floats(&weight.to_vec());
    let mut source = StateDict::new();
    source.insert("w".into(), weight);
    let source = Arc::new(source);
    for (block, height, width) in [
        ("128", 128, 128),
        ("[1, -1]", 1, columns),
        ("[-1, -1]", rows, columns),
        ("[7, 33]", 7, 33),
    ] {
        let there = format!(r#"map "w" <-> "w", "s" via quant_fp8({block}, F8_E4M3, BF16)"#);
        let views = by_rules(&source, &there).views().unwrap().tensors;
        let scales = views["s"].info().clone();
        assert_eq!(
            scales.numel(),
            Some(rows.div_ceil(height) * columns.div_ceil(width)),
            "{block}"
        );
        let mut quantized = StateDict::new();
        for key in ["w", "s"] {
            quantized.insert(key.into(), views[key].clone());
        }
        let rules = regraft::compile(&there).unwrap();
        let back = Conversion::of_store(Arc::new(quantized) as _).rules([rules]).reverse(true);
        let back = back.plan().unwrap_or_else(|failure| panic!("{block}: {failure}"));
        let after = floats(&back.views().unwrap().tensors["w"].to_vec());
        let block_of = |at: usize| (at as u64 / columns / height, at as u64 % columns / width);
        let mut largest = std::collections::BTreeMap::new();
        for (at, x) in before.iter().enumerate() {
            let most = largest.entry(block_of(at)).or_insert(0f32);
            *most = most.max(x.abs());
        }
        for (at, (x, y)) in before.iter().zip(&after).enumerate() {
            let least = largest[&block_of(at)] / 448.0 * 2f32.powi(-10);
            // BF16 adds its own rounding.
            let allowed = (x.abs() / 16.0).max(least) + x.abs() / 256.0;
            assert!((x - y).abs() <= allowed, "{block}: {x} became {y}");
        }
    }
}

/// Of more elements than are held at once, turned and joined before they are reduced.
#[test]
fn what_is_reduced_in_stretches_is_what_it_is_as_a_whole() {
    let (rows, columns) = (700, 512);
    let mut source = StateDict::new();
    for (key, seed) in [("a", 1u32), ("b", 77)] {
        let value = |at: u32| (at.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 8) as f32 - 8e6;
        let bytes: Vec<u8> = (0..rows * columns).flat_map(|at| value(at).to_le_bytes()).collect();
        let info = TensorInfo::new(Dtype::F32, vec![u64::from(rows), u64::from(columns)]);
        source.insert(key.into(), TensorView::contiguous(Storage::new(bytes), info, 0).unwrap());
    }
    let source = Arc::new(source);
    let rules = r#"
map "a", "b" -> "w", "n" via concat(1) | transpose(0, 1) | copy
map "n" -> "n" via norm(0, 1)
map "w" -> "w", "s" via quant_fp8([128, 96])"#;
    let planned = by_rules(&source, rules);
    let views = planned.views().unwrap().tensors;
    for target in &planned.plan.targets {
        let plain = naive::evaluate(&planned.plan, &*source, target.node).unwrap();
        assert!(views[target.key.as_str()].to_vec() == plain, "{}", target.key);
    }
    assert_eq!(views["w"].info().numel(), Some(2 * 700 * 512));
    assert_eq!(&views["s"].info().shape[..], [8, 8]);
}

#[test]
fn a_block_of_zeros_has_the_scale_one() {
    let mut source = StateDict::new();
    let info = TensorInfo::new(Dtype::F32, vec![2, 2]);
    let bytes: Vec<u8> = [0f32, 0.0, 896.0, -1.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let storage = Storage::new(bytes);
    source.insert("w".into(), TensorView::contiguous(storage, info, 0).unwrap());
    let rules = r#"map "w" -> "w", "s" via quant_fp8([1, -1])"#;
    let views = by_rules(&Arc::new(source), rules).views().unwrap();
    let scales: Vec<u8> = [1f32, 2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    assert_eq!(views.tensors["s"].to_vec(), scales);
    // 448 is the largest code, and -1/2 has the exponent of 2^-1.
    assert_eq!(views.tensors["w"].to_vec(), [0, 0, 0x7e, 0xb0]);
    assert!(views.report.overflowed.is_empty());
}

#[test]
fn an_order_that_leaves_its_groups_is_an_error() {
    let name = "gptq_order";
    let mut source = tensors(&format!("{name}.safetensors"));
    let order = source.get("a.g_idx").unwrap().clone();
    for bad in [4i32, -1] {
        let mut bytes = order.to_vec();
        bytes[..4].copy_from_slice(&bad.to_le_bytes());
        let storage = Storage::new(bytes);
        let view = TensorView::contiguous(storage, order.info().clone(), 0);
        source.insert("a.g_idx".into(), view.unwrap());
        let source = Arc::new(source.clone());
        let error = planned(&source, name).views().unwrap_err().to_string();
        assert!(error.contains("an index of"), "{error}");
    }
}

#[test]
fn a_description_that_is_none_is_refused() {
    let name = "bnb_nf4";
    let mut source = tensors(&format!("{name}.safetensors"));
    let key = "a.weight.quant_state.bitsandbytes__nf4";
    let info = TensorInfo::new(Dtype::U8, vec![2]);
    let storage = Storage::new(b"{}".to_vec());
    let view = TensorView::contiguous(storage, info, 0).unwrap();
    source.insert(key.into(), view);
    let conversion = Conversion::of_store(Arc::new(source) as _);
    let conversion = conversion.config(config("bnb_nf4"));
    let failure = conversion.load(["dequant"]).unwrap().plan().err().unwrap().to_string();
    assert!(failure.contains(key) && failure.contains("shape"), "{failure}");
}
