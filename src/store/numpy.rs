//! NumPy's files: `.npy`, one array, and `.npz`, a zip archive of them.
//!
//! An array's header is a Python literal, which is read as one: nothing of it is evaluated.
//!
//! Source: `numpy.lib.format` of NumPy 2.

use std::path::Path;

use super::archive::{Archive, Packed, Window};
use super::boxes::{Blob, Boxes};
use super::contents::{Contents, FILE, packed};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::tensor::{Dtype, MAX_RANK, Remark, Shape, TensorInfo};

const MAGIC: &[u8] = b"\x93NUMPY";

/// The most bytes of an array's header that are read.
const MAX_HEADER: u64 = 1 << 20;

/// Whether an archive is one of arrays.
pub(super) fn is_archive(archive: &Archive<'_>) -> bool {
    let ends = |ending: &str| archive.members().iter().any(|it| it.name.ends_with(ending));
    ends(".npy") && !ends("data.pkl")
}

/// Reads an archive of arrays: each is called as its member, without the ending.
///
/// # Errors
/// If it is broken.
pub(super) fn archive(archive: &Archive<'_>, file: &str) -> Result<Contents> {
    let mut reader = Reader::default();
    for member in archive.members() {
        let Some(key) = member.name.strip_suffix(".npy") else {
            reader.others.push(member.name.clone());
            continue;
        };
        let here = |error: Error| error.at_key(key);
        let place = archive.place(member).map_err(here)?;
        let head = archive.head(member, MAX_HEADER).map_err(here)?;
        let header = Header::read(&head).map_err(here)?;
        let array = match header.array() {
            Ok(array) => array,
            Err(what) => {
                reader.lost.push((Key::from(key), what));
                continue;
            }
        };
        array.fits(member.len).map_err(here)?;
        if member.deflated {
            let swap = u8::try_from(array.swap).unwrap_or(1);
            if array.swap > 1 && array.start % u64::from(swap) != 0 {
                let what = "an array of the other byte order behind an odd header";
                reader.lost.push((Key::from(key), what.to_owned()));
                continue;
            }
            let blob = reader.packed(Packed::member(member, place, swap));
            reader.add(key, array.boxes(blob, array.start).map_err(here)?, [0, 0]);
        } else {
            reader.stored(key, &array, place).map_err(here)?;
        }
    }
    Ok(reader.done(file))
}

/// Reads one array: it is called as its file, without the ending.
///
/// # Errors
/// If it is broken.
pub(super) fn array(window: Window<'_>, file: &str) -> Result<Contents> {
    let key = Path::new(file).file_stem().and_then(|stem| stem.to_str()).unwrap_or("array");
    let mut reader = Reader::default();
    let header = Header::read(&window.head(MAX_HEADER)?)?;
    match header.array() {
        Ok(array) => {
            array.fits(window.len())?;
            reader.stored(key, &array, window)?;
        }
        Err(what) => reader.lost.push((Key::from(key), what)),
    }
    Ok(reader.done(file))
}

#[derive(Default)]
struct Reader {
    contents: Contents,
    lost: Vec<(Key, String)>,
    /// Members that are no arrays.
    others: Vec<String>,
}

impl Reader {
    fn packed(&mut self, bytes: Packed) -> Blob {
        self.contents.packed.push(bytes);
        packed(self.contents.packed.len() - 1)
    }

    fn add(&mut self, key: &str, boxes: Boxes, run: [u64; 2]) {
        self.contents.tensors.insert(Key::from(key), (boxes.info().clone(), run));
        if run == [0, 0] || boxes.run().is_none() {
            self.contents.parts.insert(Key::from(key), boxes);
        }
    }

    /// An array whose bytes are in the file as they are.
    fn stored(&mut self, key: &str, array: &Array, place: Window<'_>) -> Result<()> {
        let start = place.start().saturating_add(array.start);
        if array.swap > 1 {
            let swap = u8::try_from(array.swap).unwrap_or(1);
            let blob = self.packed(Packed::bytes(key.to_owned(), start, array.len, swap));
            self.add(key, array.boxes(blob, 0)?, [0, 0]);
        } else {
            let run = [start, start.saturating_add(array.len)];
            self.add(key, array.boxes(FILE, start)?, run);
        }
        Ok(())
    }

