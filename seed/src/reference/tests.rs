//! Expected values were computed with CPython 3.11.

use super::*;

#[test]
fn int_takes_what_python_takes() {
    for (text, value) in [
        ("0", 0),
        (" 3 ", 3),
        ("\u{b}7\t", 7),
        ("\u{2003}3", 3),
        ("+2", 2),
        ("-1", -1),
        ("1_0", 10),
        ("007", 7),
        ("٣", 3),
        ("१२", 12),
        ("1٣", 13),
        ("\u{1D7D8}5", 5),
        ("170141183460469231731687303715884105727", i128::MAX),
        ("-170141183460469231731687303715884105728", i128::MIN),
    ] {
        assert_eq!(int(text), Ok(value), "{text:?}");
    }
}

#[test]
fn int_refuses_what_python_refuses() {
    for (text, shown) in [
        ("", "''"),
        ("abc", "'abc'"),
        ("3.0", "'3.0'"),
        ("0x1", "'0x1'"),
        ("_1", "'_1'"),
        ("1_", "'1_'"),
        ("1__0", "'1__0'"),
        ("+ 2", "'+ 2'"),
        ("--1", "'--1'"),
        ("²", "'²'"),
        ("it's\n", "\"it's\\n\""),
        ("\u{1f}7", "'\\x1f7'"),
    ] {
        let raised = int(text).unwrap_err();
        assert_eq!(
            (raised.kind, raised.message),
            ("ValueError", format!("invalid literal for int() with base 10: {shown}"))
        );
    }
    assert_eq!(int(&"9".repeat(60)).unwrap_err().kind, "OverflowError");
}

#[test]
fn utf8_errors_read_like_pythons() {
    for (bytes, message) in [
        (&b"a\xff"[..], "byte 0xff in position 1: invalid start byte"),
        (b"\x80", "byte 0x80 in position 0: invalid start byte"),
        (b"\xc0\xaf", "byte 0xc0 in position 0: invalid start byte"),
        (b"\xe2(", "byte 0xe2 in position 0: invalid continuation byte"),
        (b"\xe2\x82(", "bytes in position 0-1: invalid continuation byte"),
        (b"ab\xe2\x82", "bytes in position 2-3: unexpected end of data"),
        (b"\xe2", "byte 0xe2 in position 0: unexpected end of data"),
        (b"\xed\xa0\x80", "byte 0xed in position 0: invalid continuation byte"),
        (b"\xf5", "byte 0xf5 in position 0: invalid start byte"),
    ] {
        let raised = decode_utf8(bytes).unwrap_err();
        assert_eq!(
            (raised.kind, raised.message),
            ("UnicodeDecodeError", format!("'utf-8' codec can't decode {message}")),
            "{bytes:?}"
        );
    }
    assert_eq!(decode_utf8("é".as_bytes()), Ok("é"));
}

#[test]
fn json_takes_what_python_takes() {
    let get = |text: &str| parse(text).unwrap().and_then(|value| value.get("a").cloned());
    let number = |digits: &str| Some(Json::Int(PyNumber::from_digits(digits)));
    assert_eq!(get(r#"{"a": 1, "a": 2}"#), number("2"));
    assert_eq!(get(r#" {"a" : -0 } "#), number("0"));
    assert_eq!(get(r#"{"a": 99999999999999999999999}"#), number("99999999999999999999999"));
    assert_eq!(
        get(&format!("{{\"a\": {}}}", "9".repeat(50))),
        Some(Json::Int(PyNumber::Big("9".repeat(50))))
    );
    for float in ["1.0", "1e9", "1E-2", "NaN", "Infinity", "-Infinity"] {
        assert_eq!(get(&format!("{{\"a\": {float}}}")), Some(Json::Float), "{float}");
    }
    assert_eq!(get("{\"a\": \"\\u00e9\\ud83d\\ude00\\n\"}"), Some(Json::Text("é😀\n".into())));
    assert_eq!(get("{\"a\": \"\\ud800\"}"), Some(Json::Text("\u{fffd}".into())));
    assert_eq!(get(r#"{"b": 1}"#), None);
}

#[test]
fn json_refuses_what_python_refuses() {
    for text in [
        "",
        "  ",
        "{",
        "{\"a\": 1,}",
        "[1,]",
        "01",
        "1.",
        "-",
        "nan",
        "{'a': 1}",
        "{\"a\": 1} x",
        "\"\t\"",
        "\"\\x\"",
        "\u{feff}{}",
        "tru",
    ] {
        assert_eq!(parse(text), Ok(None), "{text:?}");
    }
    assert_eq!(parse(&"[".repeat(2000)).unwrap_err().kind, "RecursionError");
    assert_eq!(parse(&"1".repeat(4301)).unwrap_err().kind, "ValueError");
    assert!(parse(&"1".repeat(4300)).is_ok());
}

#[test]
fn numbers_show_as_in_python() {
    assert_eq!(format_output_file_count(&PyNumber::Bool(true)), "True output file");
    assert_eq!(format_output_file_count(&PyNumber::Float(1.0)), "1.0 output file");
    assert_eq!(format_output_file_count(&PyNumber::Int(-1)), "-1 output files");
    let bytes = |number| format_bytes(&number).unwrap();
    assert_eq!(bytes(PyNumber::Int(-1)), "-0.0 GiB");
    assert_eq!(bytes(PyNumber::Float(f64::NAN)), "nan GiB");
    assert_eq!(
        bytes(PyNumber::Big("1".to_owned() + &"0".repeat(40))),
        "9313225746154785439172786126848.0 GiB"
    );
    assert_eq!(format_bytes(&PyNumber::Big("9".repeat(400))).unwrap_err().kind, "OverflowError");
}

#[test]
fn only_text_and_directories_are_model_names() {
    let resolve = |name, dir: bool| resolve_trust_remote_code(&name, |_| dir);
    assert_eq!(resolve(ModelName::Falsy, false), Ok(false));
    assert_eq!(resolve(ModelName::Text("nvidia/x".into()), false), Ok(true));
    assert_eq!(resolve(ModelName::Text("nvidia/x".into()), true), Ok(false));
    assert_eq!(resolve(ModelName::Path("x".into(), "PosixPath"), true), Ok(false));
    let raised = resolve(ModelName::Path("x".into(), "PosixPath"), false).unwrap_err();
    assert_eq!(
        raised.to_string(),
        "AttributeError: 'PosixPath' object has no attribute 'startswith'"
    );
    let kind = |name| resolve(name, false).unwrap_err().kind;
    assert_eq!(kind(ModelName::Int("bool")), "AttributeError");
    assert_eq!(kind(ModelName::Bytes(b"nvidia/x".to_vec())), "TypeError");
    assert_eq!(kind(ModelName::Other("list".into())), "TypeError");
}
