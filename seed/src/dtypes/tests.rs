//! `.bin` files were written by PyTorch 2.15; their dtypes are what `torch.load` gives.

use std::collections::BTreeMap;
use std::fs;

use serde_json::json;

use super::*;
use regraft::key::Key;
use regraft::store::safetensors_header;
use regraft::tensor::TensorInfo;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/torch").join(name)
}

fn read(path: &Path) -> Result<IndexMap<String, TorchDtype>, Raised> {
    get_checkpoint_tensor_dtypes(path, &DtypeOptions::default(), Compat::Strict)
}

fn write(path: &Path, dtypes: &[Dtype]) {
    let entries: Vec<(Key, TensorInfo)> = dtypes
        .iter()
        .map(|dtype| (Key::from(dtype.name()), TensorInfo::new(*dtype, vec![8])))
        .collect();
    let (mut bytes, _) = safetensors_header(&entries, &BTreeMap::new()).unwrap();
    let data: u64 = entries.iter().map(|(_, info)| info.nbytes().unwrap()).sum();
    bytes.resize(bytes.len() + usize::try_from(data).unwrap(), 0);
    fs::write(path, bytes).unwrap();
}

#[test]
fn every_dtype_of_a_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("model.safetensors"), &Dtype::ALL);
    let dtypes = read(dir.path()).unwrap();
    assert_eq!(dtypes.len(), 22);
    assert_eq!(dtypes["F8_E8M0"].name(), "float8_e8m0fnu");
    assert_eq!(dtypes["BF16"].name(), "bfloat16");
    let raised =
        get_checkpoint_tensor_dtypes(dir.path(), &DtypeOptions::default(), Compat::Reference)
            .unwrap_err();
    assert!(raised.message.starts_with("Cannot load safetensors of unknown dtype "), "{raised}");
}

#[test]
fn shards_are_read_by_name_and_stay_inside() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("b.safetensors"), &[Dtype::F32]);
    write(&dir.path().join("a.safetensors"), &[Dtype::F16]);
    let index = |map: serde_json::Value| {
        fs::write(
            dir.path().join("model.safetensors.index.json"),
            json!({"weight_map": map}).to_string(),
        )
        .unwrap()
    };
    index(json!({"F32": "b.safetensors", "F16": "a.safetensors"}));
    assert_eq!(read(dir.path()).unwrap().keys().collect::<Vec<_>>(), ["F16", "F32"]);
    let kind = |compat| {
        get_checkpoint_tensor_dtypes(dir.path(), &DtypeOptions::default(), compat).unwrap_err().kind
    };
    assert_eq!(kind(Compat::Reference), "KeyError", "it wants metadata");
    for outside in ["../b.safetensors", "/etc/b.safetensors", "x/../../b.safetensors"] {
        index(json!({"F32": outside}));
        assert_eq!(kind(Compat::Strict), "ValueError");
    }
    index(json!({"F32": "c.safetensors"}));
    assert_eq!(kind(Compat::Strict), "FileNotFoundError");
    index(json!({"F32": 3}));
    assert_eq!(kind(Compat::Strict), "TypeError");
}

#[test]
fn options_choose_the_file() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("model.safetensors"), &[Dtype::F32]);
    write(&dir.path().join("model.fp16.safetensors"), &[Dtype::F16]);
    fs::create_dir(dir.path().join("text")).unwrap();
    write(&dir.path().join("text/model.safetensors"), &[Dtype::BF16]);
    fs::copy(fixture("pytorch_model.bin"), dir.path().join("pytorch_model.bin")).unwrap();
    let first = |options: DtypeOptions| {
        get_checkpoint_tensor_dtypes(dir.path(), &options, Compat::Strict)
            .map(|dtypes| dtypes.keys().next().cloned())
    };
    let some = |key: &str| Ok(Some(key.to_owned()));
    assert_eq!(first(DtypeOptions::default()), some("F32"));
    assert_eq!(
        first(DtypeOptions { variant: Some("fp16".into()), ..Default::default() }),
        some("F16")
    );
    assert_eq!(
        first(DtypeOptions { subfolder: Some("text".into()), ..Default::default() }),
        some("BF16")
    );
    assert_eq!(
        first(DtypeOptions { use_safetensors: Some(false), ..Default::default() }),
        some("a")
    );
    assert_eq!(
        first(DtypeOptions {
            transformers_weights: Some("model.fp16.safetensors".into()),
            ..Default::default()
        }),
        some("F16")
    );
    assert_eq!(first(DtypeOptions { gguf: true, ..Default::default() }), Ok(None));
    for wrong in ["../model.safetensors", "weights.bin"] {
        let raised =
            first(DtypeOptions { transformers_weights: Some(wrong.into()), ..Default::default() })
                .unwrap_err();
        assert_eq!(raised.kind, "ValueError", "{raised}");
    }
}

