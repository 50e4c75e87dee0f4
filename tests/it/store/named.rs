//! Files with names before their keys: what a header says of keys goes along, and bytes are found.

use std::collections::BTreeMap;

use regraft::error::{ErrorKind, Result};
use regraft::key::{Key, RankFiles};
use regraft::store::{Checkpoint, NamedPath, OpenOptions, Store as _, open_named};
use regraft::tensor::{Dtype, Remark, TensorInfo};
use tempfile::tempdir;

use super::{bytes_of, fails, write, write_index};

fn named(paths: &[(&str, std::path::PathBuf)]) -> Result<Checkpoint> {
    let of = |(name, path): &(&str, std::path::PathBuf)| NamedPath {
        name: Some((*name).to_owned()),
        path: path.clone(),
    };
    open_named(&paths.iter().map(of).collect::<Vec<_>>(), None, &OpenOptions::default())
}

fn byte(checkpoint: &Checkpoint, key: &str) -> u8 {
    let mut byte = [0];
    checkpoint.read_at(key, 0, &mut byte).unwrap();
    byte[0]
}

#[test]
fn bytes_are_found_and_the_places_stay() {
    let directory = tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    write(directory.path(), "a", bytes_of(&[("w", b"a"), ("x", b"A")]));
    write(directory.path(), "b", bytes_of(&[("w", b"b")]));
    let both = named(&[("r0", path("a")), ("r.1", path("b"))]).unwrap();
    let keys: Vec<&str> = both.header().tensors.keys().map(Key::as_str).collect();
    assert_eq!(keys, ["r0.w", "r0.x", "r.1.w"]);
    assert_eq!(["r0.w", "r0.x", "r.1.w"].map(|key| byte(&both, key)), [b'a', b'A', b'b']);
    assert_eq!(both.view("r.1.w").unwrap().to_vec(), b"b");
    assert_eq!(fails(both.boxes("w")).kind(), ErrorKind::Corrupt);
    // Named otherwise, it is another source: what was made of one is not continued with the other.
    let other = named(&[("r0", path("a")), ("r.2", path("b"))]).unwrap();
    assert_ne!(both.identity(), other.identity());
}

#[test]
fn what_the_metadata_says_of_keys_goes_along() {
    let directory = tempdir().unwrap();
    let infos = [(Key::from("embed"), TensorInfo::new(Dtype::U8, vec![1]))];
    let says = [("head", "embed"), ("format", "pt")];
    let says: BTreeMap<String, String> =
        says.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let (mut bytes, _) = regraft::store::safetensors_header(&infos, &says).unwrap();
    bytes.push(7);
    let paths = ["a", "b"].map(|name| {
        write(directory.path(), name, &bytes);
        (name, directory.path().join(name))
    });
    let both = named(&paths).unwrap();
    let aliases: Vec<(&str, &str)> =
        both.header().aliases().map(|(alias, kept)| (alias, kept.as_str())).collect();
    assert_eq!(aliases, [("a.head", "a.embed"), ("b.head", "b.embed")]);
    assert_eq!(both.header().metadata["format"], "pt");
    assert!(both.notes().is_empty(), "{:?}", both.notes());
}

#[test]
fn what_is_odd_about_a_directory_is_told_by_its_new_keys() {
    let directory = tempdir().unwrap();
    write(directory.path(), "model-1.safetensors", bytes_of(&[("a", b"a")]));
    write(directory.path(), "more.safetensors", bytes_of(&[("b", b"b")]));
    let listed = [("a", "model-1.safetensors")];
    write_index(directory.path(), "model.safetensors.index.json", &listed);
    let one = named(&[("r", directory.path().to_owned())]).unwrap();
    let unlisted =
        Remark::Unlisted { file: "more.safetensors".to_owned(), keys: vec![Key::from("r.b")] };
    assert_eq!(one.header().remarks, [unlisted]);
}

#[test]
fn ranks_of_a_directory_are_told_by_their_numbers_and_nothing_else_is_read() {
    let directory = tempdir().unwrap();
    for (name, tensor) in [("c.00.pth", b"0"), ("c.010.safetensors", b"x"), ("c.2.pth", b"2")] {
        write(directory.path(), name, bytes_of(&[("w", tensor)]));
    }
    write(directory.path(), "other.safetensors", "no tensors");
    // A header of safetensors is known by its content.
    let ranks = RankFiles::parse("c.{r}.pth", "r").unwrap();
    let open = |paths: &[NamedPath]| open_named(paths, Some(&ranks), &OpenOptions::default());
    let all = open(&[directory.path().into()]).unwrap();
    let keys: Vec<&str> = all.header().tensors.keys().map(Key::as_str).collect();
    assert_eq!(keys, ["0.w", "2.w", "10.w"], "in the order of the ranks");
    assert_eq!(byte(&all, "10.w"), b'x');
    assert_eq!(all.ignored(), [directory.path().join("other.safetensors")]);
    assert_eq!(all.header().remarks, []);

    let part = open(&[directory.path().join("c.2.pth").into()]).unwrap();
    assert_eq!(byte(&part, "2.w"), b'2');
    let others = ["c.00.pth", "c.010.safetensors"].map(str::to_owned).to_vec();
    let left = Remark::Ranks { file: "c.2.pth".to_owned(), others };
    assert_eq!(part.header().remarks, [left]);

    // A name that is given wins over the number.
    let path = directory.path().join("c.2.pth");
    let one = open(&[NamedPath { name: Some("last".to_owned()), path }]).unwrap();
    assert_eq!(byte(&one, "last.w"), b'2');
}

#[test]
fn a_name_that_is_no_segment_or_is_given_twice_is_refused() {
    let directory = tempdir().unwrap();
    write(directory.path(), "a", bytes_of(&[("w", b"a")]));
    let path = || directory.path().join("a");
    for name in ["", ".", "a.", ".a", "a..b"] {
        let error = fails(named(&[(name, path())]));
        assert!(error.message().contains("can't stand before a key"), "{error}");
    }
    let error = fails(named(&[("a", path()), ("b", path()), ("a", path())]));
    assert!(error.message().contains("the name `a` is given twice"), "{error}");
    let error = fails(open_named(&[], None, &OpenOptions::default()));
    assert_eq!(error.message(), "no checkpoint is given");
}
