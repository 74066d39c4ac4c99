//! The parser: recursive descent over the text, without a token stream, because what a word means depends on where it
//! stands (`in` is a label before an operator, and an operator after a label).

use super::{Label, Selector, SelectorError, Text};
use std::collections::BTreeSet;

/// Deepest nesting of parentheses and `!`: nobody writes that, and every level costs stack.
const DEPTH: usize = 64;

/// Longest label name.
const LABEL: usize = 512;

/// Reads a whole selector.
pub(super) fn selector(text: &str) -> Result<Selector, SelectorError> {
    let mut parser = Parser { text, at: 0, depth: 0 };
    parser.skip_blanks();
    if parser.rest().is_empty() {
        return Ok(Selector::All);
    }
    let selector = parser.expression()?;
    if parser.rest().is_empty() { Ok(selector) } else { parser.fail("expected `&&`, `||` or the end") }
}

struct Parser<'a> {
    text: &'a str,
    /// Bytes read; blanks after them are skipped.
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn expression(&mut self) -> Result<Selector, SelectorError> {
        let mut parts = vec![self.conjunction()?];
        while self.eat("||") {
            parts.push(self.conjunction()?);
        }
        Ok(one_or(parts, Selector::Any))
    }

    fn conjunction(&mut self) -> Result<Selector, SelectorError> {
        let mut parts = vec![self.operation()?];
        while self.eat("&&") {
            parts.push(self.operation()?);
        }
        Ok(one_or(parts, Selector::Every))
    }

    fn operation(&mut self) -> Result<Selector, SelectorError> {
        if self.rest().starts_with("!=") {
            return self.fail("expected a label before `!=`");
        }
        if self.eat("!") {
            return self.nested(|parser| Ok(Selector::Not(Box::new(parser.operation()?))));
        }
        if self.eat("(") {
            return self.nested(|parser| {
                let inner = parser.expression()?;
                parser.expect(")")?;
                Ok(inner)
            });
        }
        if self.eat("all(") {
            self.expect(")")?;
            return Ok(Selector::All);
        }
        if self.eat("global(") {
            self.expect(")")?;
            return Ok(Selector::Global);
        }
        if self.eat("has(") {
            let label = self.label()?;
            self.expect(")")?;
            return Ok(Selector::Has(label));
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Selector, SelectorError> {
        let label = self.label()?;
        if self.eat("==") {
            return Ok(Selector::Is(label, self.string()?));
        }
        if self.eat("!=") {
            return Ok(Selector::IsNot(label, self.string()?));
        }
        if self.eat("contains") {
            return Ok(Selector::Contains(label, self.string()?));
        }
        if self.eat_words("starts", "with") {
            return Ok(Selector::StartsWith(label, self.string()?));
        }
        if self.eat_words("ends", "with") {
            return Ok(Selector::EndsWith(label, self.string()?));
        }
        if self.eat_words("not", "in") {
            return Ok(Selector::NotIn(label, self.set()?));
        }
        if self.eat("in") {
            return Ok(Selector::In(label, self.set()?));
        }
        self.fail(&format!(
            "expected `==`, `!=`, `in`, `not in`, `contains`, `starts with` or `ends with` after the label `{label}`"
        ))
    }

    fn label(&mut self) -> Result<Label, SelectorError> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'/' | b'-');
        let length = self.rest().bytes().take_while(|&b| legal(b)).count();
        if length == 0 {
            return self.fail("expected a label, `has(…)`, `all()`, `global()`, `!` or `(`");
        }
        if length > LABEL {
            return self.fail(&format!("a label has up to {LABEL} characters, this one has {length}"));
        }
        let label = Label(self.rest()[..length].to_owned());
        self.advance(length);
        Ok(label)
    }

    fn string(&mut self) -> Result<Text, SelectorError> {
        let Some(quote) = self.rest().chars().next().filter(|c| matches!(c, '\'' | '"')) else {
            return self.fail("expected a text in quotes");
        };
        let inside = &self.rest()[1..];
        let Some(length) = inside.find(quote) else {
            return self.fail(&format!("the text is not closed; end it with {quote}"));
        };
        let text = Text(inside[..length].to_owned());
        self.advance(length + 2);
        Ok(text)
    }

    fn set(&mut self) -> Result<BTreeSet<Text>, SelectorError> {
        self.expect("{")?;
        let mut texts = BTreeSet::new();
        while !self.eat("}") {
            texts.insert(self.string()?);
            if !self.eat(",") && !self.rest().starts_with('}') {
                return self.fail("expected `,` or `}`");
            }
        }
        Ok(texts)
    }

    fn nested(
        &mut self,
        inner: impl FnOnce(&mut Self) -> Result<Selector, SelectorError>,
    ) -> Result<Selector, SelectorError> {
        if self.depth == DEPTH {
            return self.fail(&format!("nested deeper than {DEPTH} levels"));
        }
        self.depth += 1;
        let selector = inner(self)?;
        self.depth -= 1;
        Ok(selector)
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn advance(&mut self, bytes: usize) {
        self.at += bytes;
        self.skip_blanks();
    }

    fn skip_blanks(&mut self) {
        self.at = self.text.len() - self.rest().trim_start_matches([' ', '\t']).len();
    }

    fn eat(&mut self, token: &str) -> bool {
        let there = self.rest().starts_with(token);
        if there {
            self.advance(token.len());
        }
        there
    }

    /// An operator of two words, with or without blanks between them; all or nothing.
    fn eat_words(&mut self, first: &str, second: &str) -> bool {
        let start = self.at;
        if self.eat(first) && self.eat(second) {
            return true;
        }
        self.at = start;
        false
    }

    fn expect(&mut self, token: &str) -> Result<(), SelectorError> {
        if self.eat(token) { Ok(()) } else { self.fail(&format!("expected `{token}`")) }
    }

    fn fail<T>(&self, message: &str) -> Result<T, SelectorError> {
        let column = self.text[..self.at].chars().count() + 1;
        Err(SelectorError { column, message: message.to_owned() })
    }
}

fn one_or(mut parts: Vec<Selector>, several: fn(Vec<Selector>) -> Selector) -> Selector {
    if parts.len() == 1 { parts.remove(0) } else { several(parts) }
}