    fn done(mut self, file: &str) -> Contents {
        if !self.lost.is_empty() {
            let file = file.to_owned();
            self.contents.remarks.push(Remark::Unreadable { file, tensors: self.lost });
        }
        if !self.others.is_empty() {
            let (file, plain) = (file.to_owned(), self.others);
            self.contents.remarks.push(Remark::LeftOut { file, trees: Vec::new(), plain });
        }
        self.contents
    }
}

/// What an array's header says.
#[derive(Debug, PartialEq, Eq)]
struct Header {
    /// The dtype; `None` if it is no plain one.
    dtype: Option<String>,
    /// Whether the first dimension is the one whose elements lie side by side.
    fortran: bool,
    shape: Vec<u64>,
    /// Where the elements begin.
    start: u64,
}

/// An array in the terms of safetensors.
struct Array {
    info: TensorInfo,
    strides: Shape,
    start: u64,
    len: u64,
    /// How many bytes are swapped at a time; 1: none.
    swap: u64,
}

impl Array {
    fn fits(&self, len: u64) -> Result<()> {
        let end = self.start.checked_add(self.len);
        if end == Some(len) {
            return Ok(());
        }
        let has = len.saturating_sub(self.start);
        let info = &self.info;
        Err(Error::corrupt(format!("{info} takes {} bytes, and there are {has}", self.len)))
    }

    fn boxes(&self, blob: Blob, offset: u64) -> Result<Boxes> {
        Boxes::strided(self.info.clone(), blob, offset, self.strides.clone())
    }
}

impl Header {
    fn read(bytes: &[u8]) -> Result<Self> {
        let broken = || Error::corrupt("it has no readable header of a NumPy array");
        let rest = bytes.strip_prefix(MAGIC).ok_or_else(broken)?;
        let (len, text) = match rest {
            [1, _, a, b, text @ ..] => (u64::from(u16::from_le_bytes([*a, *b])), text),
            [2 | 3, _, a, b, c, d, text @ ..] => {
                (u64::from(u32::from_le_bytes([*a, *b, *c, *d])), text)
            }
            _ => return Err(broken()),
        };
        let before = (bytes.len() - text.len()) as u64;
        if len > MAX_HEADER {
            let why = format!("an array's header of {len} bytes; {MAX_HEADER} are read");
            return Err(Error::new(ErrorKind::Limit, why));
        }
        let text = usize::try_from(len).ok().and_then(|len| text.get(..len)).ok_or_else(broken)?;
        let text = std::str::from_utf8(text).map_err(|_| broken())?;
        let mut header = literal(text).ok_or_else(broken)?;
        header.start = before + len;
        Ok(header)
    }

    /// The array, or what it is that can't be read.
    fn array(&self) -> std::result::Result<Array, String> {
        let name = self.dtype.as_deref().ok_or("an array of records")?;
        let (order, name) = match name.split_at_checked(1) {
            Some((order @ ("<" | ">" | "|" | "="), name)) => (order, name),
            _ => ("|", name),
        };
        let dtype = DTYPES.iter().find(|(known, _)| *known == name).map(|(_, dtype)| *dtype);
        let dtype = dtype.ok_or_else(|| match name.split_at_checked(1) {
            Some(("O", _)) => "an array of Python objects, which is a pickle".to_owned(),
            Some(("V", _)) => {
                format!("an array of dtype {name}, which NumPy itself doesn't know")
            }
            _ => format!("an array of dtype {name}"),
        })?;
        if self.shape.len() > MAX_RANK {
            return Err(format!("an array of {} dimensions", self.shape.len()));
        }
        let info = TensorInfo::new(dtype, self.shape.clone());
        let len = info.nbytes().ok_or("an array whose size exceeds 64 bits")?;
        let strides = if self.fortran {
            let mut step = 1u64;
            let strides = self.shape.iter().map(|n| {
                let stride = step;
                step = step.saturating_mul(*n);
                stride
            });
            strides.collect::<Vec<u64>>()
        } else {
            info.shape.contiguous_strides()
        };
        // Parts of a complex number are swapped one by one.
        let size = dtype.element() / if dtype == Dtype::C64 { 2 } else { 1 };
        let swap = if order == ">" { size } else { 1 };
        Ok(Array { info, strides: strides.into(), start: self.start, len, swap })
    }
}

