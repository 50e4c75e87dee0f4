//! What a file holds, another reader said: CPython 3.11's `pickle` of the files in
//! `tests/fixtures/torch`, which PyTorch 2.15 wrote, and of small pickles that it wrote itself.

use super::*;
use crate::store::Window;

/// `d = {"a": l, "b": l, "t": (b"xy", "é", {3}), "self": d}` with
/// `l = [1, -2, 300, -2**40, 2**70, True, None, 1.5]`, in protocols 2 and 4.
const PROTOCOL_2: &[u8] = b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01]q\x02(K\x01J\xfe\xff\xff\xffM,\x01\
    \x8a\x06\x00\x00\x00\x00\x00\xff\x8a\t\x00\x00\x00\x00\x00\x00\x00\x00@\x88NG?\xf8\x00\x00\x00\x00\x00\x00e\
    X\x01\x00\x00\x00bq\x03h\x02X\x01\x00\x00\x00tq\x04c_codecs\nencode\nq\x05X\x02\x00\x00\x00xyq\x06\
    X\x06\x00\x00\x00latin1q\x07\x86q\x08Rq\tX\x02\x00\x00\x00\xc3\xa9q\nc__builtin__\nset\nq\x0b]q\x0c\
    K\x03a\x85q\rRq\x0e\x87q\x0fX\x04\x00\x00\x00selfq\x10h\x00u.";
const PROTOCOL_4: &[u8] = b"\x80\x04\x95Z\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01a\x94]\x94(K\x01\
    J\xfe\xff\xff\xffM,\x01\x8a\x06\x00\x00\x00\x00\x00\xff\x8a\t\x00\x00\x00\x00\x00\x00\x00\x00@\x88NG?\xf8\
    \x00\x00\x00\x00\x00\x00e\x8c\x01b\x94h\x02\x8c\x01t\x94C\x02xy\x94\x8c\x02\xc3\xa9\x94\x8f\x94(K\x03\x90\
    \x87\x94\x8c\x04self\x94h\x00u.";

fn fixture(name: &str) -> Vec<u8> {
    let place = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/torch");
    std::fs::read(place.join(name)).unwrap()
}

fn saved(name: &str) -> crate::error::Result<Saved> {
    let bytes = fixture(name);
    read(Window::new(&&bytes[..], bytes.len() as u64))
}

fn get<'v>(values: &'v Values, dict: Id, key: &str) -> (Id, &'v Value) {
    let entries = values.entries(dict).unwrap();
    let (_, id) = entries.iter().find(|(name, _)| values.text(*name) == Some(key)).unwrap();
    (*id, values.get(*id).unwrap())
}

