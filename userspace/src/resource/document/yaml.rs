//! YAML text to trees. The stream is cut at its document markers before it is parsed, so that a syntax error stays in
//! its document.

use super::super::Position;
use super::tree::{Key, Node, Value, text_cost};
use granit_parser::{Event, Marker, Parser, ScalarStyle, Span, Tag};
use std::borrow::Cow;
use std::collections::HashMap;

/// Deepest nesting of lists and mappings. Our resources need 5.
const DEPTH: usize = 64;
/// Most values of one document (64 bytes of text count as one), every alias written out: about 2500 endpoints in an
/// array.
const VALUES: usize = 250_000;

/// A syntax error.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub at: Position,
    pub message: String,
}

/// One document of a stream, not parsed yet.
pub(super) struct Chunk<'a> {
    /// Line of the file on which `text` begins, from 1.
    pub first_line: u32,
    pub text: &'a [u8],
}

/// Cuts a stream at the lines `---` and `...`, which at the start of a line are markers wherever they stand (YAML 1.2.2
/// section 9.1.2). Directives and comments before a `---` go with it. What is only blank or comment is left out.
pub(super) fn split(stream: &[u8]) -> Vec<Chunk<'_>> {
    let mut chunks = Vec::new();
    let (mut start, mut first_line, mut started) = (0, 1, false);
    let mut offset = 0;
    for (number, line) in (1..).zip(stream.split_inclusive(|&b| b == b'\n')) {
        let next = offset + line.len();
        if is_marker(line, b"---") {
            if started {
                chunks.push(Chunk { first_line, text: &stream[start..offset] });
                (start, first_line) = (offset, number);
            }
            started = true;
        } else if is_marker(line, b"...") {
            if started {
                chunks.push(Chunk { first_line, text: &stream[start..next] });
            }
            (start, first_line, started) = (next, number + 1, false);
        } else {
            started |= is_content(line);
        }
        offset = next;
    }
    if started {
        chunks.push(Chunk { first_line, text: &stream[start..] });
    }
    chunks
}

fn is_marker(line: &[u8], marker: &[u8; 3]) -> bool {
    // A byte order mark may precede the first document.
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
    line.strip_prefix(marker).is_some_and(|rest| rest.first().is_none_or(u8::is_ascii_whitespace))
}

fn is_content(line: &[u8]) -> bool {
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
    match line.trim_ascii_start().first() {
        None | Some(b'#') => false,
        Some(_) => line.first() != Some(&b'%'),
    }
}

/// Parses one document; `Ok(None)` when it has no content.
pub(super) fn parse(text: &str, first_line: u32) -> Result<Option<Node>, SyntaxError> {
    if let Some(nul) = text.find('\0') {
        let at = end_of(&text[..nul], first_line);
        return Err(SyntaxError { at, message: "a NUL byte; is this a text file?".to_owned() });
    }
    Builder::new(text, first_line).document()
}

/// The place after `text`, which begins on `first_line`.
pub(super) fn end_of(text: &str, first_line: u32) -> Position {
    let last = text.rsplit('\n').next().unwrap_or(text);
    Position {
        line: first_line + count(text.bytes().filter(|&b| b == b'\n').count()),
        column: 1 + count(last.chars().count()),
    }
}

struct Builder<'a> {
    parser: Parser<'a, granit_parser::StrInput<'a>>,
    first_line: u32,
    anchors: HashMap<usize, Node>,
    /// What the document may still cost.
    left: usize,
}

impl<'a> Builder<'a> {
    fn new(text: &'a str, first_line: u32) -> Self {
        let options = granit_parser::options! { emit_comments: false };
        let parser = Parser::new_from_str_with_options(text, options);
        Self { parser, first_line, anchors: HashMap::new(), left: VALUES }
    }

