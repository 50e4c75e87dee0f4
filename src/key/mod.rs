//! Keys: full names like `model.layers.3.mlp.gate.weight`, their segments, and patterns over them.

mod number;
mod pattern;
mod ranks;
mod set;

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use number::{Arithmetic, Calculation, Number, Sum, Term};
pub use pattern::{Atom, Binding, Bindings, Numbers, Part, Pattern, Reach, Segments, Slot};
pub use ranks::{NoRankFiles, RankFiles, rank_of};
pub use set::PatternSet;

#[cfg(test)]
mod tests;

/// A full name. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(Arc<str>);

impl Key {
    /// Its segments: the parts between dots.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('.')
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for Key {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<String> for Key {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<Key> for String {
    fn from(key: Key) -> Self {
        key.as_str().to_owned()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The segments of a key. They are so short that going through them byte by byte takes a third of what
/// a search for a character does.
pub(crate) fn segments(key: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(key);
    std::iter::from_fn(move || {
        let here = rest?;
        let Some(dot) = here.bytes().position(|byte| byte == b'.') else { return rest.take() };
        rest = here.get(dot + 1..);
        here.get(..dot)
    })
}

/// A key at its last dot: what is before it, and the last segment.
pub(crate) fn parted(key: &str) -> Option<(&str, &str)> {
    let dot = key.bytes().rposition(|byte| byte == b'.')?;
    Some((key.get(..dot)?, key.get(dot + 1..)?))
}

/// The last segment of a key.
pub(crate) fn leaf(key: &str) -> &str {
    parted(key).map_or(key, |(_, leaf)| leaf)
}

/// Natural order: runs of digits compare by the number they are, so `layers.2` comes before
/// `layers.10`.
pub fn natural_order(a: &str, b: &str) -> Ordering {
    let (x, y) = (a.as_bytes(), b.as_bytes());
    // Most keys begin alike: what is the same in both decides nothing, but for a number that it
    // ends in the middle of.
    let same = common_prefix(x, y);
    let start = x[..same].iter().rposition(|byte| !byte.is_ascii_digit()).map_or(0, |at| at + 1);
    let (mut x, mut y) = (&x[start..], &y[start..]);
    loop {
        match (x.first(), y.first()) {
            (None, None) => return a.cmp(b),
            (None, _) => return Ordering::Less,
            (_, None) => return Ordering::Greater,
            (Some(p), Some(q)) if p.is_ascii_digit() && q.is_ascii_digit() => {
                let (n, m) = (digits(x), digits(y));
                let (u, v) = (trim_zeros(&x[..n]), trim_zeros(&y[..m]));
                let order = u.len().cmp(&v.len()).then_with(|| u.cmp(v));
                if order != Ordering::Equal {
                    return order;
                }
                (x, y) = (&x[n..], &y[m..]);
            }
            (Some(p), Some(q)) if p != q => return p.cmp(q),
            _ => (x, y) = (&x[1..], &y[1..]),
        }
    }
}

/// How many first bytes are the same.
fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let words = a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0);
    let mut same = 0;
    for (a, b) in words {
        let apart = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if apart != 0 {
            return same + apart.trailing_zeros() as usize / 8;
        }
        same += 8;
    }
    same + a[same..].iter().zip(&b[same..]).take_while(|(a, b)| a == b).count()
}

fn digits(text: &[u8]) -> usize {
    text.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

fn trim_zeros(text: &[u8]) -> &[u8] {
    let zeros = text.iter().take_while(|byte| **byte == b'0').count();
    &text[zeros..]
}
