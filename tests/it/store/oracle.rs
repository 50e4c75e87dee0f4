//! The same verdict and the same content as the safetensors crate, on valid files and on broken
//! ones.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use regraft::key::Key;
use regraft::store::{StateDict, Store, safetensors_header};
use regraft::tensor::{Dtype, TensorInfo};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

use super::file;

/// What the crate may accept and we don't; `src/store/safetensors.rs` says so.
const STRICTER: &[&str] =
    &["twice", "does not begin with `{`", "invalid type: sequence", "bad dtype: invalid type: map"];

/// Compares our verdict and content with the crate's; gives whether the file was accepted.
fn agree(bytes: &[u8]) -> bool {
    let theirs = SafeTensors::deserialize(bytes);
    let ours = match StateDict::from_bytes(bytes.to_vec()) {
        Ok(ours) => ours,
        Err(error) => {
            let stricter = STRICTER.iter().any(|reason| error.to_string().contains(reason));
            assert!(
                theirs.is_err() || stricter,
                "the crate accepts, we refuse: {error}\n{}",
                String::from_utf8_lossy(bytes)
            );
            return false;
        }
    };
    let theirs = theirs.unwrap_or_else(|error| {
        panic!("we accept, the crate refuses: {error}\n{}", String::from_utf8_lossy(bytes))
    });
    assert_eq!(ours.len(), theirs.len());
    for (key, tensor) in theirs.tensors() {
        let info = ours.header().get(&key).unwrap();
        assert_eq!(info.dtype.name(), format!("{:?}", tensor.dtype()));
        assert_eq!(
            info.shape.iter().map(|size| *size as usize).collect::<Vec<_>>(),
            tensor.shape()
        );
        let mut read = vec![0; tensor.data().len()];
        ours.read_at(&key, 0, &mut read).unwrap();
        assert_eq!(read, tensor.data());
    }
    let (_, metadata) = SafeTensors::read_metadata(bytes).unwrap();
    let metadata: BTreeMap<_, _> =
        metadata.metadata().clone().unwrap_or_default().into_iter().collect();
    assert_eq!(*ours.metadata(), metadata);
    true
}

fn crate_dtype(dtype: Dtype) -> safetensors::Dtype {
    serde_json::from_value(dtype.name().into()).unwrap()
}

/// Eight elements are a whole number of bytes in every dtype.
fn shapes() -> Vec<Vec<u64>> {
    vec![vec![8], vec![2, 4], vec![0], vec![4, 0, 3], vec![1, 2, 1, 4, 1]]
}

#[test]
fn what_the_crate_writes_we_read() {
    let mut data = Vec::new();
    for dtype in Dtype::ALL {
        for shape in shapes() {
            let len = TensorInfo::new(dtype, shape.clone()).nbytes().unwrap();
            data.push((
                format!("{dtype} {shape:?} ключ \"\n"),
                dtype,
                shape,
                (0..len).map(|i| (i * 7) as u8).collect::<Vec<_>>(),
            ));
        }
        if dtype.bits() >= 8 {
            data.push((
                format!("{dtype}.zero-dim"),
                dtype,
                vec![],
                vec![9; dtype.bits() as usize / 8],
            ));
        }
    }
    let views = data.iter().map(|(key, dtype, shape, bytes)| {
        let shape = shape.iter().map(|size| *size as usize).collect();
        (key.as_str(), TensorView::new(crate_dtype(*dtype), shape, bytes).unwrap())
    });
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let file = safetensors::serialize(views, Some(metadata)).unwrap();
    assert!(agree(&file));
    let dict = StateDict::from_bytes(file).unwrap();
    for (key, dtype, shape, bytes) in &data {
        assert_eq!(dict.header().get(key), Some(&TensorInfo::new(*dtype, shape.clone())));
        assert_eq!(dict.get(key).unwrap().bytes(), Some(bytes.as_slice()));
    }
    assert_eq!(dict.metadata()["format"], "pt");
}

#[test]
fn what_we_write_the_crate_reads() {
    let mut entries = Vec::new();
    for dtype in Dtype::ALL {
        for shape in shapes() {
            entries.push((
                Key::from(format!("слой {dtype}\t{shape:?}\\")),
                TensorInfo::new(dtype, shape),
            ));
        }
    }
    let metadata = BTreeMap::from([
        ("format".to_owned(), "pt".to_owned()),
        ("é \"q\"".to_owned(), "\u{1}".to_owned()),
    ]);
    let (mut file, offsets) = safetensors_header(&entries, &metadata).unwrap();
    assert_eq!(
        safetensors_header(&entries, &metadata).unwrap().0,
        file,
        "equal input gives equal bytes"
    );
    let start = file.len();
    assert_eq!(start % 8, 0);
    for ((_, info), offset) in entries.iter().zip(&offsets) {
        assert_eq!((file.len() - start) as u64, *offset);
        let fill = file.len() as u8;
        file.resize(file.len() + info.nbytes().unwrap() as usize, fill);
    }
    assert!(agree(&file));
    let keys: Vec<_> = StateDict::from_bytes(file).unwrap().keys().cloned().collect();
    assert_eq!(
        keys,
        entries.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(),
        "the order given"
    );
}

