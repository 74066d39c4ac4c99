//! A parsed text before it means anything: values that know where they stand.

use super::super::Position;

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub at: Position,
    pub value: Value,
}

/// The values that YAML's core schema and JSON share.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    /// As written.
    Number(String),
    String(String),
    List(Vec<Node>),
    /// In order of the text; keys may repeat.
    Map(Vec<(Key, Node)>),
}

/// A key and its place.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub at: Position,
    pub text: String,
}

impl Node {
    /// What it is, for "expected ..., found ...".
    pub fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::Bool(value) => format!("the boolean {value}"),
            Value::Number(text) => format!("the number {text}"),
            Value::String(text) => format!("the text `{text}`"),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a mapping".to_owned(),
        }
    }

    /// The value of `key` in a mapping, without judging anything.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(k, _)| k.text == key).map(|(_, node)| node),
            _ => None,
        }
    }

    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// What it costs to hold: values, and text by the 64 bytes.
    pub fn cost(&self) -> usize {
        match &self.value {
            Value::Null | Value::Bool(_) => 1,
            Value::Number(text) | Value::String(text) => text_cost(text),
            Value::List(items) => 1 + items.iter().map(Node::cost).sum::<usize>(),
            Value::Map(entries) => {
                1 + entries.iter().map(|(key, node)| text_cost(&key.text) + node.cost()).sum::<usize>()
            }
        }
    }
}

/// What a text costs to hold, in the measure of [`Node::cost`].
pub(super) fn text_cost(text: &str) -> usize {
    1 + text.len() / 64
}
