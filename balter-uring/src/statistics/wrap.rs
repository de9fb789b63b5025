//! Sentences in lines that fit a terminal.

use std::fmt::{self, Write as _};

/// Columns of a line at most.
pub(super) const WIDTH: usize = 80;

/// A space that no line is broken at, for what belongs together. It is written as a plain one.
pub(super) const FIXED: char = '\u{A0}';

/// Writes `label`, then `text` up to the last column, and the rest of it in lines of their own that
/// begin at column `indent`. Lines are broken at spaces, but not within a number (`1 234`); a word that
/// is longer than a line is broken anywhere. A character is taken to be a column wide.
pub(super) fn paragraph(
    f: &mut fmt::Formatter<'_>,
    label: &str,
    indent: usize,
    text: &str,
) -> fmt::Result {
    let mut words = words(text).map(|word| (word, word.chars().count())).peekable();
    let mut column = label.rsplit('\n').next().unwrap_or_default().chars().count();
    // A word that is too long for any line begins in the first.
    let fits = |&(_, length): &(_, usize)| column + length.min(WIDTH - indent) <= WIDTH;
    if words.peek().is_none_or(fits) {
        f.write_str(label)?;
    } else {
        write!(f, "{}\n{:indent$}", label.trim_end_matches(' '), "")?;
        column = indent;
    }
    let mut begins = true;
    for (word, length) in words {
        if !begins && column + 1 + length <= WIDTH {
            f.write_char(' ')?;
            column += 1;
        } else if !begins {
            write!(f, "\n{:indent$}", "")?;
            column = indent;
        }
        for char in word.chars() {
            if column == WIDTH {
                write!(f, "\n{:indent$}", "")?;
                column = indent;
            }
            f.write_char(if char == FIXED { ' ' } else { char })?;
            column += 1;
        }
        begins = false;
    }
    writeln!(f)
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(is_break);
        let mut before = None;
        let end = rest.char_indices().find(|&(index, char)| {
            let after = || rest[index + 1..].chars().next();
            let is_digit = |char: Option<char>| char.is_some_and(|char| char.is_ascii_digit());
            let ends = is_break(char) && !(char == ' ' && is_digit(before) && is_digit(after()));
            before = Some(char);
            ends
        });
        let (word, others) = rest.split_at(end.map_or(rest.len(), |(index, _)| index));
        rest = others;
        (!word.is_empty()).then_some(word)
    })
}

fn is_break(char: char) -> bool {
    matches!(char, ' ' | '\n' | '\r' | '\t')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Paragraph<'a>(&'a str, usize, &'a str);

    impl fmt::Display for Paragraph<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            paragraph(f, self.0, self.1, self.2)
        }
    }

    #[test]
    fn what_fits_stays_as_it_is() {
        assert_eq!(Paragraph("  a: ", 5, "b  c\nd").to_string(), "  a: b c d\n");
        assert_eq!(Paragraph("  a: ", 5, "").to_string(), "  a: \n");
    }

    #[test]
    fn numbers_and_what_belongs_together_are_not_broken() {
        for length in 60..80 {
            let text = format!("{} 1 234 567 of\u{A0}all", "x".repeat(length));
            let shown = Paragraph("", 4, &text).to_string();
            assert!(shown.contains("1 234 567") && shown.contains("of all"), "{shown}");
        }
    }

    proptest! {
        #[test]
        fn no_line_is_too_long_and_nothing_is_lost(
            label in "[a-z]{0,30}", indent in 0..40_usize, text in "[a-zü0-9 \n\u{A0}]{0,400}",
        ) {
            let shown = Paragraph(&label, indent, &text).to_string();
            for line in shown.lines() {
                prop_assert!(line.chars().count() <= WIDTH, "{}", shown);
            }
            let bare = |text: &str| text.split_whitespace().collect::<String>();
            prop_assert_eq!(bare(&shown), bare(&format!("{label}{text}")));
        }
    }
}
