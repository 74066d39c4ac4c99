//! The grammar of what BIRD answers on its control socket: pure, a line at a time.
//!
//! `NNNN-text` is a row and more follow, `NNNN text` is the last one, a leading blank repeats the code of the row
//! before, and a leading `+` is news that nobody asked for.

/// One row of a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub code: u16,
    pub text: String,
}

/// A whole reply: its rows, the last one included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reply {
    pub rows: Vec<Row>,
}

/// A line that is none of BIRD's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no line of a reply")]
pub(super) struct NoReply(String);

impl Reply {
    /// Code of the last row.
    pub fn code(&self) -> u16 {
        self.rows.last().map_or(0, |row| row.code)
    }

    /// Text of the last row.
    pub fn text(&self) -> &str {
        self.rows.last().map_or("", |row| &row.text)
    }

    /// Whether BIRD refused: 8xxx is an error of what it was to do, 9xxx of how it was told.
    pub fn is_refusal(&self) -> bool {
        self.code() >= 8000
    }

    /// Takes in a line without its end; true when it was the last one.
    pub fn take(&mut self, line: &str) -> Result<bool, NoReply> {
        let wrong = || NoReply(line.chars().take(80).collect());
        if line.starts_with('+') {
            return Ok(false);
        }
        if let Some(text) = line.strip_prefix(' ') {
            let code = self.rows.last().ok_or_else(wrong)?.code;
            self.rows.push(Row { code, text: text.to_owned() });
            return Ok(false);
        }
        let digits =
            line.get(..4).filter(|code| code.bytes().all(|b| b.is_ascii_digit())).ok_or_else(wrong)?;
        let code = digits.parse().map_err(|_| wrong())?;
        let mut text = line[4..].chars();
        let last = match text.next() {
            Some('-') => false,
            Some(' ') | None => true,
            Some(_) => return Err(wrong()),
        };
        self.rows.push(Row { code, text: text.as_str().to_owned() });
        Ok(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(text: &str) -> Result<(Reply, bool), NoReply> {
        let mut reply = Reply::default();
        let mut last = false;
        for line in text.lines() {
            assert!(!last, "a line after the last one: {line}");
            last = reply.take(line)?;
        }
        Ok((reply, last))
    }

    #[test]
    fn rows_continue_end_and_repeat_their_code() {
        let (reply, last) =
            reply("1011-Router ID is 10.0.0.1\n Hostname is vm\n+0000 news\n0013 Daemon is up\n").unwrap();
        assert!(last);
        let rows: Vec<_> = reply.rows.iter().map(|row| (row.code, row.text.as_str())).collect();
        assert_eq!(rows, [(1011, "Router ID is 10.0.0.1"), (1011, "Hostname is vm"), (13, "Daemon is up")]);
        assert_eq!((reply.code(), reply.text(), reply.is_refusal()), (13, "Daemon is up", false));
    }

    #[test]
    fn the_last_row_may_be_empty() {
        let (end, last) = reply("1007-Table master6:\n0000 \n").unwrap();
        assert!(last);
        assert_eq!((end.code(), end.text()), (0, ""));
        assert!(reply("0000").unwrap().1);
    }

    #[test]
    fn eights_and_nines_are_refusals() {
        for (text, refusal) in [
            ("0003 Reconfigured", false),
            ("8002 a.conf:1:20 syntax error", true),
            ("9001 syntax error", true),
        ] {
            assert_eq!(reply(text).unwrap().0.is_refusal(), refusal);
        }
    }

    #[test]
    fn what_is_no_reply_is_refused_and_no_line_panics() {
        for text in ["", "x", " first", "001", "0001x", "HTTP/1.1 400", "\u{e4}\u{e4}\u{e4}"] {
            assert!(Reply::default().take(text).is_err(), "{text:?}");
        }
    }
}
