//! What failed transactions had to say: each distinct text once, counted, in a table that is bounded
//! however many there are.
//!
//! A text is written into a buffer on the stack, and only kept if it is new. To write one takes longer
//! than to count a transaction, so beyond the first [`EXACT`] failures of a window one in [`SAMPLED`]
//! is read, and those in between count with the text seen last for the same transaction, class,
//! status and peer.

use std::fmt::{self, Write as _};
use std::net::SocketAddr;

use crate::failure::{self, FailureClass, Note};
use crate::transaction::outcome::{Described, Shown};
use crate::userland;

/// Most texts of a run, and of a window.
pub(crate) const MOST_ERRORS: usize = 20;

/// Longest text in bytes, with the mark that it was cut.
pub(crate) const LONGEST_TEXT: usize = 200;

/// So many failures of a window are read, each of them.
const EXACT: u32 = 128;

/// Of the others one in so many. A prime, so that it does not keep step with what alternates.
const SAMPLED: u32 = 61;

/// In a window no more texts are written, whatever fails.
const MOST_WRITTEN: u32 = 1_024;

/// Texts that differ only in what may be a status: more are no statuses, and would fill the table.
const MOST_VARIANTS: usize = 6;

/// Combinations of transaction, class, status and peer whose last text is remembered.
const MOST_RECENT: usize = 32;

/// What stands for the end of a text that was cut.
const CUT: &str = "…";

/// Texts of failures that have no error of their own.
pub(crate) const DEADLINE: Described<'_> = Described::Plain("the transaction's deadline passed");
pub(crate) const PANICKED: Described<'_> = Described::Plain("it panicked");

/// What is known of a failed transaction before its text is read: integers, so that it costs nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    /// [`TransactionMeta::id`](crate::transaction::TransactionMeta::id).
    pub(crate) id: usize,
    pub(crate) class: FailureClass,
    /// Status and peer.
    pub(crate) note: Note,
}

/// Why a transaction failed.
pub(crate) struct Cause {
    pub(crate) key: Key,
    /// `None` if it was not read.
    pub(crate) text: Option<Text>,
}

/// A text on one line, without control characters, of at most [`LONGEST_TEXT`] bytes.
pub(crate) struct Text {
    bytes: [u8; LONGEST_TEXT],
    length: usize,
    is_cut: bool,
}

impl Text {
    const EMPTY: Self = Self { bytes: [0; LONGEST_TEXT], length: 0, is_cut: false };

    /// What an error says. Its `Display` is code of a user.
    pub(crate) fn of(error: Described<'_>) -> Self {
        let mut text = Self::EMPTY;
        // An error means that the text is full.
        let written = userland::call(|| {
            let _ = match error {
                Described::Error(error) => text.write_chain(error),
                Described::Display(Shown(error)) => write!(text, "{error:#}"),
                Described::Debug(error) => write!(text, "{error:?}"),
                Described::Plain(error) => text.write_str(error),
            };
        });
        if written.is_none() {
            text = Self::EMPTY;
            let _ = text.write_str("its text could not be written: that panicked");
        }
        text
    }

    /// An error and what caused it, where its own text does not say so.
    fn write_chain(&mut self, error: &dyn std::error::Error) -> fmt::Result {
        write!(self, "{error:#}")?;
        let mut cause = error.source();
        // A chain is as long as its author made it.
        for _ in 0..4 {
            let Some(error) = cause else { break };
            let mut text = Self::EMPTY;
            let _ = write!(text, "{error:#}");
            if !self.as_str().contains(text.as_str()) {
                self.write_str(": ")?;
                self.write_str(text.as_str())?;
            }
            cause = error.source();
        }
        Ok(())
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }

    fn push(&mut self, part: &str) -> fmt::Result {
        self.is_cut |= part.len() > self.room();
        let part = if self.is_cut { CUT } else { part };
        let end = self.length + part.len();
        self.bytes[self.length..end].copy_from_slice(part.as_bytes());
        self.length = end;
        if self.is_cut { Err(fmt::Error) } else { Ok(()) }
    }

    /// Bytes that there is room for, beside the mark that it was cut.
    fn room(&self) -> usize {
        LONGEST_TEXT - CUT.len() - self.length
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        if self.is_cut {
            return Err(fmt::Error);
        }
        // As a rule there is nothing to escape, and it fits.
        if part.bytes().all(|byte| (b' '..0x7F).contains(&byte)) && part.len() <= self.room() {
            return self.push(part);
        }
        let mut utf8 = [0; 4];
        for char in part.chars() {
            if is_plain(char) {
                self.push(char.encode_utf8(&mut utf8))?;
            } else {
                char.escape_default()
                    .try_for_each(|char| self.push(char.encode_utf8(&mut utf8)))?;
            }
        }
        Ok(())
    }
}

