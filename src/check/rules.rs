//! [`Rules`]: a checked rule file. Every name is resolved, every `<->` has an inverse; numbers
//! still wait for a config.

use std::sync::Arc;

use regex::Regex;

use super::keys::Keys;
use super::number::Calculated;
use super::op::{Made, OpUse};
use super::value::Scope;
use crate::diagnostic::{Diagnostic, Place, SourceText};
use crate::key::{Binding, Pattern, RankFiles, Slot};
use crate::syntax::ast::{Arrow, Expr, IfAbsent, IfPresent};
use crate::tensor::Dtype;

/// A checked rule file with everything that it uses.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The name after `ruleset`, or the file's.
    pub name: String,
    /// Left and right layout.
    pub layouts: Option<(String, String)>,
    /// Class names and model types it is for.
    pub models: Vec<String>,
    /// How the files of the left layout are told apart, if they are those of ranks.
    pub shards: Option<Shards>,
    /// The `let`s of each file, by number; 0 is the file itself.
    pub scopes: Vec<Scope>,
    /// The statements as they are written; a [`Reading`](super::reading::Reading) says in which
    /// order, and which way, they are read.
    pub(super) steps: Vec<Step>,
    /// Its `example`s (not those of files it uses).
    pub examples: Vec<Example>,
    /// The allow-list of `trust`.
    pub trust: Vec<String>,
    /// Warnings and notes of the check.
    pub findings: Vec<Diagnostic>,
    /// The text.
    pub source: Arc<SourceText>,
}

/// `shards {r: 0..ranks} in "consolidated.{r}.pth"`
#[derive(Clone, Debug)]
pub struct Shards {
    /// How the files are named.
    pub files: RankFiles,
    /// The ranks that there are.
    pub range: Option<(Expr, Expr)>,
    /// Which of [`Rules::scopes`] its names are in.
    pub(super) scope: usize,
    /// Where it is written.
    pub place: Place,
}

impl Shards {
    /// Where the names of its range are looked up.
    pub fn scope<'r>(&self, rules: &'r Rules) -> Option<&'r Scope> {
        rules.scopes.get(self.scope)
    }
}

/// Which way rules are read.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Left to right.
    #[default]
    Forward,
    /// Right to left: statements in reverse order, each inverted.
    Reverse,
}

impl Direction {
    /// The other way.
    #[must_use]
    pub fn opposite(self) -> Self {
        match self {
            Direction::Forward => Direction::Reverse,
            Direction::Reverse => Direction::Forward,
        }
    }
}

/// Which statement or rule of its [`Rules`] one is: told by where it stands there, so it is the same
/// each time that the same text is checked. A file that is used twice has its statements twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// Which of [`Rules::scopes`] it is in.
    pub(super) scope: usize,
    /// Where it begins in the text.
    pub(super) start: u32,
}

/// A statement that does something.
#[derive(Clone, Debug)]
pub struct Step {
    /// Which it is.
    pub id: Identity,
    /// Which of [`Rules::scopes`] its names are in.
    pub(super) scope: usize,
    /// What it does.
    pub(super) kind: StepKind,
    /// Where it is written.
    pub place: Place,
    /// The statement in one line.
    pub text: String,
}

/// The kinds of statements, as they are written.
#[derive(Clone, Debug)]
pub(super) enum StepKind {
    /// A statement about a file as a whole, where it is written and once more at the end of the file.
    Whole {
        /// What it says.
        whole: Whole,
        /// Whether it is the one at the end.
        end: bool,
    },
    /// `rename` and `map`: the rules apply at once, the first that matches a key wins.
    Rewrite(Vec<Rule>),
    /// `strip anywhere …`: these segments go, wherever they are.
    StripAnywhere {
        /// Each one or more whole segments.
        wrappers: Vec<Vec<String>>,
    },
    /// `strip leading …`
    StripLeading {
        /// Each one or more whole segments.
        wrappers: Vec<Vec<String>>,
        /// Only where a target manifest asks for it.
        if_wanted: bool,
    },
    /// `prefix …`: added or stripped so that keys meet the target manifest.
    Prefix(Vec<String>),
    /// `drop …`
    Drop(Selection),
    /// `keep …`
    Keep(Selection),
    /// `cast …`
    Cast {
        /// Which keys.
        keys: Selection,
        /// To what.
        dtype: Dtype,
        /// Whether rounding is meant.
        lossy: bool,
    },
    /// `tie …`
    Tie(Tie),
    /// `create …`
    Create {
        /// The key.
        target: Pattern,
        /// The tensor.
        made: Made,
        /// Keys that it is not made for.
        unless: Vec<Keys>,
    },
    /// `expect …`
    Expect {
        /// What must be there.
        keys: Keys,
        /// The captures that are counted.
        captures: Vec<Slot>,
        /// How many.
        count: Option<Expr>,
    },
    /// `use … reversed`: these, read the other way.
    Reversed(Vec<Step>),
    /// `when …`
    When {
        /// The condition.
        condition: Expr,
        /// If it holds.
        then: Vec<Step>,
        /// If not.
        otherwise: Vec<Step>,
    },
}

/// What a statement says of a file as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whole {
    /// `separator …`: keys of the left layout are split at this character.
    Separator(char),
    /// `strict`: every key must be taken by a rule.
    Strict,
}

