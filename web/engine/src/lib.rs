//! The playground's engine: one question as JSON goes in, one answer as JSON comes out.
//!
//! There is no layer of bindings. The page asks for room ([`question`]), writes the question there,
//! calls [`answer`], and reads as many bytes as [`answer_len`] says from where it says. Of files that
//! are dropped on the page, this asks for the bytes that it needs (`read_at`), which are those of
//! headers; nothing else is ever called from here.

mod examples;
mod families;
mod files;
mod playground;
mod text;

use std::cell::RefCell;

pub use playground::Playground;

thread_local! {
    static QUESTION: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static ANSWER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static PLAYGROUND: RefCell<Playground> = RefCell::default();
}

/// Room for a question of so many bytes. It stays where it is until the next call.
#[unsafe(no_mangle)]
pub extern "C" fn question(len: usize) -> *mut u8 {
    QUESTION.with_borrow_mut(|question| {
        question.clear();
        question.resize(len, 0);
        question.as_mut_ptr()
    })
}

/// Answers the question: the first byte of the answer, which stays until the next call.
#[unsafe(no_mangle)]
pub extern "C" fn answer() -> *const u8 {
    let asked = QUESTION.with_borrow_mut(std::mem::take);
    let answered = PLAYGROUND.with_borrow_mut(|playground| playground.answer(&asked));
    ANSWER.with_borrow_mut(|answer| {
        *answer = answered.to_string().into_bytes();
        answer.as_ptr()
    })
}

/// How many bytes the answer has.
#[unsafe(no_mangle)]
pub extern "C" fn answer_len() -> usize {
    ANSWER.with_borrow(Vec::len)
}