/// It can be shown as it is: it neither moves the cursor nor turns the direction of what follows.
fn is_plain(char: char) -> bool {
    !char.is_control()
        && !matches!(char, '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// What tells a text from others, whatever numbers are in it: ports, ids and times would make each one
/// new. A word of hexadecimal digits counts as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fingerprint {
    /// Without its numbers, but for those from 400 to 599, which may be a status.
    text: u64,
    /// Without any.
    shape: u64,
}

impl Fingerprint {
    fn of(text: &str) -> Self {
        let mut this = Self { text: FNV_OFFSET, shape: FNV_OFFSET };
        let is_word = u8::is_ascii_alphanumeric;
        for word in text.as_bytes().chunk_by(|a, b| is_word(a) == is_word(b)) {
            let has_digit = word.iter().any(u8::is_ascii_digit);
            if matches!(word, [b'4' | b'5', b'0'..=b'9', b'0'..=b'9']) {
                word.iter().for_each(|&byte| this.text = fnv(this.text, byte));
                this.shape = fnv(this.shape, b'0');
            } else if has_digit && word.iter().all(u8::is_ascii_hexdigit) {
                this.add(b'0');
            } else {
                for run in word.chunk_by(|a, b| a.is_ascii_digit() == b.is_ascii_digit()) {
                    match run[0].is_ascii_digit() {
                        true => this.add(b'0'),
                        false => run.iter().for_each(|&byte| this.add(byte)),
                    }
                }
            }
        }
        this
    }

    fn add(&mut self, byte: u8) {
        (self.text, self.shape) = (fnv(self.text, byte), fnv(self.shape, byte));
    }
}

/// FNV-1a: short, and as good as any for texts that nobody makes up to collide.
const FNV_OFFSET: u64 = 0xCBF2_9CE4_8422_2325;

fn fnv(hash: u64, byte: u8) -> u64 {
    (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3)
}

/// One of the texts.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) id: usize,
    pub(crate) class: FailureClass,
    /// 0 without one.
    pub(crate) status: u16,
    pub(crate) address: Option<SocketAddr>,
    fingerprint: Fingerprint,
    /// As it was when it was first seen.
    pub(crate) text: Box<str>,
    pub(crate) count: u64,
}

/// The texts of a window or of a run, and how many transactions had each. What found no place is
/// counted nowhere: it is the rest of all failures.
#[derive(Debug, Default)]
pub(crate) struct Errors {
    seen: Vec<Seen>,
    /// Where the last text stands, if it has a place.
    recent: Vec<(Key, Option<usize>)>,
    written: u32,
    skipped: u32,
}

impl Errors {
    /// Whether the text of a failure is to be read.
    pub(crate) fn wants_text(&mut self, key: Key) -> bool {
        if self.written < EXACT {
            return true;
        }
        if self.written >= MOST_WRITTEN {
            return false;
        }
        self.skipped = (self.skipped + 1) % SAMPLED;
        self.skipped == 0 || !self.recent.iter().any(|&(known, _)| known == key)
    }

    /// Counts a failure of this shard.
    pub(crate) fn count(&mut self, cause: &Cause) {
        let Cause { key, text } = cause;
        let place = self.recent.iter().position(|(known, _)| known == key);
        let index = match text {
            None => place.and_then(|place| self.recent[place].1),
            Some(text) => {
                self.written += 1;
                let index = self.index(key, text.as_str());
                match place {
                    Some(place) => self.recent[place].1 = index,
                    None => {
                        if self.recent.len() == MOST_RECENT {
                            self.recent.remove(0);
                        }
                        self.recent.push((*key, index));
                    }
                }
                index
            }
        };
        if let Some(seen) = index.and_then(|index| self.seen.get_mut(index)) {
            seen.count += 1;
        }
    }

    fn index(&mut self, key: &Key, text: &str) -> Option<usize> {
        let Key { id, class, note } = *key;
        let (fingerprint, status) = (Fingerprint::of(text), note.status());
        let address = failure::peer(note.peer());
        match self.find(fingerprint, |seen| {
            (seen.id, seen.class, seen.status, seen.address) == (id, class, status, address)
        }) {
            Found::At(index) => Some(index),
            Found::NoPlace => None,
            Found::New => {
                let text = text.into();
                self.seen.push(Seen { id, class, status, address, fingerprint, text, count: 0 });
                Some(self.seen.len() - 1)
            }
        }
    }

