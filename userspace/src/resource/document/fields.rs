//! Strict reading of a tree: who reads a mapping says which keys it knows; every fault is collected with its field path
//! and place, so that one look at the errors is enough to repair a document.

use super::super::{Position, Severity};
use super::tree::{Node, Value};
use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Most faults listed of one document.
const LISTED: usize = 20;

/// Something wrong in a document.
#[derive(Debug)]
pub(super) struct Fault {
    pub severity: Severity,
    pub at: Position,
    pub field: String,
    pub message: String,
}

/// What is wrong in a document.
#[derive(Debug, Default)]
pub(super) struct Faults {
    list: RefCell<Vec<Fault>>,
}

impl Faults {
    /// All of them, in order of the text, a long list cut short.
    pub fn into_list(self) -> Vec<Fault> {
        let mut list = self.list.into_inner();
        list.sort_by_key(|fault| (fault.severity, fault.at));
        if list.len() > LISTED {
            let more = list.len() - LISTED;
            list.truncate(LISTED);
            if let Some(last) = list.last_mut() {
                last.message.push_str(&format!(" (and {more} more in this document)"));
            }
        }
        list
    }

    fn add(&self, severity: Severity, at: Position, field: &str, message: impl Into<String>) {
        self.list.borrow_mut().push(Fault { severity, at, field: field.to_owned(), message: message.into() });
    }
}

/// A value that is there, with its path.
#[derive(Clone)]
pub(super) struct Field<'a> {
    pub node: &'a Node,
    path: String,
    faults: &'a Faults,
}

impl<'a> Field<'a> {
    /// A document's root, or a part of it at `path`.
    pub fn new(node: &'a Node, path: impl Into<String>, faults: &'a Faults) -> Self {
        Self { node, path: path.into(), faults }
    }

    /// The document is not used.
    pub fn error(&self, message: impl Into<String>) {
        self.faults.add(Severity::Error, self.node.at, &self.path, message);
    }

    /// The document is used, but for this.
    pub fn note(&self, message: impl Into<String>) {
        self.faults.add(Severity::Note, self.node.at, &self.path, message);
    }

    fn expected(&self, what: &str) {
        self.error(format!("expected {what}, found {}", self.node.describe()));
    }

    /// A string.
    pub fn string(&self) -> Option<&'a str> {
        match &self.node.value {
            Value::String(text) => return Some(text),
            Value::Number(_) | Value::Bool(_) => {
                self.expected("a text in quotes");
            }
            _ => self.expected("a text"),
        }
        None
    }

    /// A string that is a `T`.
    pub fn parse<T: FromStr<Err: Display>>(&self) -> Option<T> {
        self.string()?.parse().map_err(|wrong: T::Err| self.error(wrong.to_string())).ok()
    }

    /// A boolean.
    pub fn boolean(&self) -> Option<bool> {
        if let Value::Bool(value) = self.node.value {
            return Some(value);
        }
        self.expected("true or false");
        None
    }

    /// A whole number of `range`.
    pub fn integer(&self, range: RangeInclusive<u32>) -> Option<u32> {
        let number = match &self.node.value {
            Value::Number(text) => text.parse().ok(),
            _ => None,
        };
        let number = number.filter(|n| range.contains(n));
        if number.is_none() {
            self.expected(&format!("a whole number from {} to {}", range.start(), range.end()));
        }
        number
    }

    /// The entries of a list.
    pub fn list(&self) -> Vec<Field<'a>> {
        match &self.node.value {
            Value::List(items) => items
                .iter()
                .enumerate()
                .map(|(i, node)| Field::new(node, format!("{}[{i}]", self.path), self.faults))
                .collect(),
            _ => {
                self.expected("a list");
                Vec::new()
            }
        }
    }

    /// Whether it is a list or mapping without entries.
    pub fn is_empty(&self) -> bool {
        match &self.node.value {
            Value::List(items) => items.is_empty(),
            Value::Map(entries) => entries.is_empty(),
            _ => false,
        }
    }

    /// The entries of a mapping whose keys are free, like labels.
    pub fn entries(&self) -> Vec<(&'a str, Field<'a>)> {
        self.mapping()
            .iter()
            .map(|(key, node)| {
                let path = format!("{}[{:?}]", self.path, key.text);
                (key.text.as_str(), Field::new(node, path, self.faults))
            })
            .collect()
    }

    /// A mapping with fixed keys.
    pub fn fields(&self) -> Fields<'a> {
        self.mapping();
        Fields { of: self.clone(), known: Vec::new() }
    }

    fn mapping(&self) -> &'a [(super::tree::Key, Node)] {
        let Value::Map(entries) = &self.node.value else {
            self.expected("a mapping");
            return &[];
        };
        let mut seen = HashSet::new();
        for (key, _) in entries {
            if !seen.insert(&key.text) {
                let message = format!("the key `{}` is there twice; remove one", key.text);
                self.faults.add(Severity::Error, key.at, &self.child(&key.text), message);
            }
        }
        entries
    }

    fn child(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

/// A mapping that is being read. Ends with [`Fields::end`], which refuses the keys nobody asked for.
pub(super) struct Fields<'a> {
    of: Field<'a>,
    known: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// A key that may be absent; `null` is absence.
    pub fn optional(&mut self, key: &'static str) -> Option<Field<'a>> {
        self.known.push(key);
        let node = self.of.node.get(key).filter(|node| !matches!(node.value, Value::Null))?;
        Some(Field::new(node, self.of.child(key), self.of.faults))
    }

    /// A key that must be there.
    pub fn required(&mut self, key: &'static str) -> Option<Field<'a>> {
        let field = self.optional(key);
        if field.is_none() && matches!(self.of.node.value, Value::Map(_)) {
            let at = self.of.node.get(key).map_or(self.of.node.at, |node| node.at);
            self.of.faults.add(Severity::Error, at, &self.of.child(key), "missing; it is required");
        }
        field
    }

    /// Keys that are legal and mean nothing here.
    pub fn accept(&mut self, keys: &[&'static str]) {
        self.known.extend(keys);
    }

    /// Refuses every other key.
    pub fn end(self) {
        let Value::Map(entries) = &self.of.node.value else { return };
        for (key, _) in entries {
            if !self.known.contains(&key.text.as_str()) {
                let message = format!("unknown key; known here: {}", self.known.join(", "));
                self.of.faults.add(Severity::Error, key.at, &self.of.child(&key.text), message);
            }
        }
    }
}
