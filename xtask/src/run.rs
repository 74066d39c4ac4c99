//! Running other programs: each is printed as a line that a shell takes, and a failure says which one failed.

use crate::workspace;
use anyhow::{Context, Result, bail};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};

/// A program about to run.
pub struct Run(Command);

impl Run {
    /// The program, found in PATH unless it is a path; it runs in the root of the workspace.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        command.current_dir(workspace::root());
        Self(command)
    }

    /// Runs it where the person is.
    pub fn here(mut self) -> Self {
        self.0.current_dir(".");
        // Cargo takes what is relative from there, too.
        self.env("CARGO_TARGET_DIR", workspace::target())
    }

    /// Appends one argument.
    pub fn arg(self, argument: impl AsRef<OsStr>) -> Self {
        self.args([argument])
    }

    /// Appends arguments.
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.0.args(arguments);
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.0.env(name, value);
        self
    }

    /// Takes away the inherited environment variables whose name `unwanted` picks.
    pub fn without_env(mut self, unwanted: impl Fn(&str) -> bool) -> Self {
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(&unwanted) {
                self.0.env_remove(name);
            }
        }
        self
    }

    /// Prints and runs it; an error unless it succeeds.
    pub fn run(mut self) -> Result<()> {
        let line = self.announce();
        let status = self.0.status().with_context(|| cannot_run(&line))?;
        succeeded(status, &line)
    }

    /// Prints and runs it, passing every line of its standard output to `see` as well as on.
    pub fn run_seen(mut self, mut see: impl FnMut(&str)) -> Result<bool> {
        let line = self.announce();
        let mut child = self.0.stdout(Stdio::piped()).spawn().with_context(|| cannot_run(&line))?;
        if let Some(stdout) = child.stdout.take() {
            for text in BufReader::new(stdout).lines() {
                let text = text.with_context(|| format!("cannot read what `{line}` prints"))?;
                println!("{text}");
                see(&text);
            }
        }
        Ok(child.wait()?.success())
    }

    /// What it prints on standard output, without the final newline; nothing is announced, and its errors are not shown.
    pub fn output(mut self) -> Result<String> {
        let line = self.to_string();
        let output = self.0.stderr(Stdio::null()).output().with_context(|| cannot_run(&line))?;
        succeeded(output.status, &line)?;
        let text =
            String::from_utf8(output.stdout).with_context(|| format!("`{line}` does not print UTF-8"))?;
        Ok(text.trim_end().to_owned())
    }

    /// Prints it and becomes it; comes back only with an error.
    pub fn become_it(mut self) -> Result<()> {
        let line = self.announce();
        Err(self.0.exec()).with_context(|| cannot_run(&line))
    }

    fn announce(&self) -> String {
        let line = self.to_string();
        eprintln!("+ {line}");
        line
    }
}

/// The line that a shell takes.
impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = self.0.get_envs().filter_map(|(name, value)| {
            let mut assignment = name.to_owned();
            assignment.push("=");
            assignment.push(quoted(value?));
            Some(assignment)
        });
        let words = std::iter::once(self.0.get_program()).chain(self.0.get_args()).map(quoted);
        let line: Vec<OsString> = set.chain(words).collect();
        f.write_str(&line.join(OsStr::new(" ")).to_string_lossy())
    }
}

fn succeeded(status: ExitStatus, line: &str) -> Result<()> {
    if !status.success() {
        bail!("failed ({status}): {line}");
    }
    Ok(())
}

fn cannot_run(line: &str) -> String {
    format!("cannot run: {line}")
}

fn quoted(word: &OsStr) -> OsString {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./=:,+@%".contains(&b);
    match word.to_str() {
        Some(text) if text.is_empty() || !text.bytes().all(plain) => {
            format!("'{}'", text.replace('\'', r"'\''")).into()
        }
        _ => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Run {
        Run::new("sh").args(["-c", script])
    }

    #[test]
    fn prints_what_a_shell_takes() {
        let run = Run::new("cargo").args(["a b", "it's", "", "--x=/y"]).env("FLAGS", "-C a");
        assert_eq!(run.to_string(), r"FLAGS='-C a' cargo 'a b' 'it'\''s' '' --x=/y");
    }

    #[test]
    fn failure_names_the_command() {
        let error = shell("exit 3").run().unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("sh -c 'exit 3'"), "{error}");
    }

    #[test]
    fn output_and_lines_are_those_of_the_program() {
        assert_eq!(shell("echo one; echo two").output().unwrap(), "one\ntwo");
        let mut lines = Vec::new();
        let success = shell("echo one; exit 1").run_seen(|line| lines.push(line.to_owned())).unwrap();
        assert_eq!((success, lines), (false, vec!["one".to_owned()]));
    }
}