/// One rule of a `rename` or `map`.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Which it is.
    pub id: Identity,
    /// Where it is written.
    pub place: Place,
    /// The rule in one line.
    pub text: String,
    /// Its captures; a [`Slot`] counts them.
    pub captures: Vec<Capture>,
    /// The numbers of its patterns that are calculated.
    pub numbers: Vec<Calculated>,
    /// Left of the arrow.
    pub left: Vec<Side>,
    /// The arrow.
    pub arrow: Arrow,
    /// Right of the arrow.
    pub right: Vec<Side>,
    /// The joint ops, read from left to right.
    pub joint: Vec<OpUse<Expr>>,
    /// Left keys that are left alone.
    pub unless_left: Vec<Keys>,
    /// Right keys that nothing may become.
    pub unless_right: Vec<Keys>,
    /// The condition over the captures.
    pub condition: Option<Expr>,
    /// No finding if nothing matches.
    pub optional: bool,
    /// What belongs to its tensors is meant to stay behind.
    pub alone: bool,
    /// A key may match it in more than one way, so the plan looks whether each key that it renames
    /// reads back.
    pub ambiguous: bool,
}

impl Rule {
    /// Whether it only gives a key another name.
    pub fn is_rename(&self) -> bool {
        self.joint.is_empty()
            && self.left.len() == 1
            && self.right.len() == 1
            && self.left.iter().chain(&self.right).all(|side| side.ops.is_empty())
    }

    /// Whether its condition may ask for the [lengths](super::value::LENGTHS) of its source: read
    /// backwards they would be those of the target, so only if it is never read backwards.
    pub fn knows_lengths(&self) -> bool {
        self.arrow == Arrow::OneWay && self.left.len() == 1
    }

    /// Whether ranges or calculated numbers, which only a config may tell, decide which keys fit.
    pub fn hangs_on_numbers(&self) -> bool {
        !self.numbers.is_empty() || self.captures.iter().any(Capture::has_range)
    }

    /// The captures on both sides, which tell instances apart.
    pub fn shared(&self) -> Vec<Slot> {
        (0u16..)
            .zip(&self.captures)
            .filter(|(_, capture)| capture.left && capture.right)
            .map(|(slot, _)| Slot(slot))
            .collect()
    }
}

/// A capture of a rule.
#[derive(Clone, Debug)]
pub struct Capture {
    /// Its name; unnamed `**` have none that a user could write.
    pub name: String,
    /// What it captures.
    pub kind: CaptureKind,
    /// Whether a source binds it.
    pub left: bool,
    /// Whether a target binds it.
    pub right: bool,
}

impl Capture {
    /// Whether a person can speak of it: an unnamed `**` is nobody's.
    pub fn is_named(&self) -> bool {
        !self.name.contains('*')
    }

    /// Whether it is a number that is bound to a range.
    pub fn has_range(&self) -> bool {
        matches!(self.kind, CaptureKind::Index(Some(_)))
    }

    /// The first thing that it can hold.
    pub(super) fn zero(&self) -> Binding {
        match &self.kind {
            CaptureKind::Index(_) => Binding::Index(0),
            CaptureKind::Words { .. } => Binding::Word(0),
            CaptureKind::Chars => Binding::Owned("x".into()),
            CaptureKind::Rest => Binding::Owned("".into()),
        }
    }
}

/// What a capture captures.
#[derive(Clone, Debug)]
pub enum CaptureKind {
    /// A number, within a range if one is written.
    Index(Option<(Expr, Expr)>),
    /// Characters of a segment, or a group of a regex.
    Chars,
    /// Whole segments.
    Rest,
    /// One of some words.
    Words {
        /// As they are on the left.
        left: Vec<String>,
        /// As they are on the right.
        right: Vec<String>,
    },
}

/// One source or target.
#[derive(Clone, Debug)]
pub struct Side {
    /// What it is.
    pub item: SideItem,
    /// Its own ops, read outwards to inwards for a source and inwards to outwards for a target: as
    /// written.
    pub ops: Vec<OpUse<Expr>>,
    /// It may be missing.
    pub optional: bool,
    /// Where it is written.
    pub place: Place,
}

/// What a source or target is.
#[derive(Clone, Debug)]
pub enum SideItem {
    /// Keys of a pattern.
    Pattern(Pattern),
    /// Keys that a regex matches; group `i` binds slot `i - 1`.
    Regex(Regex),
    /// A tensor that the rule makes.
    Made(Made),
}

/// Keys by pattern.
#[derive(Clone, Debug)]
pub struct Selection {
    /// Any of these.
    pub keys: Vec<Keys>,
    /// But none of these.
    pub unless: Vec<Keys>,
    /// The condition over the captures.
    pub condition: Option<Expr>,
    /// No finding if nothing matches.
    pub optional: bool,
}

/// A `tie`.
#[derive(Clone, Debug)]
pub struct Tie {
    /// `untie`: it is meant the other way.
    pub inverted: bool,
    /// Keys that are one tensor with the source.
    pub targets: Vec<Keys>,
    /// Candidates for the source, in order.
    pub sources: Vec<Keys>,
    /// How many captures the patterns share.
    pub slots: usize,
    /// When it holds.
    pub condition: Option<Expr>,
    /// What to do with a target that is there.
    pub present: IfPresent,
    /// What to do when a target and every source is missing.
    pub absent: IfAbsent,
}

/// An `example`.
#[derive(Clone, Debug)]
pub struct Example {
    /// Keys of the left layout.
    pub left: Vec<String>,
    /// Whether it must hold backwards too.
    pub arrow: Arrow,
    /// Keys of the right layout.
    pub right: Vec<String>,
    /// Where it is written.
    pub place: Place,
}

impl Side {
    /// The pattern, if it is one.
    pub fn pattern(&self) -> Option<&Pattern> {
        match &self.item {
            SideItem::Pattern(pattern) => Some(pattern),
            SideItem::Regex(_) | SideItem::Made(_) => None,
        }
    }
}
