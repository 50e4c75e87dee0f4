//! [`Question`]: what a plan would have to know of bytes, which it doesn't see.
//!
//! Whether a tied tensor is equal to its source decides what becomes of it. A plan is a function of
//! rules, headers and options alone, so the answers are among the options ([`Answers`]), and what
//! is asked and not among them is told to the caller, who can find out and plan again.

use std::cell::RefCell;
use std::collections::HashMap;

use indexmap::IndexSet;
use serde::{Deserialize, Serialize};

use crate::key::Key;

/// Two tensors of the checkpoint, of one dtype and shape: are they equal, byte for byte?
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Question {
    /// One key.
    pub a: Key,
    /// The other.
    pub b: Key,
}

/// How the bytes of two tensors compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Answer {
    /// Every byte is the same.
    Equal,
    /// So many bytes differ.
    Differ(u64),
    /// It can't be known, as where there is a header only.
    Unknown,
}

impl Answer {
    /// The answer where so many bytes differ.
    pub fn of_differing(bytes: u64) -> Self {
        if bytes == 0 { Answer::Equal } else { Answer::Differ(bytes) }
    }
}

/// What is known of the bytes of a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers(HashMap<Question, Answer>);

impl Answers {
    /// Adds an answer; one that was there for the same question goes.
    pub fn insert(&mut self, question: Question, answer: Answer) {
        self.0.insert(question, answer);
    }

    /// The answer to a question, whichever of its keys comes first.
    pub fn get(&self, question: &Question) -> Option<Answer> {
        let turned = || Question { a: question.b.clone(), b: question.a.clone() };
        self.0.get(question).or_else(|| self.0.get(&turned())).copied()
    }
}

/// The questions that came up and had no answer, each once. They belong to the whole of planning
/// and not to a draft: what a branch asked matters though the branch isn't taken.
#[derive(Debug, Default)]
pub(super) struct Asked(RefCell<IndexSet<Question>>);

impl Asked {
    pub(super) fn note(&self, question: Question) {
        self.0.borrow_mut().insert(question);
    }

    pub(super) fn take(&self) -> Vec<Question> {
        self.0.take().into_iter().collect()
    }
}
