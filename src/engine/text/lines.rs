//! Texts that are broken into lines for a terminal.

use textwrap::{Options, WordSeparator, WordSplitter};

/// Breaks a text at its spaces into lines of at most `columns`, the first of them behind `first`, and the others behind
/// `others`. Longer words stay whole, and every line may have 20 columns beside its margin.
pub fn filled(text: &str, first: &str, others: &str, columns: usize) -> String {
    let margin = first.len().max(others.len());
    let options = Options::new(columns.max(margin + 20)).initial_indent(first).subsequent_indent(others);
    let options = options.break_words(false).word_separator(WordSeparator::AsciiSpace);
    textwrap::fill(text, options.word_splitter(WordSplitter::NoHyphenation))
}