/// NumPy's dtypes, without the byte order.
const DTYPES: &[(&str, Dtype)] = &[
    ("b1", Dtype::Bool),
    ("i1", Dtype::I8),
    ("i2", Dtype::I16),
    ("i4", Dtype::I32),
    ("i8", Dtype::I64),
    ("u1", Dtype::U8),
    ("u2", Dtype::U16),
    ("u4", Dtype::U32),
    ("u8", Dtype::U64),
    ("f2", Dtype::F16),
    ("f4", Dtype::F32),
    ("f8", Dtype::F64),
    ("c8", Dtype::C64),
];

/// Reads `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`, in any order of fields.
fn literal(text: &str) -> Option<Header> {
    let mut rest = text.trim().strip_prefix('{')?.strip_suffix('}')?.trim();
    let (mut dtype, mut fortran, mut shape) = (None, None, None);
    while !rest.is_empty() {
        let (field, behind) = quoted(rest)?;
        rest = behind.trim_start().strip_prefix(':')?.trim_start();
        match field {
            "descr" if rest.starts_with(['\'', '"']) => {
                let (name, behind) = quoted(rest)?;
                (dtype, rest) = (Some(Some(name.to_owned())), behind);
            }
            // A list of fields, which may hold lists itself.
            "descr" => {
                (dtype, rest) = (Some(None), behind_list(rest)?);
            }
            "fortran_order" => {
                let is = rest.starts_with("True");
                rest = rest.strip_prefix("True").or_else(|| rest.strip_prefix("False"))?;
                fortran = Some(is);
            }
            "shape" => {
                let (sizes, behind) = rest.strip_prefix('(')?.split_once(')')?;
                let sizes = sizes.split(',').map(str::trim).filter(|size| !size.is_empty());
                // Python 2 wrote an L behind.
                let sizes = sizes.map(|size| size.trim_end_matches('L').parse().ok());
                (shape, rest) = (Some(sizes.collect::<Option<Vec<u64>>>()?), behind);
            }
            _ => return None,
        }
        rest = rest.trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
    }
    Some(Header { dtype: dtype?, fortran: fortran?, shape: shape?, start: 0 })
}

/// A text in quotes, and what follows it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|quote| matches!(quote, '\'' | '"'))?;
    text.get(1..)?.split_once(quote)
}

/// What follows a list, which is passed over.
fn behind_list(text: &str) -> Option<&str> {
    let mut depth = 0usize;
    for (at, char) in text.char_indices() {
        match char {
            '[' | '(' => depth += 1,
            ']' | ')' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return text.get(at + 1..);
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_literals() {
        let header =
            |text: &str| literal(text).map(|header| (header.dtype, header.fortran, header.shape));
        let plain = |name: &str, fortran, shape: &[u64]| {
            Some((Some(name.to_owned()), fortran, shape.to_vec()))
        };
        assert_eq!(
            header("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }   \n"),
            plain("<f4", false, &[3, 4])
        );
        assert_eq!(
            header("{'shape': (), 'fortran_order': True, 'descr': '|b1'}"),
            plain("|b1", true, &[])
        );
        assert_eq!(
            header("{'descr': '>i8', 'fortran_order': False, 'shape': (5L,)}"),
            plain(">i8", false, &[5])
        );
        assert_eq!(
            header(
                "{'descr': [('a', '<f4', (2,)), ('b', 'S3')], 'fortran_order': False, 'shape': (1,)}"
            ),
            Some((None, false, vec![1]))
        );
        for broken in [
            "",
            "{",
            "{}",
            "{'descr': '<f4', 'fortran_order': False}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
            "{'descr': '<f4', 'fortran_order': maybe, 'shape': (1,)}",
            "{'descr': [('a', 'fortran_order': False, 'shape': (1,)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'more': 1}",
        ] {
            assert_eq!(header(broken), None, "{broken}");
        }
    }
}
