//! The program: which BIRD there is, whether it takes a configuration, and starting it. This is the one place where the
//! daemon runs another program.

use super::error::BirdError;
use super::files::Files;
use crate::plan::bird::Dialect;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::{Child, Command};

/// Where to look besides `PATH`, which a service need not have.
const DIRECTORIES: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// A BIRD that can be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Program {
    path: PathBuf,
    pub dialect: Dialect,
}

impl Program {
    /// The one at `path`; without it the first `bird` of version 2 or later, else the first `bird6`.
    pub async fn find(path: Option<&Path>) -> Result<Self, BirdError> {
        if let Some(path) = path {
            let version = version(path).await?;
            return Ok(Self { path: path.to_owned(), dialect: dialect(&version) });
        }
        let search = std::env::var_os("PATH").unwrap_or_default();
        let directories: Vec<PathBuf> =
            std::env::split_paths(&search).chain(DIRECTORIES.iter().map(PathBuf::from)).collect();
        for (name, wanted) in [("bird", Dialect::Bird2), ("bird6", Dialect::Bird1)] {
            for path in directories.iter().map(|directory| directory.join(name)).filter(|path| path.is_file())
            {
                // The `bird` of version 1 is for IPv4.
                if dialect(&version(&path).await?) == wanted {
                    return Ok(Self { path, dialect: wanted });
                }
            }
        }
        Err(BirdError::Absent)
    }

    /// Has a BIRD of its own read the configuration; it starts nothing and changes nothing.
    pub async fn check(&self, file: &Path) -> Result<(), BirdError> {
        let output = Command::new(&self.path).arg("-p").arg("-c").arg(file).output().await;
        let output = output.map_err(|source| BirdError::Execute { path: self.path.clone(), source })?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        // "bird: f:1:20 syntax error"
        let line = said.lines().last().unwrap_or_default();
        let line = line.split_once(": ").map_or(line, |(_, message)| message);
        let line = if line.is_empty() { output.status.to_string() } else { line.to_owned() };
        Err(BirdError::Refused { line })
    }

    /// Starts it with the configuration that it has taken. `recover`: routes of an earlier one are in the kernel.
    ///
    /// It outlives us, and no signal that is sent to us from a terminal reaches it. What it says goes where ours goes.
    pub fn start(&self, files: &Files, recover: bool) -> Result<Child, BirdError> {
        let mut arguments: Vec<OsString> = vec!["-f".into()];
        if recover {
            arguments.push("-R".into());
        }
        for (option, path) in [("-c", files.current()), ("-s", files.socket()), ("-P", files.pid())] {
            arguments.extend([option.into(), path.into()]);
        }
        Command::new(&self.path)
            .args(arguments)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(0)
            .kill_on_drop(false)
            .spawn()
            .map_err(|source| BirdError::Execute { path: self.path.clone(), source })
    }
}

/// Which configuration a version reads.
pub(super) fn dialect(version: &str) -> Dialect {
    if version.starts_with("1.") { Dialect::Bird1 } else { Dialect::Bird2 }
}

async fn version(path: &Path) -> Result<String, BirdError> {
    let output = Command::new(path).arg("--version").output().await;
    let output = output.map_err(|source| BirdError::Execute { path: path.to_owned(), source })?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let version = said.trim().strip_prefix("BIRD version ").map(str::to_owned);
    version.ok_or_else(|| BirdError::NoBird { path: path.to_owned() })
}
