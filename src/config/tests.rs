use std::fs;

use serde_json::json;

use super::*;

fn written(bytes: &[u8]) -> (tempfile::TempDir, Result<Config>) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.json"), bytes).unwrap();
    let config = Config::read(dir.path());
    (dir, config)
}

#[test]
fn reads_a_file_or_its_directory() {
    let (dir, config) = written(br#"{"model_type": "llama"}"#);
    let config = config.unwrap();
    assert_eq!(config.model_type(), Some("llama"));
    assert_eq!(Config::read(dir.path().join("config.json")).unwrap(), config);
}

#[test]
fn bytes_need_no_file() {
    let config = Config::from_json(b"\xEF\xBB\xBF{\"a\": NaN, \"model_type\": \"llama\"}").unwrap();
    assert_eq!(config.value(), &json!({"a": null, "model_type": "llama"}));
    let error = Config::from_json(b"[]").unwrap_err();
    assert_eq!((error.kind(), error.file()), (ErrorKind::Corrupt, None));
    let long = vec![b' '; usize::try_from(MAX_BYTES).unwrap() + 1];
    assert_eq!(Config::from_json(&long).unwrap_err().kind(), ErrorKind::Limit);
}

#[test]
fn an_error_names_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let error = Config::read(dir.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert_eq!(error.file(), Some(dir.path().join("config.json").as_path()));
    for (bytes, message) in [
        (&b"{"[..], "not a JSON object"),
        (b"[]", "this is an array"),
        (b"null", "this is null"),
        (b"\xEF\xBB\xBF\xEF\xBB\xBF{}", "not a JSON object"),
        (b"{\"a\": \"\xFF\"}", "not a JSON object"),
        (b"{\"a\": NaNx}", "not a JSON object"),
    ] {
        let (dir, config) = written(bytes);
        let error = config.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!(error.file(), Some(dir.path().join("config.json").as_path()));
        assert!(error.message().contains(message), "{error}");
    }
}

#[test]
fn size_and_nesting_are_limited() {
    let deep = format!("{{\"a\": {}{}}}", "[".repeat(200), "]".repeat(200));
    assert_eq!(written(deep.as_bytes()).1.unwrap_err().kind(), ErrorKind::Corrupt);
    let mut large = b"{}".to_vec();
    large.resize(usize::try_from(MAX_BYTES).unwrap(), b' ');
    assert!(written(&large).1.is_ok());
    large.push(b' ');
    assert_eq!(written(&large).1.unwrap_err().kind(), ErrorKind::Limit);
}

#[test]
fn python_constants_read_as_null_outside_strings() {
    let (_dir, config) = written(br#"{"limit": [0.0, Infinity], "low": -Infinity, "x": NaN, "text": "NaN \"Infinity\" \\", "n": -1}"#);
    let expected = json!({"limit": [0.0, null], "low": null, "x": null, "text": "NaN \"Infinity\" \\", "n": -1});
    assert_eq!(config.unwrap().value(), &expected);
}

#[test]
fn a_path_goes_through_objects_and_arrays() {
    let config = Config::from_value(json!({"a": {"b": [1, {"c": null}]}, "0": "zero"}));
    assert_eq!(config.get(&["a", "b", "0"]), Some(&json!(1)));
    assert_eq!(config.get(&["a", "b", "1", "c"]), Some(&Value::Null));
    assert_eq!(config.get(&["0"]), Some(&json!("zero")));
    for absent in
        [&["a", "c"][..], &["a", "b", "2"], &["a", "b", "-1"], &["a", "b", "x"], &["0", "0"]]
    {
        assert_eq!(config.get(absent), None, "{absent:?}");
    }
    assert_eq!(config.get::<&str>(&[]), Some(config.value()));
    assert_eq!(Config::empty().get(&["a"]), None);
    assert!(Config::empty().is_empty() && !config.is_empty());
}

#[test]
fn fields_are_dotted_and_in_order() {
    let config = Config::from_value(
        json!({"z": 1, "text_config": {"heads": 2, "rope": {"theta": 1}}, "list": [{"hidden": 1}]}),
    );
    assert_eq!(
        config.fields(),
        [
            "z",
            "text_config",
            "text_config.heads",
            "text_config.rope",
            "text_config.rope.theta",
            "list"
        ]
    );
    assert!(Config::empty().fields().is_empty());
}

#[test]
fn model_type_and_architectures_may_be_anything() {
    let config = Config::from_value(json!({"model_type": 3, "architectures": ["A", 1, "B"]}));
    assert_eq!(config.model_type(), None);
    assert_eq!(config.architectures(), ["A", "B"]);
    assert!(Config::from_value(json!({"architectures": "A"})).architectures().is_empty());
}