#[test]
fn data_starts_aligned_whatever_the_header_takes() {
    for len in 0..20 {
        let entries = [(Key::from("k".repeat(len + 1)), TensorInfo::new(Dtype::U8, vec![0]))];
        let (file, _) = safetensors_header(&entries, &BTreeMap::new()).unwrap();
        assert_eq!(file.len() % 8, 0);
        assert!(agree(&file));
    }
    let (empty, _) = safetensors_header(&[], &BTreeMap::new()).unwrap();
    assert_eq!(empty, file("{}      ", &[]));
    assert!(agree(&empty));
}

#[test]
fn odd_but_valid() {
    for (header, data) in [
        (r#"{"__metadata__":null}"#, 0),
        (r#"{"__metadata__":{}}"#, 0),
        (r#"{"":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#, 1),
        (
            r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"note":{"x":[1.5,null,"y",true,-3]}}}"#,
            1,
        ),
        (
            r#"{"b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#,
            2,
        ),
        ("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}} \n\t ", 1),
        (
            r#"{"a":{"dtype":"F32","shape":[0,9223372036854775807],"data_offsets":[0,0]},"b":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}"#,
            1,
        ),
    ] {
        assert!(agree(&file(header, &vec![7; data])), "{header}");
    }
}

#[test]
fn nesting_is_limited_as_in_the_crate() {
    let accepted = |depth: usize| {
        let header = format!(
            r#"{{"a":{{"x":{}{},"dtype":"U8","shape":[0],"data_offsets":[0,0]}}}}"#,
            "[".repeat(depth),
            "]".repeat(depth)
        );
        agree(&file(&header, &[]))
    };
    assert!(accepted(100));
    assert!(!accepted(200));
    for depth in 120..132 {
        accepted(depth);
    }
}

#[test]
fn dtypes_are_the_crates() {
    for dtype in Dtype::ALL {
        assert_eq!(crate_dtype(dtype).bitsize(), dtype.bits() as usize);
    }
}

fn tensors() -> impl Strategy<Value = Vec<(Key, TensorInfo)>> {
    let tensor = (r#"[a-c.é" ]{1,3}"#, 0..Dtype::ALL.len(), prop::collection::vec(0u64..4, 0..3))
        .prop_map(|(key, dtype, mut shape)| {
            let dtype = Dtype::ALL[dtype];
            if dtype.bits() < 8 {
                shape.push(4);
            }
            (Key::from(key), TensorInfo::new(dtype, shape))
        });
    prop::collection::vec(tensor, 0..5).prop_map(|mut tensors| {
        let mut seen = std::collections::BTreeSet::new();
        tensors.retain(|(key, _)| seen.insert(key.clone()));
        tensors
    })
}

fn build(tensors: &[(Key, TensorInfo)]) -> Vec<u8> {
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    let (mut file, _) = safetensors_header(tensors, &metadata).unwrap();
    let data: u64 = tensors.iter().map(|(_, info)| info.nbytes().unwrap()).sum();
    file.extend((0..data).map(|i| i as u8));
    file
}

/// An entry of a header, right or slightly wrong.
fn entry() -> impl Strategy<Value = String> {
    let key = prop::sample::select(vec!["a", "b", "c", "__metadata__"]);
    let dtype = prop::sample::select(vec![
        r#""U8""#,
        r#""U8""#,
        r#""F16""#,
        r#""F4""#,
        r#""F6_E3M2""#,
        r#""X""#,
        "1",
        "null",
        r#"{"U8":null}"#,
    ]);
    let shape = prop::sample::select(vec![
        "[]",
        "[1]",
        "[2]",
        "[4]",
        "[2,2]",
        "[0]",
        "[1.0]",
        "[-0]",
        "[1e1]",
        "2",
        "[18446744073709551615,2]",
    ]);
    let offset = 0u64..5;
    let extra = prop::sample::select(vec![
        "",
        "",
        "",
        r#","x":1e999"#,
        r#","x":{"dtype":1}"#,
        r#","shape":[1]"#,
    ]);
    (key, dtype, shape, offset, 0u64..5, extra).prop_map(
        |(key, dtype, shape, begin, len, extra)| {
            Cow::Owned::<str>(format!(
                r#""{key}":{{"dtype":{dtype},"shape":{shape},"data_offsets":[{begin},{}]{extra}}}"#,
                begin + len
            ))
            .into_owned()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn valid_files_are_accepted(tensors in tensors()) {
        prop_assert!(agree(&build(&tensors)));
    }

    #[test]
    fn changed_bytes(tensors in tensors(), changes in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(b"{}[]\",:0123456789aFU_ -\\\x00\xff".to_vec())), 1..4)) {
        let mut bytes = build(&tensors);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        agree(&bytes);
    }

    #[test]
    fn cut_or_longer(tensors in tensors(), at in any::<prop::sample::Index>(), more in prop::collection::vec(any::<u8>(), 1..9)) {
        let bytes = build(&tensors);
        prop_assert!(!agree(&bytes[..at.index(bytes.len())]));
        prop_assert!(!agree(&[bytes, more].concat()));
    }

    #[test]
    fn assembled_headers(entries in prop::collection::vec(entry(), 0..4), data in 0usize..10) {
        agree(&file(&format!("{{{}}}", entries.join(",")), &vec![0; data]));
    }

    #[test]
    fn noise(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        agree(&bytes);
    }
}
