//! Selectors: expressions over labels, with the grammar and meaning that Calico gives them. Pure.
//!
//! ```text
//! expr  := and ("||" and)*            and := op ("&&" op)*
//! op    := "!"* atom                  the empty text is all()
//! atom  := "(" expr ")" | has(L) | all() | global()
//!        | L ("==" | "!=") STR | L ("contains" | "starts with" | "ends with") STR
//!        | L ("in" | "not in") "{" [STR ("," STR)* [","]] "}"
//! L     := [A-Za-z0-9_./-]{1,512}     STR := '…' or "…", without escapes
//! ```
//!
//! Blanks are space and tab. There may be none inside an operator of two words, and there must be none between `has`,
//! `all` or `global` and its parenthesis.

mod parse;
mod scope;

#[cfg(test)]
mod tests;

pub use scope::{NAMESPACE, NAMESPACE_LABELS, SERVICE_ACCOUNT_LABELS};

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

/// A condition on labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Selector {
    /// `all()`: always.
    All,
    /// `global()`: always. As a namespace selector it means what has no namespace.
    Global,
    /// `has(L)`.
    Has(Label),
    /// `L == 'text'`.
    Is(Label, Text),
    /// `L != 'text'`: also when the label is not there.
    IsNot(Label, Text),
    /// `L contains 'text'`.
    Contains(Label, Text),
    /// `L starts with 'text'`.
    StartsWith(Label, Text),
    /// `L ends with 'text'`.
    EndsWith(Label, Text),
    /// `L in { 'text', … }`.
    In(Label, BTreeSet<Text>),
    /// `L not in { 'text', … }`: also when the label is not there.
    NotIn(Label, BTreeSet<Text>),
    /// `! …`.
    Not(Box<Selector>),
    /// `… && …`: two at least.
    Every(Vec<Selector>),
    /// `… || …`: two at least.
    Any(Vec<Selector>),
}

/// Name of a label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Label(String);

/// A text in quotes. It has no more than one of the two quotes in it, as there are no escapes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Text(String);

/// Where a selector is wrong, and how.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("selector, column {column}: {message}")]
pub struct SelectorError {
    /// Where, in characters from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
}

impl Selector {
    /// Whether what has these `labels` is meant.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = |label: &Label| labels.get(&label.0).map(String::as_str);
        match self {
            Self::All | Self::Global => true,
            Self::Has(label) => value(label).is_some(),
            Self::Is(label, text) => value(label) == Some(&text.0),
            Self::IsNot(label, text) => value(label) != Some(&text.0),
            Self::Contains(label, text) => value(label).is_some_and(|value| value.contains(&text.0)),
            Self::StartsWith(label, text) => value(label).is_some_and(|value| value.starts_with(&text.0)),
            Self::EndsWith(label, text) => value(label).is_some_and(|value| value.ends_with(&text.0)),
            Self::In(label, texts) => value(label).is_some_and(|value| contains(texts, value)),
            Self::NotIn(label, texts) => !value(label).is_some_and(|value| contains(texts, value)),
            Self::Not(inner) => !inner.matches(labels),
            Self::Every(parts) => parts.iter().all(|part| part.matches(labels)),
            Self::Any(parts) => parts.iter().any(|part| part.matches(labels)),
        }
    }
}

fn contains(texts: &BTreeSet<Text>, value: &str) -> bool {
    texts.iter().any(|text| text.0 == value)
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        parse::selector(text)
    }
}

impl fmt::Display for Selector {
    /// One way of writing it that parses to the same again.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all()"),
            Self::Global => f.write_str("global()"),
            Self::Has(label) => write!(f, "has({label})"),
            Self::Is(label, text) => write!(f, "{label} == {text}"),
            Self::IsNot(label, text) => write!(f, "{label} != {text}"),
            Self::Contains(label, text) => write!(f, "{label} contains {text}"),
            Self::StartsWith(label, text) => write!(f, "{label} starts with {text}"),
            Self::EndsWith(label, text) => write!(f, "{label} ends with {text}"),
            Self::In(label, texts) => write!(f, "{label} in {{{}}}", joined(texts, ", ")),
            Self::NotIn(label, texts) => write!(f, "{label} not in {{{}}}", joined(texts, ", ")),
            Self::Not(inner) => write!(f, "!({inner})"),
            Self::Every(parts) => write!(f, "({})", joined(parts, " && ")),
            Self::Any(parts) => write!(f, "({})", joined(parts, " || ")),
        }
    }
}

fn joined<T: ToString>(parts: impl IntoIterator<Item = T>, separator: &str) -> String {
    parts.into_iter().map(|part| part.to_string()).collect::<Vec<_>>().join(separator)
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quote = if self.0.contains('\'') { '"' } else { '\'' };
        write!(f, "{quote}{}{quote}", self.0)
    }
}
