//! What the reference's answers are made of: Python's errors, integers and JSON, as far as its
//! functions show them.
//!
//! For the reference mode of the functions beside this module, and for callers from Python, whose
//! values the typed functions can't take.

mod int;
mod json;
mod text;
pub(super) mod unpickle;

use std::fmt;

pub use int::int;
pub(super) use json::{Json, parse};
pub(super) use text::decode_utf8;

/// An error that the reference raises, as Python names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raised {
    /// The exception's class, as `ValueError`.
    pub kind: &'static str,
    /// Its message.
    pub message: String,
}

impl Raised {
    /// An error of a class.
    pub fn new(kind: &'static str, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)
    }
}

impl std::error::Error for Raised {}

/// A number as Python has it. A boolean is one.
#[derive(Clone, Debug, PartialEq)]
pub enum PyNumber {
    /// `True` or `False`.
    Bool(bool),
    /// An integer.
    Int(i128),
    /// An integer beyond 128 bits: an optional `-` and its digits.
    Big(String),
    /// A float.
    Float(f64),
}

impl PyNumber {
    /// From decimal digits with an optional `-`, and nothing else.
    pub(super) fn from_digits(digits: &str) -> Self {
        digits.parse().map_or_else(|_| PyNumber::Big(digits.to_owned()), PyNumber::Int)
    }

    /// As a float, rounded to nearest even; infinite where it is too large for one.
    pub fn to_f64(&self) -> f64 {
        match self {
            PyNumber::Bool(value) => f64::from(u8::from(*value)),
            PyNumber::Int(value) => *value as f64,
            PyNumber::Big(digits) => digits.parse().unwrap_or(f64::INFINITY),
            PyNumber::Float(value) => *value,
        }
    }

    /// Whether `==` to 1.
    fn is_one(&self) -> bool {
        matches!(self, PyNumber::Bool(true) | PyNumber::Int(1))
            || matches!(self, PyNumber::Float(value) if *value == 1.0)
    }
}

impl fmt::Display for PyNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PyNumber::Bool(true) => f.write_str("True"),
            PyNumber::Bool(false) => f.write_str("False"),
            PyNumber::Int(value) => write!(f, "{value}"),
            PyNumber::Big(digits) => f.write_str(digits),
            // Rust's shortest form agrees with Python's but for exponents, which file counts don't
            // reach.
            PyNumber::Float(value) => write!(f, "{value:?}"),
        }
    }
}

/// `format_bytes` for any Python number.
///
/// # Errors
/// An `OverflowError` where the number is too large for a float.
pub fn format_bytes(num_bytes: &PyNumber) -> Result<String, Raised> {
    let bytes = num_bytes.to_f64();
    if bytes.is_infinite() && !matches!(num_bytes, PyNumber::Float(_)) {
        return Err(Raised::new("OverflowError", "integer division result too large for a float"));
    }
    let gib = bytes / GIB;
    Ok(match gib {
        _ if gib.is_nan() => "nan GiB".to_owned(),
        _ if gib.is_infinite() => if gib > 0.0 { "inf GiB" } else { "-inf GiB" }.to_owned(),
        _ => format!("{gib:.1} GiB"),
    })
}

const GIB: f64 = 1_073_741_824.0;

/// `format_output_file_count` for any Python number.
pub fn format_output_file_count(count: &PyNumber) -> String {
    format!("{count} output {}", if count.is_one() { "file" } else { "files" })
}

/// The first argument of `resolve_trust_remote_code`, of any Python type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelName {
    /// A string.
    Text(String),
    /// A `pathlib` path; its class, as `PosixPath`, is part of the error.
    Path(std::path::PathBuf, &'static str),
    /// A non-zero number of type `int` or `bool`, with the name of its type.
    Int(&'static str),
    /// Bytes; whether they are the path of a directory is asked of them as text.
    Bytes(Vec<u8>),
    /// A value of another type that Python takes for true, with the name of its type.
    Other(String),
    /// `None`, or another value that Python takes for false.
    Falsy,
}

/// `resolve_trust_remote_code` for any Python value.
///
/// # Errors
/// An `AttributeError` for a number or a path that is no directory, a `TypeError` for anything else
/// but a string.
pub fn resolve_trust_remote_code(
    name: &ModelName,
    is_dir: impl Fn(&std::path::Path) -> bool,
) -> Result<bool, Raised> {
    let no_attribute = |class: &str| {
        Raised::new("AttributeError", format!("'{class}' object has no attribute 'startswith'"))
    };
    match name {
        ModelName::Falsy => Ok(false),
        ModelName::Text(name) => Ok(!name.is_empty()
            && !is_dir(std::path::Path::new(name))
            && name.starts_with("nvidia/")),
        ModelName::Path(path, _) if is_dir(path) => Ok(false),
        ModelName::Path(_, class) => Err(no_attribute(class)),
        ModelName::Int(class) => Err(no_attribute(class)),
        ModelName::Bytes(bytes)
            if is_dir(std::path::Path::new(&*String::from_utf8_lossy(bytes))) =>
        {
            Ok(false)
        }
        ModelName::Bytes(_) => Err(Raised::new(
            "TypeError",
            "startswith first arg must be bytes or a tuple of bytes, not str",
        )),
        ModelName::Other(class) => Err(Raised::new(
            "TypeError",
            format!("stat: path should be string, bytes, os.PathLike or integer, not {class}"),
        )),
    }
}

#[cfg(test)]
mod tests;
