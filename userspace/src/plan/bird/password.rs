//! A BGP password (RFC 2385): never printed, and only made of what BIRD's configuration can quote.

use std::fmt;

/// Longest key that the kernel takes (`TCP_MD5SIG_MAXKEYLEN`).
const LONGEST: usize = 80;

/// A password.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

/// Why a text is no password. Does not repeat it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// There is none.
    #[error("it is empty; write the password into its first line")]
    Empty,
    /// The kernel would not take it.
    #[error("the password is longer than 80 bytes")]
    Long,
    /// BIRD's configuration has no escapes.
    #[error(
        "the password has a quote, a control or a non-ASCII character, which BIRD cannot be told; use another one"
    )]
    Characters,
}

impl Password {
    /// The password in the first line of a file.
    pub fn of_file(bytes: &[u8]) -> Result<Self, PasswordError> {
        let line = bytes.split(|&b| b == b'\n').next().unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let legal = line.iter().all(|&b| (b' '..=b'~').contains(&b) && b != b'"');
        match std::str::from_utf8(line) {
            Ok("") => Err(PasswordError::Empty),
            Ok(text) if legal && text.len() <= LONGEST => Ok(Self(text.to_owned())),
            Ok(_) if legal => Err(PasswordError::Long),
            _ => Err(PasswordError::Characters),
        }
    }

    /// The password itself, for BIRD's configuration and nothing else.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_first_line_and_nothing_that_breaks_out_of_quotes() {
        let of = |text: &str| Password::of_file(text.as_bytes()).map(|password| password.reveal().to_owned());
        assert_eq!(of("sec ret#;{}\n# comment"), Ok("sec ret#;{}".to_owned()));
        assert_eq!(of("secret\r\n"), Ok("secret".to_owned()));
        assert_eq!(of(&"x".repeat(80)), Ok("x".repeat(80)));
        assert_eq!(of(&"x".repeat(81)), Err(PasswordError::Long));
        assert_eq!(of("\nsecret"), Err(PasswordError::Empty));
        for text in ["a\"b", "a\tb", "p\u{e4}ss", "a\0"] {
            assert_eq!(of(text), Err(PasswordError::Characters), "{text:?}");
        }
        let password = Password::of_file(b"secret").unwrap();
        assert_eq!(format!("{password:?}"), "Password(…)");
    }
}
