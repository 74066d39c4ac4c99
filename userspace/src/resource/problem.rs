//! What is wrong with an input: one type for every refusal and every hint, from the file down to the field.

use serde::{Deserialize, Serialize, Serializer};
use std::fmt;
use std::path::{Path, PathBuf};

/// Longest text of an input that a message repeats, in characters.
const QUOTED: usize = 400;

/// How much a [`Problem`] takes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The document or file is not used as it stands.
    Error,
    /// The document is used; something in it is not.
    Note,
}

/// A place in a text, both counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line.
    pub line: u32,
    /// Column in characters.
    pub column: u32,
}

/// Something that is wrong with an input, where it is, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The file or directory.
    #[serde(serialize_with = "lossy")]
    pub file: PathBuf,
    /// Line, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Column in characters, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// Path of the field, like `spec.ipNetworks[1]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Kind and name of the resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// What is wrong and what to do.
    pub message: String,
    /// How much it takes away.
    pub severity: Severity,
    /// The resources that the refused text defined before stay as they last were good.
    pub kept: bool,
}

impl Problem {
    /// An error about a whole file or directory.
    pub fn file(file: &Path, message: &str) -> Self {
        Self {
            file: file.to_owned(),
            line: None,
            column: None,
            field: None,
            resource: None,
            message: printable(message),
            severity: Severity::Error,
            kept: false,
        }
    }

    /// An error at a place in a file.
    pub fn at(file: &Path, position: Position, message: &str) -> Self {
        Self { line: Some(position.line), column: Some(position.column), ..Self::file(file, message) }
    }

    /// The same, about a field; an empty path is the document itself.
    pub fn in_field(mut self, field: &str) -> Self {
        self.field = (!field.is_empty()).then(|| printable(field));
        self
    }

    /// Whether something is not used as it stands.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", printable(&self.file.to_string_lossy()))?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
            if let Some(column) = self.column {
                write!(f, ":{column}")?;
            }
        }
        f.write_str(": ")?;
        if self.severity == Severity::Note {
            f.write_str("note: ")?;
        }
        if let Some(resource) = &self.resource {
            write!(f, "{resource}: ")?;
        }
        if let Some(field) = &self.field {
            write!(f, "{field}: ")?;
        }
        f.write_str(&self.message)?;
        if self.kept {
            f.write_str(" (kept: last good state)")?;
        }
        Ok(())
    }
}

/// JSON is UTF-8, a path need not be.
fn lossy<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

/// `text` fit for a terminal and a log line: control characters escaped, cut when very long.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(QUOTED));
    for (i, c) in text.chars().enumerate() {
        if i == QUOTED {
            out.push('…');
            break;
        }
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_place_resource_and_field() {
        let mut problem =
            Problem::at(Path::new("a.yaml"), Position { line: 3, column: 7 }, "bad").in_field("spec.mac");
        assert_eq!(problem.to_string(), "a.yaml:3:7: spec.mac: bad");
        problem.resource = Some("Subnet s".to_owned());
        problem.kept = true;
        assert_eq!(problem.to_string(), "a.yaml:3:7: Subnet s: spec.mac: bad (kept: last good state)");
        problem.severity = Severity::Note;
        assert!(problem.to_string().starts_with("a.yaml:3:7: note: Subnet s: "));
    }

    #[test]
    fn an_input_cannot_steer_the_terminal_or_flood_it() {
        assert_eq!(Problem::file(Path::new("f"), "\u{1b}[2J\n").message, "\\u{1b}[2J\\n");
        assert_eq!(Problem::file(Path::new("f"), &"x".repeat(10_000)).message.chars().count(), QUOTED + 1);
    }
}
