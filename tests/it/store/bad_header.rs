//! Each rule of the safetensors format, broken once.

use std::collections::BTreeMap;

use regraft::error::ErrorKind;
use regraft::key::Key;
use regraft::store::{StateDict, Store, safetensors_header};
use regraft::tensor::{Dtype, TensorInfo};

use super::{bytes_of, fails, file};

/// Header text, bytes of data, the key that the error must name, a part of its message, a part of
/// its hint.
type Case = (&'static str, usize, Option<&'static str>, &'static str, &'static str);

const CASES: &[Case] = &[
    // JSON
    (
        r#" {"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#,
        1,
        None,
        "does not begin with `{`",
        "",
    ),
    (r#"[1]"#, 0, None, "does not begin with `{`", ""),
    (r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}"#, 1, None, "EOF while parsing", ""),
    (
        r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}} x"#,
        1,
        None,
        "trailing characters",
        "",
    ),
    (
        r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#,
        2,
        Some("a"),
        "twice",
        "",
    ),
    (
        r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"\u0061":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#,
        2,
        Some("a"),
        "twice",
        "",
    ),
    (
        r#"{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#,
        1,
        Some("a"),
        "has dtype twice",
        "",
    ),
    (
        r#"{"a":{"dtype":"U8","shape":[1],"shape":[1],"data_offsets":[0,1]}}"#,
        1,
        Some("a"),
        "has shape twice",
        "",
    ),
    (
        r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"data_offsets":[0,1]}}"#,
        1,
        Some("a"),
        "has data_offsets twice",
        "",
    ),
    (r#"{"a":["U8",[1],[0,1]]}"#, 1, Some("a"), "invalid type: sequence", ""),
    (r#"{"a":null}"#, 0, Some("a"), "invalid type: null", ""),
    // fields
    (r#"{"a":{"shape":[1],"data_offsets":[0,1]}}"#, 1, Some("a"), "has no dtype", ""),
    (r#"{"a":{"dtype":"U8","data_offsets":[0,1]}}"#, 1, Some("a"), "has no shape", ""),
    (r#"{"a":{"dtype":"U8","shape":[1]}}"#, 1, Some("a"), "has no data_offsets", ""),
    (
        r#"{"a":{"dtype":"BF61","shape":[1],"data_offsets":[0,2]}}"#,
        2,
        Some("a"),
        "unknown dtype \"BF61\"",
        "did you mean \"BF16\"?",
    ),
    (
        r#"{"a":{"dtype":"f32","shape":[1],"data_offsets":[0,4]}}"#,
        4,
        Some("a"),
        "unknown dtype \"f32\"",
        "did you mean \"F32\"?",
    ),
    (
        r#"{"a":{"dtype":"quaternion","shape":[1],"data_offsets":[0,4]}}"#,
        4,
        Some("a"),
        "unknown dtype",
        "F8_E4M3",
    ),
    (r#"{"a":{"dtype":5,"shape":[1],"data_offsets":[0,4]}}"#, 4, Some("a"), "bad dtype", ""),
    (r#"{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}}"#, 1, Some("a"), "bad shape", ""),
    (r#"{"a":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}}"#, 1, Some("a"), "bad shape", ""),
    (r#"{"a":{"dtype":"U8","shape":["1"],"data_offsets":[0,1]}}"#, 1, Some("a"), "bad shape", ""),
    (
        r#"{"a":{"dtype":"U8","shape":[18446744073709551616],"data_offsets":[0,1]}}"#,
        1,
        Some("a"),
        "bad shape",
        "",
    ),
    (
        r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,-1]}}"#,
        1,
        Some("a"),
        "bad data_offsets",
        "",
    ),
    (
        r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0]}}"#,
        1,
        Some("a"),
        "bad data_offsets",
        "",
    ),
    (
        r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,2]}}"#,
        1,
        Some("a"),
        "bad data_offsets",
        "",
    ),
    // sizes
    (
        r#"{"a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,1]}}"#,
        1,
        Some("a"),
        "in bits, exceeds 64 bits",
        "",
    ),
    (
        r#"{"a":{"dtype":"F64","shape":[9223372036854775807],"data_offsets":[0,1]}}"#,
        1,
        Some("a"),
        "in bits, exceeds 64 bits",
        "",
    ),
    (
        r#"{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}}"#,
        2,
        Some("a"),
        "takes 12 bits, which is no whole number of bytes",
        "",
    ),
    (
        r#"{"a":{"dtype":"F6_E2M3","shape":[2],"data_offsets":[0,2]}}"#,
        2,
        Some("a"),
        "takes 12 bits",
        "",
    ),
    (
        r#"{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,8]}}"#,
        8,
        Some("a"),
        "takes 16 bytes, but data_offsets [0, 8] hold 8",
        "",
    ),
    // cover
    (r#"{"a":{"dtype":"U8","shape":[0],"data_offsets":[1,0]}}"#, 1, Some("a"), "reversed", ""),
    (
        r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#,
        2,
        Some("a"),
        "1 bytes before data_offsets [1, 2] belong to no tensor",
        "",
    ),
    (
        r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[3,4]}}"#,
        4,
        Some("b"),
        "2 bytes before",
        "",
    ),
    (
        r#"{"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]},"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}"#,
        3,
        Some("b"),
        "overlap those of \"a\"",
        "",
    ),
    (
        r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}"#,
        2,
        Some("b"),
        "overlap",
        "",
    ),
    (
        r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#,
        3,
        None,
        "2 bytes after the last tensor belong to none",
        "",
    ),
    (r#"{}"#, 3, None, "3 bytes after", ""),
    (
        r#"{"a":{"dtype":"U8","shape":[5],"data_offsets":[0,5]}}"#,
        3,
        Some("a"),
        "which has only 3",
        "truncated",
    ),
    // metadata
    (r#"{"__metadata__":{"format":1}}"#, 0, None, "__metadata__, whose values must be text", ""),
    (r#"{"__metadata__":"pt"}"#, 0, None, "__metadata__", ""),
    (r#"{"__metadata__":{"a":"1","a":"2"}}"#, 0, None, "has the field \"a\" twice", ""),
    (r#"{"__metadata__":{},"__metadata__":{}}"#, 0, None, "twice", ""),
];

#[test]
fn each_broken_rule_has_its_own_error() {
    for (header, data, key, message, hint) in CASES {
        let bytes = file(header, &vec![0; *data]);
        let error = match StateDict::from_bytes(bytes) {
            Ok(_) => panic!("accepted: {header}"),
            Err(error) => error,
        };
        assert!(error.to_string().contains(message), "{header}\n{error}\nshould say: {message}");
        assert_eq!(error.key(), *key, "{header}\n{error}");
        assert!(
            error.advice().unwrap_or_default().contains(hint),
            "{header}\n{:?}\nshould hint: {hint}",
            error.advice()
        );
    }
}

#[test]
fn the_crate_refuses_them_too_but_for_what_it_is_lax_in() {
    for (header, data, _, message, _) in CASES {
        let bytes = file(header, &vec![0; *data]);
        if safetensors::SafeTensors::deserialize(&bytes).is_ok() {
            let lax = ["twice", "does not begin with `{`", "invalid type: sequence"];
            assert!(
                lax.contains(message) || message.contains("\"a\" twice"),
                "the crate accepts {header}"
            );
        }
    }
}

#[test]
fn lengths_that_lie() {
    let length = |len: u64, rest: &[u8]| [&len.to_le_bytes(), rest].concat();
    for (bytes, message) in [
        (vec![], "the file is empty"),
        (vec![2, 0, 0], "the file has 3 bytes"),
        (length(0, b""), "the header is empty"),
        (length(3, b"{}"), "claims 3 bytes, but the file has only 10"),
        (length(100_000_001, b"{}"), "limit is 100000000"),
        (length(u64::MAX, b"{}"), "limit is 100000000"),
        (length(99_999_999, b"{}"), "but the file has only 10"),
        (length(4, b"{\"\xff\""), "not UTF-8"),
    ] {
        let error = fails(StateDict::from_bytes(bytes.clone()));
        assert!(error.to_string().contains(message), "{bytes:?}\n{error}");
    }
    assert!(StateDict::from_bytes(length(2, b"{}")).unwrap().is_empty());
}

#[test]
fn truncated_anywhere() {
    let whole = bytes_of(&[("a.weight", &[1; 40]), ("b.weight", &[2; 40])]);
    for len in 0..whole.len() {
        fails(StateDict::from_bytes(whole[..len].to_vec()));
    }
    assert_eq!(StateDict::from_bytes(whole).unwrap().len(), 2);
}

#[test]
fn other_kinds_of_files_are_named() {
    for (start, kind, message) in [
        (&b"version https://git-lfs.github.com/spec/v1\noid sha256:00"[..], ErrorKind::Corrupt, "git-lfs pointer"),
        (b"<!DOCTYPE html><html>", ErrorKind::Corrupt, "HTML"),
        (b"\n <html>", ErrorKind::Corrupt, "HTML"),
        (b"PK\x03\x04\x14\x00\x00\x00\x08\x00", ErrorKind::Unsupported, "zip archive"),
        (
            b"PK\x03\x04\x14\x00\x00\x00\x00\x00ttddCRCCsizesizE\x37\x00\x00\x00params/img/Transformer/encoderblock/LayerNorm_0/one.npy\x93NUMPY",
            ErrorKind::Unsupported,
            "NumPy",
        ),
        (
            b"PK\x03\x04\x00\x00\x00\x08\x00\x00ttddCRCCsizesizE\x10\x00\x00\x00archive/data.pkl\x80\x02",
            ErrorKind::Unsupported,
            "torch.save",
        ),
        (b"PK\x03\x04\x00\x00\x00\x08\x00\x00ttddCRCCsizesizE\xff\xff\x00\x00a/b", ErrorKind::Unsupported, "this is a zip archive"),
        (b"PK\x05\x06\x00\x00\x00\x00", ErrorKind::Unsupported, "empty zip archive"),
        (b"\x93NUMPY\x01\x00v\x00{'descr'", ErrorKind::Unsupported, "NumPy array"),
        (b"\x80\x02}q\x00.", ErrorKind::Unsupported, "pickle"),
        (b"GGUF\x03\x00\x00\x00\x00\x00", ErrorKind::Unsupported, "GGUF"),
        (b"\x1f\x8b\x08\x00\x00\x00\x00\x00", ErrorKind::Unsupported, "compressed"),
    ] {
        let error = fails(StateDict::from_bytes(start.to_vec()));
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains(message), "{error}");
        assert!(error.advice().is_some(), "{error}");
    }
}

#[test]
fn deep_nesting_is_an_error_not_an_overflow() {
    let deep = format!(r#"{{"a":{{"x":{}}}}}"#, "[".repeat(1_000_000));
    assert!(fails(StateDict::from_bytes(file(&deep, &[]))).to_string().contains("recursion limit"));
}

#[test]
fn rank_is_limited() {
    let header = |rank: usize| {
        format!(
            r#"{{"a":{{"dtype":"U8","shape":[1{}],"data_offsets":[0,1]}}}}"#,
            ",1".repeat(rank - 1)
        )
    };
    assert_eq!(
        StateDict::from_bytes(file(&header(64), &[0]))
            .unwrap()
            .header()
            .get("a")
            .unwrap()
            .shape
            .len(),
        64
    );
    let error = fails(StateDict::from_bytes(file(&header(65), &[0])));
    assert_eq!(error.key(), Some("a"));
    assert!(error.message().contains("more than 64 dimensions"), "{error}");
}

#[test]
fn long_keys_are_refused() {
    let header = |len: usize| {
        format!(r#"{{"{}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}}}"#, "k".repeat(len))
    };
    assert_eq!(StateDict::from_bytes(file(&header(65536), &[])).unwrap().len(), 1);
    let error = fails(StateDict::from_bytes(file(&header(65537), &[])));
    assert_eq!(error.kind(), ErrorKind::Limit);
    assert!(error.to_string().len() < 200, "{error}");
}

#[test]
fn a_header_that_the_format_cannot_hold_is_not_written() {
    let refused = |entries: &[(&str, Dtype, &[u64])], message: &str| {
        let entries: Vec<_> = entries
            .iter()
            .map(|(key, dtype, shape)| (Key::from(*key), TensorInfo::new(*dtype, *shape)))
            .collect();
        let error = fails(safetensors_header(&entries, &BTreeMap::new()));
        assert!(error.to_string().contains(message), "{error}");
    };
    refused(&[("a", Dtype::U8, &[1]), ("b", Dtype::U8, &[1]), ("a", Dtype::U8, &[1])], "twice");
    refused(&[("__metadata__", Dtype::U8, &[1])], "of this name");
    refused(&[("a", Dtype::F4, &[3])], "no whole number of bytes");
    refused(&[("a", Dtype::F64, &[u64::MAX])], "exceeds 64 bits");
    // The largest tensor has 2^61 - 1 bytes, as its bits must fit; nine exceed a file, and so do
    // eight with a header.
    let keys = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
    let largest = keys.map(|key| (key, Dtype::U8, &[(1 << 61) - 1][..]));
    refused(&largest, "the file would exceed 64 bits");
    refused(&largest[..8], "the file would exceed 64 bits");
    refused(&[("a", Dtype::U8, &[1; 65])], "more than 64 dimensions");
    refused(&[(&"k".repeat(65537), Dtype::U8, &[1])], "the limit is 65536");
    let metadata = BTreeMap::from([("x".to_owned(), "y".repeat(100_000_000))]);
    assert_eq!(fails(safetensors_header(&[], &metadata)).kind(), ErrorKind::Limit);
}