    /// Where a text stands, among those of the same kind.
    fn find(&self, fingerprint: Fingerprint, is_kind: impl Fn(&Seen) -> bool) -> Found {
        let (mut variants, mut plain) = (0, None);
        for (index, seen) in self.seen.iter().enumerate() {
            if seen.fingerprint.shape != fingerprint.shape || !is_kind(seen) {
                continue;
            }
            if seen.fingerprint == fingerprint {
                return Found::At(index);
            }
            variants += 1;
            if seen.fingerprint.text == seen.fingerprint.shape {
                plain = Some(index);
            }
        }
        match plain {
            // What was taken for a status is a number like any other.
            Some(index) if variants >= MOST_VARIANTS => Found::At(index),
            _ if variants >= MOST_VARIANTS || self.seen.len() >= MOST_ERRORS => Found::NoPlace,
            _ => Found::New,
        }
    }

    /// Adds those of another window.
    pub(crate) fn add(&mut self, other: &Self) {
        for theirs in other.iter() {
            match self.find(theirs.fingerprint, |mine| {
                let of = |one: &Seen| (one.id, one.class, one.status, one.address);
                of(mine) == of(theirs)
            }) {
                Found::At(index) => {
                    let mine = &mut self.seen[index];
                    mine.count = mine.count.saturating_add(theirs.count);
                }
                Found::New => self.seen.push(theirs.clone()),
                Found::NoPlace => {}
            }
        }
    }

    /// Adds one that came from elsewhere. What it says is not trusted.
    #[cfg(feature = "rt")]
    pub(crate) fn add_foreign(&mut self, id: usize, told: Told<'_>) {
        let Told { class, status, address, text, count } = told;
        // Once more through the buffer: it bounds a text and escapes what is in it.
        let text = Text::of(Described::Display(Shown(&text)));
        let (fingerprint, text) = (Fingerprint::of(text.as_str()), text.as_str().into());
        let seen = vec![Seen { id, class, status, address, fingerprint, text, count }];
        self.add(&Self { seen, ..Self::default() });
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Seen> {
        self.seen.iter().filter(|seen| seen.count > 0)
    }

    /// Counts from zero again, and keeps the texts: they come again, and then cost no memory.
    pub(crate) fn reset(&mut self) {
        self.seen.iter_mut().for_each(|seen| seen.count = 0);
        self.written = 0;
    }
}

enum Found {
    At(usize),
    New,
    NoPlace,
}

/// What a node tells of one of its texts.
#[cfg(feature = "rt")]
pub(crate) struct Told<'a> {
    pub(crate) class: FailureClass,
    pub(crate) status: u16,
    pub(crate) address: Option<SocketAddr>,
    pub(crate) text: &'a str,
    pub(crate) count: u64,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(class: FailureClass) -> Key {
        Key { id: 0, class, note: Note::default() }
    }

    fn fail(errors: &mut Errors, key: Key, text: &str) {
        let text = errors.wants_text(key).then(|| Text::of(Described::Display(Shown(&text))));
        errors.count(&Cause { key, text });
    }

    fn counts(errors: &Errors) -> Vec<(&str, u64)> {
        errors.iter().map(|seen| (&*seen.text, seen.count)).collect()
    }

    #[test]
    fn a_text_is_one_line_and_short() {
        let text = Text::of(Described::Display(Shown(&"a\nb\u{1b}[31m\u{202E}ü")));
        assert_eq!(text.as_str(), "a\\nb\\u{1b}[31m\\u{202e}ü");
        let long = "ü".repeat(1_000);
        let text = Text::of(Described::Display(Shown(&long)));
        assert!(text.as_str().ends_with("ü…") && text.as_str().len() >= LONGEST_TEXT - 4);
    }