    fn document(mut self) -> Result<Option<Node>, SyntaxError> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentEnd => {}
                Event::DocumentStart(..) if root.is_none() => {
                    let (event, span) = self.next()?;
                    root = Some(self.node(event, span, DEPTH)?);
                }
                Event::StreamEnd => break,
                _ => {
                    return Err(self.error(
                        span.start,
                        "a second document begins here; separate documents by a line `---`",
                    ));
                }
            }
        }
        Ok(root.filter(|node| !matches!(node.value, Value::Null)))
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), SyntaxError> {
        match self.parser.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => Err(self.error(*error.marker(), &error.info())),
            None => Err(self.error(Marker::default(), "the text ends too early")),
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, SyntaxError> {
        let at = self.position(span.start);
        if depth == 0 {
            return Err(SyntaxError { at, message: format!("nested deeper than {DEPTH} levels") });
        }
        self.spend(if let Event::Scalar(text, ..) = &event { text_cost(text) } else { 1 }, at)?;
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => (self.scalar(text, style, tag, at)?, anchor),
            Event::SequenceStart(_, anchor, tag) => {
                refuse_tag(tag.as_deref(), at)?;
                (self.list(depth)?, anchor)
            }
            Event::MappingStart(_, anchor, tag) => {
                refuse_tag(tag.as_deref(), at)?;
                (self.map(depth)?, anchor)
            }
            Event::Alias(id) => {
                let Some(target) = self.anchors.get(&id) else {
                    return Err(SyntaxError { at, message: "an alias inside its own anchor".to_owned() });
                };
                let cost = target.cost();
                self.spend(cost, at)?;
                let value = self.anchors[&id].value.clone();
                return Ok(Node { at, value });
            }
            _ => return Err(SyntaxError { at, message: "expected a value".to_owned() }),
        };
        let node = Node { at, value };
        if anchor != 0 {
            self.spend(node.cost(), at)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Value, SyntaxError> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::List(items)),
                (event, span) => items.push(self.node(event, span, depth - 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, SyntaxError> {
        let mut entries = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                return Ok(Value::Map(entries));
            }
            let at = self.position(span.start);
            let Event::Scalar(text, ..) = event else {
                return Err(SyntaxError { at, message: "a key must be a word".to_owned() });
            };
            self.spend(text_cost(&text), at)?;
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth - 1)?;
            entries.push((Key { at, text: text.into_owned() }, value));
        }
    }

    fn scalar(
        &self,
        text: Cow<'a, str>,
        style: ScalarStyle,
        tag: Option<Cow<'a, Tag>>,
        at: Position,
    ) -> Result<Value, SyntaxError> {
        let is_string = tag.as_ref().is_some_and(|tag| tag.is_yaml_core_schema_tag("str"));
        if !is_string {
            refuse_tag(tag.as_deref(), at)?;
        }
        Ok(if style == ScalarStyle::Plain && !is_string {
            resolve(text)
        } else {
            Value::String(text.into_owned())
        })
    }

    /// Counts values before they are made, so that aliases cannot multiply.
    fn spend(&mut self, cost: usize, at: Position) -> Result<(), SyntaxError> {
        match self.left.checked_sub(cost) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(SyntaxError {
                at,
                message: format!("more than {VALUES} values in one document; spread them over several"),
            }),
        }
    }

    fn position(&self, marker: Marker) -> Position {
        Position {
            line: self.first_line + count(marker.line().saturating_sub(1)),
            column: count(marker.col() + 1),
        }
    }

    fn error(&self, marker: Marker, message: &str) -> SyntaxError {
        SyntaxError { at: self.position(marker), message: message.to_owned() }
    }
}

/// Other tags than `!!str` change what a text means; none of them belongs into a resource.
fn refuse_tag(tag: Option<&Tag>, at: Position) -> Result<(), SyntaxError> {
    match tag {
        Some(tag) if !tag.is_yaml_core_schema() => Err(SyntaxError {
            at,
            message: format!("the tag `{}` means nothing here; remove it", tag.original()),
        }),
        _ => Ok(()),
    }
}

/// A plain scalar by YAML's core schema (YAML 1.2.2 section 10.3.2).
fn resolve(text: Cow<'_, str>) -> Value {
    match text.as_ref() {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        number if is_number(number) => Value::Number(text.into_owned()),
        _ => Value::String(text.into_owned()),
    }
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    match digits.split_at_checked(2) {
        Some(("0x", hex)) => !hex.is_empty() && hex.bytes().all(|b| b.is_ascii_hexdigit()),
        Some(("0o", octal)) => !octal.is_empty() && octal.bytes().all(|b| (b'0'..=b'7').contains(&b)),
        _ if matches!(digits, ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN") => true,
        // Rust's floats and the core schema's differ only in the words for infinity and NaN.
        _ => {
            digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
                && digits.bytes().all(|b| b.is_ascii_digit() || b".eE+-".contains(&b))
                && digits.parse::<f64>().is_ok()
        }
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
