//! A text of lines in nested blocks.

use std::fmt::{self, Display};

#[derive(Debug, Default)]
pub(super) struct Lines {
    text: String,
    depth: usize,
}

impl Lines {
    pub fn line(&mut self, line: impl Display) {
        for _ in 0..self.depth {
            self.text.push_str("  ");
        }
        self.text.push_str(&line.to_string());
        self.text.push('\n');
    }

    /// An empty line.
    pub fn gap(&mut self) {
        self.text.push('\n');
    }

    /// Begins a definition, with an empty line before it.
    pub fn open(&mut self, head: impl Display) {
        self.gap();
        self.open_inner(head);
    }

    /// Ends a definition.
    pub fn close(&mut self) {
        self.depth -= 1;
        self.line("}");
    }

    /// Begins a block in a definition.
    pub fn open_inner(&mut self, head: impl Display) {
        self.line(format_args!("{head} {{"));
        self.depth += 1;
    }

    /// Ends a block that is an option.
    pub fn close_inner(&mut self) {
        self.depth -= 1;
        self.line("};");
    }

    /// Begins the other branch of an `if`.
    pub fn otherwise(&mut self) {
        self.depth -= 1;
        self.line("} else {");
        self.depth += 1;
    }

    pub fn into_text(self) -> String {
        self.text
    }
}

/// Things in a row, with commas.
pub(super) struct Joined<I>(pub I);

impl<I: Clone + IntoIterator<Item: Display>> Display for Joined<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, item) in self.0.clone().into_iter().enumerate() {
            write!(f, "{}{item}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}
