//! What a VM's user space is made of, as the cpio archive that its kernel unpacks.

use crate::process;
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const BUSYBOX: &str = "/bin/busybox";

/// A cpio archive in the "newc" format (kernel: Documentation/driver-api/early-userspace/buffer-format.rst).
#[derive(Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    directories: BTreeSet<PathBuf>,
    libraries: BTreeSet<String>,
}

impl Archive {
    /// An archive with busybox and the directories that every user space has.
    pub(super) fn with_busybox() -> Result<Self> {
        let mut archive = Self::default();
        for directory in ["dev", "proc", "sys", "tmp", "bin", "modules"] {
            archive.directory(directory);
        }
        archive.device("dev/console", 5, 1);
        archive.file("bin/busybox", &read(Path::new(BUSYBOX))?);
        Ok(archive)
    }

    /// Adds `modules`, which are paths below `directory`, to `modules/`.
    pub(super) fn modules(&mut self, directory: &Path, modules: &[&str]) -> Result<()> {
        for module in modules {
            let content = read(&directory.join("kernel").join(module))?;
            self.file(&format!("modules/{}", file_name(module)), &content);
        }
        Ok(())
    }

    /// Adds the shared libraries of `program` with its loader, as `ldd` finds them.
    pub(super) fn libraries(&mut self, program: &Path) -> Result<()> {
        let mut command = Command::new("ldd");
        command.arg(program);
        let listing = process::run(command)?;
        for library in listing.split_ascii_whitespace().filter(|word| word.starts_with('/')) {
            if self.libraries.insert(library.to_owned()) {
                self.file(library, &read(Path::new(library))?);
            }
        }
        Ok(())
    }

    const DIRECTORY: u32 = 0o040_755;
    const FILE: u32 = 0o100_755;
    const CHARACTER_DEVICE: u32 = 0o020_600;

    /// Adds a directory with its parents, once.
    pub(super) fn directory(&mut self, path: &str) {
        let path = Path::new(path.trim_start_matches('/'));
        let mut missing: Vec<_> = path.ancestors().filter(|a| !a.as_os_str().is_empty()).collect();
        missing.reverse();
        for directory in missing {
            if self.directories.insert(directory.to_owned()) {
                self.entry(&directory.to_string_lossy(), Self::DIRECTORY, &[], (0, 0));
            }
        }
    }

    pub(super) fn file(&mut self, path: &str, content: &[u8]) {
        let path = path.trim_start_matches('/');
        if let Some(parent) = Path::new(path).parent() {
            self.directory(&parent.to_string_lossy());
        }
        self.entry(path, Self::FILE, content, (0, 0));
    }

    fn device(&mut self, path: &str, major: u32, minor: u32) {
        self.entry(path, Self::CHARACTER_DEVICE, &[], (major, minor));
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[], (0, 0));
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8], (major, minor): (u32, u32)) {
        self.entries += 1;
        // inode, mode, uid, gid, links, mtime, size, device (2), device it stands for (2), name's length, check
        let fields = [
            self.entries,
            mode,
            0,
            0,
            1,
            0,
            length(content.len()),
            0,
            0,
            major,
            minor,
            length(path.len() + 1),
            0,
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(path.bytes().chain([0]));
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// The content of a file that `cargo xtask setup` brings.
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("the VM needs {}: run `cargo xtask setup`", path.display()))
}

/// The names of files, for a shell.
pub(super) fn file_names(paths: &[&str]) -> String {
    let names: Vec<_> = paths.iter().map(|path| file_name(path)).collect();
    names.join(" ")
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Nothing here comes near 4 GiB; a length that did would make an archive the kernel refuses.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archive_is_laid_out_as_the_kernel_reads_it() {
        let mut archive = Archive::default();
        archive.file("/a/b", b"hello");
        let bytes = archive.finish();
        let text = String::from_utf8_lossy(&bytes);
        let names: Vec<_> = text.match_indices("070701").map(|(at, _)| at).collect();
        assert_eq!(names.len(), 3, "directory, file, trailer: {text}");
        assert!(names.iter().all(|at| at % 4 == 0));
        assert_eq!(&text[110..111], "a");
        let file = names[1];
        assert_eq!(&text[file + 54..file + 62], "00000005");
        assert_eq!(&text[file + 110..file + 114], "a/b\0");
    }
}