#[test]
fn what_is_not_there_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(read(dir.path()).unwrap_err().kind, "OSError");
    assert_eq!(read(&dir.path().join("nothing")).unwrap_err().kind, "OSError");
    // As safe_open of safetensors 0.8 words them.
    for (bytes, why) in [
        (&b"not one"[..], "header too small"),
        (b"\x05\0\0\0\0\0\0\0{}", "invalid header length"),
        (b"\x02\0\0\0\0\0\0\0{}x", "incomplete metadata, file not fully covered"),
    ] {
        fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
        assert_eq!(read(dir.path()).unwrap_err().kind, "SafetensorError");
        let raised =
            get_checkpoint_tensor_dtypes(dir.path(), &DtypeOptions::default(), Compat::Reference)
                .unwrap_err();
        assert_eq!(
            raised.to_string(),
            format!("SafetensorError: Error while deserializing header: {why}")
        );
    }
}

#[test]
fn pickles_are_read_without_being_run() {
    let both = [
        ("0.weight", "float32"),
        ("0.bias", "float32"),
        ("1.weight", "float32"),
        ("1.bias", "float32"),
        ("1.running_mean", "float32"),
        ("1.running_var", "float32"),
        ("1.num_batches_tracked", "int64"),
        ("bf", "bfloat16"),
        ("i8", "int8"),
        ("b", "bool"),
        ("c128", "complex128"),
        ("param", "float32"),
        ("view", "float32"),
    ];
    let newer = [("f8", "float8_e4m3fn"), ("u16", "uint16"), ("e8m0", "float8_e8m0fnu")];
    let names = |file: &str| -> Vec<(String, &'static str)> {
        read(&fixture(file)).unwrap().into_iter().map(|(key, dtype)| (key, dtype.name())).collect()
    };
    let expected = |parts: &[&[(&str, &'static str)]]| -> Vec<(String, &'static str)> {
        parts
            .iter()
            .flat_map(|part| part.iter())
            .map(|(key, name)| ((*key).to_owned(), *name))
            .collect()
    };
    assert_eq!(names("legacy.bin"), expected(&[&both]));
    assert_eq!(names("many.bin"), expected(&[&both, &newer]));
    let raised = read(&fixture("evil.bin")).unwrap_err();
    assert_eq!(raised.kind, "UnpicklingError");
    assert!(raised.message.contains("system"), "{raised}");
}

#[test]
fn a_broken_pickle_is_an_error_wherever_it_breaks() {
    for name in ["many.bin", "legacy.bin"] {
        let whole = fs::read(fixture(name)).unwrap();
        let read =
            |bytes: &[u8]| unpickle::state_dict_dtypes(Window::new(&bytes, bytes.len() as u64));
        let expected = read(&whole).unwrap();
        for end in 0..whole.len() {
            if let Ok(dtypes) = read(&whole[..end]) {
                // The elements at the end of the old form are not read.
                assert!(name == "legacy.bin" && dtypes == expected, "{name} cut at {end}");
            }
        }
        // What a changed byte means varies; reading it ends.
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0xFF;
            let _ = read(&changed);
        }
    }
}
