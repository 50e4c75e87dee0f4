//! [`Format`]: what a file of tensors is, and reading what it holds.

use std::fmt;

use super::archive::{Archive, Window, is_tar};
use super::contents::Contents;
use super::numpy;
use super::safetensors::{HEAD, read_header};
use super::torch::{self, Container};
use crate::error::Result;

/// The format of a file of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// A safetensors file.
    Safetensors,
    /// What `torch.save` writes: `.pt`, `.pth`, `.bin`, `.ckpt`.
    Torch,
    /// What `torch.distributed.checkpoint` writes: `.distcp`, parts of tensors.
    Distributed,
    /// A NumPy array or archive of arrays: `.npy`, `.npz`.
    Numpy,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Safetensors => "safetensors",
            Self::Torch => "torch.save",
            Self::Distributed => "torch.distributed.checkpoint",
            Self::Numpy => "NumPy",
        })
    }
}

/// The format that the first bytes of a file show, if they show one.
pub(super) fn of_head(head: &[u8]) -> Option<Format> {
    if head.starts_with(b"\x93NUMPY") {
        return Some(Format::Numpy);
    }
    if is_tar(head) {
        return Some(Format::Torch);
    }
    if head.starts_with(ZIP) {
        // Which of both, its members say.
        return Some(Format::Torch);
    }
    // A stream of pickles begins with the magic number of torch.save: PROTO, then ten bytes of
    // LONG1.
    let magic = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
    let is_stream = matches!(head, [0x80, 2..=5, ..])
        && head.get(2..).is_some_and(|rest| {
            rest.starts_with(magic) || rest.get(9..).is_some_and(|rest| rest.starts_with(magic))
        });
    is_stream.then_some(Format::Torch)
}

/// Reads what a file holds. A file is what its content says; its name counts only where it says
/// `.safetensors`.
///
/// # Errors
/// If it is of no format that is read, or breaks the rules of its own.
pub(super) fn read(
    name: &str,
    window: Window<'_>,
    root: Option<&str>,
) -> Result<(Format, Contents)> {
    let head = window.head(HEAD)?;
    let is_named = name.ends_with(".safetensors");
    let format = if is_named { None } else { of_head(&head) };
    let Some(format) = format else {
        let contents = read_header(window)?;
        return Ok((Format::Safetensors, contents));
    };
    if format == Format::Numpy {
        return Ok((format, numpy::array(window, name)?));
    }
    let saved = if head.starts_with(ZIP) {
        let archive = Archive::read(window)?;
        if numpy::is_archive(&archive) {
            return Ok((Format::Numpy, numpy::archive(&archive, name)?));
        }
        Container::archive(archive)?
    } else {
        Container::read(window)?
    };
    let mut contents = torch::contents(saved, root, name)?;
    contents.note_shared();
    Ok((format, contents))
}

/// How a zip archive begins.
const ZIP: &[u8] = b"PK\x03\x04";