    #[test]
    fn the_causes_of_an_error_stand_behind_it_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("no answer")]
        struct Outer(#[source] std::num::ParseIntError);
        #[derive(Debug, thiserror::Error)]
        #[error("no number: {0}")]
        struct Telling(#[source] std::num::ParseIntError);
        let cause = "x".parse::<u8>().expect_err("no number");
        let text = Text::of(Described::Error(&Outer(cause.clone())));
        assert_eq!(text.as_str(), format!("no answer: {cause}"));
        let text = Text::of(Described::Error(&Telling(cause.clone())));
        assert_eq!(text.as_str(), format!("no number: {cause}"));
    }

    #[test]
    fn a_text_that_panics_is_told_of() {
        struct Sour;
        impl fmt::Display for Sour {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("half")?;
                panic!("a sour text")
            }
        }
        let text = Text::of(Described::Display(Shown(&Sour)));
        assert_eq!(text.as_str(), "its text could not be written: that panicked");
    }

    #[test]
    fn numbers_make_no_new_text_but_a_status_does() {
        let mut errors = Errors::default();
        for text in [
            "order 17 of 3f2a-11ee is gone",
            "order 2005 of 99ab-1 is gone",
            "answer 404",
            "answer 503",
            "order x of 99ab-1 is gone",
        ] {
            fail(&mut errors, key(FailureClass::Application), text);
        }
        let seen = counts(&errors);
        assert_eq!(seen[0], ("order 17 of 3f2a-11ee is gone", 2));
        assert_eq!(seen.len(), 4);
    }

    #[test]
    fn numbers_that_pass_through_those_of_statuses_do_not_fill_the_table() {
        let mut sum = Errors::default();
        for window in 0..10 {
            let mut errors = Errors::default();
            for number in 100 * window..100 * window + 100 {
                fail(&mut errors, key(FailureClass::Application), &format!("no order {number}"));
            }
            sum.add(&errors);
        }
        let seen = counts(&sum);
        assert!(seen.len() <= MOST_VARIANTS, "{seen:?}");
        // All below 400 and from 600 on, and of the others those that had a place.
        assert_eq!(
            seen.iter().map(|(_, count)| count).sum::<u64>(),
            800 + 2 * MOST_VARIANTS as u64
        );
    }

    #[test]
    fn texts_of_other_transactions_classes_and_peers_are_told_apart() {
        let peer = SocketAddr::from(([127, 0, 0, 1], 80));
        let mut scope = failure::Scope::default();
        failure::with_scope(&mut scope, || failure::note_status(404, peer));
        let mut errors = Errors::default();
        let plain = key(FailureClass::Status);
        for key in [plain, Key { id: 1, ..plain }, key(FailureClass::Reset)] {
            fail(&mut errors, key, "bad");
            fail(&mut errors, Key { note: scope.note(), ..key }, "bad");
        }
        assert_eq!(errors.iter().count(), 6);
        let with = errors.iter().filter(|seen| (seen.status, seen.address) == (404, Some(peer)));
        assert_eq!(with.count(), 3);
    }

    #[test]
    fn a_text_that_is_always_new_costs_neither_memory_nor_much_time() {
        let (mut errors, mut written) = (Errors::default(), 0);
        let mut counted = 0;
        for window in 0..10 {
            for index in 0..100_000_u32 {
                let key = key(FailureClass::Application);
                let text = errors.wants_text(key).then(|| {
                    written += 1;
                    // Letters, since numbers are not told apart.
                    let letter = |shift: u32| char::from(b'g' + (index >> shift & 15) as u8);
                    let text: String = (0..5).map(|place| letter(4 * place)).collect();
                    Text::of(Described::Display(Shown(&text)))
                });
                errors.count(&Cause { key, text });
            }
            assert!(written <= (window + 1) * MOST_WRITTEN);
            assert!(errors.seen.len() <= MOST_ERRORS && errors.recent.len() <= MOST_RECENT);
            counted += errors.iter().map(|seen| seen.count).sum::<u64>();
            errors.reset();
        }
        assert!(counted <= 1_000_000);
    }

    #[test]
    fn keys_that_are_always_new_are_bounded_too() {
        let (mut errors, mut written) = (Errors::default(), 0);
        for id in 0..100_000 {
            let key = Key { id, ..key(FailureClass::Application) };
            written += u32::from(errors.wants_text(key));
            fail(&mut errors, key, "no");
        }
        assert!(written <= 2 * MOST_WRITTEN, "{written}");
        assert!(errors.recent.len() <= MOST_RECENT);
    }

    #[test]
    fn beyond_what_is_read_the_shares_are_about_right() {
        let mut errors = Errors::default();
        for index in 0..50_000_u32 {
            let text = if index.is_multiple_of(4) { "rare" } else { "common" };
            fail(&mut errors, key(FailureClass::Application), text);
        }
        let seen = counts(&errors);
        assert_eq!(seen.iter().map(|(_, count)| count).sum::<u64>(), 50_000);
        let rare = seen.iter().find(|(text, _)| *text == "rare").expect("it was seen").1;
        assert!((8_000..=17_000).contains(&rare), "{seen:?}");
    }

    proptest! {
        #[test]
        fn sums_of_windows_count_every_text_that_has_a_place(
            windows in prop::collection::vec(prop::collection::vec(0_u8..40, 0..60), 1..8),
        ) {
            let (mut sum, mut all) = (Errors::default(), 0);
            let mut expected = std::collections::BTreeMap::new();
            for window in &windows {
                let mut errors = Errors::default();
                for &index in window {
                    let text = char::from(b'A' + index).to_string();
                    fail(&mut errors, key(FailureClass::Application), &text);
                    *expected.entry(Text::of(Described::Display(Shown(&text))).as_str().to_owned())
                        .or_insert(0) += 1;
                    all += 1;
                }
                sum.add(&errors);
            }
            prop_assert!(sum.seen.len() <= MOST_ERRORS);
            let counted: u64 = sum.iter().map(|seen| seen.count).sum();
            prop_assert!(counted <= all);
            if expected.len() <= MOST_ERRORS {
                prop_assert_eq!(counted, all);
                for seen in sum.iter() {
                    prop_assert_eq!(seen.count, expected[&*seen.text]);
                }
            }
        }
    }
}