#[test]
fn values_are_those_that_python_wrote() {
    for pickle in [PROTOCOL_2, PROTOCOL_4] {
        let Saved { values, root } = pickle::read(pickle, 0);
        let root = root.unwrap();
        let (list, Value::List(items)) = get(&values, root, "a") else { panic!("no list") };
        let items: Vec<Value> = items.iter().map(|id| values.get(*id).unwrap().clone()).collect();
        let expected = [
            Value::Int(1),
            Value::Int(-2),
            Value::Int(300),
            Value::Int(-(1 << 40)),
            items[4].clone(),
            Value::Bool(true),
            Value::None,
            Value::Float(1.5),
        ];
        assert_eq!(items, expected);
        let Value::List(ids) = get(&values, root, "a").1 else { panic!("no list") };
        let two_to_the_70th = [0, 0, 0, 0, 0, 0, 0, 0, 0x40];
        assert!(matches!(values.get(ids[4]), Some(Value::Long(_))));
        assert_eq!(values.bytes(ids[4]), Some(&two_to_the_70th[..]));
        assert_eq!(get(&values, root, "b").0, list, "one list under two keys");
        assert_eq!(get(&values, root, "self").0, root, "a dict that holds itself");
        let [bytes, text, set] = values.tuple(get(&values, root, "t").0) else {
            panic!("no tuple")
        };
        assert_eq!(values.text(*text), Some("é"));
        // Protocol 2 has neither bytes nor sets: it calls what makes them.
        match (values.get(*bytes).unwrap(), values.get(*set).unwrap()) {
            (Value::Bytes(_), Value::Set(items)) => {
                assert_eq!(values.bytes(*bytes), Some(&b"xy"[..]));
                assert_eq!(values.get(items[0]), Some(&Value::Int(3)));
            }
            (Value::Call(encode), Value::Call(set)) => {
                assert_eq!(values.global(encode.function), Some("_codecs.encode"));
                assert_eq!(values.global(set.function), Some("__builtin__.set"));
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Key, storage's key and length, dtype, offset, shape, strides.
type Row = (&'static str, &'static str, u64, TorchDtype, u64, &'static [u64], &'static [i64]);

#[test]
fn tensors_say_where_they_lie() {
    use TorchDtype::*;
    let rows: &[Row] = &[
        ("0.weight", "0", 4, Float32, 0, &[2, 2], &[2, 1]),
        ("0.bias", "1", 2, Float32, 0, &[2], &[1]),
        ("1.num_batches_tracked", "6", 1, Int64, 0, &[], &[]),
        ("c128", "10", 1, Complex128, 0, &[1], &[1]),
        // A parameter, and a view of the first tensor's storage.
        ("param", "11", 2, Float32, 0, &[2], &[1]),
        ("view", "0", 4, Float32, 0, &[2], &[1]),
        // Over a storage of bytes.
        ("u16", "13", 2, UInt16, 0, &[1], &[1]),
        ("e8m0", "14", 1, Float8E8m0fnu, 0, &[1], &[1]),
    ];
    let Saved { values, root } = saved("many.bin").unwrap();
    let root = root.unwrap();
    let meanings = Meanings::of(&values);
    for (key, storage, len, dtype, offset, shape, strides) in rows {
        let tensor = meanings.tensor(get(&values, root, key).0).unwrap();
        assert_eq!(
            (tensor.storage.key, tensor.storage.len, tensor.dtype, tensor.offset),
            (*storage, *len, *dtype, *offset),
            "{key}"
        );
        assert_eq!((&tensor.shape[..], &tensor.strides[..]), (*shape, *strides), "{key}");
        assert_eq!(tensor.metadata, None, "{key}");
    }
    assert_eq!(get(&values, root, "step").1, &Value::Int(3));
    assert_eq!(get(&values, root, "none").1, &Value::None);
    assert!(meanings.iter().all(|(_, meaning)| !matches!(meaning, Meaning::Unknown(_))));
}

#[test]
fn the_stream_of_old_files_holds_the_same() {
    let Saved { values, root } = saved("legacy.bin").unwrap();
    let root = root.unwrap();
    let meanings = Meanings::of(&values);
    let tensor = |key| meanings.tensor(get(&values, root, key).0).unwrap();
    assert_eq!(tensor("0.weight").shape[..], [2, 2]);
    assert_eq!(tensor("0.weight").storage, tensor("view").storage);
    assert_ne!(tensor("0.weight").storage.key, tensor("0.bias").storage.key);
}

#[test]
fn a_call_is_a_value_and_nothing_more() {
    let Saved { values, root } = saved("evil.bin").unwrap();
    assert!(root.is_ok());
    let meanings = Meanings::of(&values);
    let unknown = meanings.iter().find_map(|(_, meaning)| match meaning {
        Meaning::Unknown(Unknown::Function(name)) => Some(name.clone()),
        _ => None,
    });
    assert_eq!(unknown.as_deref(), Some("posix.system"));
}

#[test]
fn where_a_pickle_breaks_what_stands_before_is_kept() {
    for end in 0..PROTOCOL_4.len() {
        let saved = pickle::read(&PROTOCOL_4[..end], 0);
        assert_eq!(saved.root, Err(PickleError::Truncated), "cut at {end}");
        assert!(end < 14 || saved.values.iter().count() > 0, "cut at {end}");
    }
    let root = |pickle: &[u8]| pickle::read(pickle, 0).root;
    assert_eq!(root(b"N0."), Err(PickleError::Mark));
    assert_eq!(root(b"(."), Err(PickleError::Mark));
    assert_eq!(root(b"t."), Err(PickleError::NoMark));
    assert_eq!(root(b"2."), Err(PickleError::EmptyStack));
    assert_eq!(root(b"h\x07."), Err(PickleError::NotMemorized(7)));
    assert_eq!(root(b"NN\x93."), Err(PickleError::NoName));
    // NEXT_BUFFER, whose bytes come from outside: no file has it.
    assert_eq!(root(b"\x97."), Err(PickleError::Opcode(0x97)));
    // A memo ends with its pickle.
    assert_eq!(pickle::read(b"Nq\x00.h\x00.", 1).root, Err(PickleError::NotMemorized(0)));
    assert!(pickle::read(b"Nq\x00.N.", 1).root.is_ok());
}
