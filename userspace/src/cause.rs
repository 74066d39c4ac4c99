//! An error and its causes as one line for people.

use std::error::Error;

/// `error` and its causes, separated by colons. A cause that the text before it names already is not repeated: some
/// errors spell out their source, others leave it to the reader of the chain.
pub fn in_one_line(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    for cause in std::iter::successors(error.source(), |cause| (*cause).source()) {
        let cause = cause.to_string();
        if !line.contains(&cause) {
            line.push_str(": ");
            line.push_str(&cause);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;
    use std::io;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open: {0}; create it")]
    struct SpeltOut(#[source] io::Error);

    #[test]
    fn names_every_cause_once() {
        let missing = || io::Error::other("no such file");
        assert_eq!(in_one_line(&SpeltOut(missing())), "cannot open: no such file; create it");
        let outer = Err::<(), _>(missing()).context("cannot start").unwrap_err();
        assert_eq!(in_one_line(outer.as_ref()), "cannot start: no such file");
    }
}
