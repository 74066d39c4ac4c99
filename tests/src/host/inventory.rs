//! What a host has of its endpoints outside the daemon, as the kernel's own tools see it.

use super::Host;
use crate::process;
use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Everything that an endpoint could leave behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inventory {
    /// Pins below the pin directory.
    pub pins: Vec<PathBuf>,
    /// Entries of each pinned map that can be listed.
    pub map_entries: BTreeMap<PathBuf, usize>,
    /// Routes of all tables, without what the kernel adds by itself for an interface.
    pub routes: Vec<String>,
    /// Permanent neighbours and proxies.
    pub neighbours: Vec<String>,
}

impl Host {
    /// Takes stock.
    pub fn inventory(&self) -> Result<Inventory> {
        let pins = self.list_pins()?;
        let mut map_entries = BTreeMap::new();
        for pin in &pins {
            if let Some(Value::Array(entries)) = self.bpftool(&["map", "dump", "pinned"], pin)? {
                map_entries.insert(pin.clone(), entries.len());
            }
        }
        let lines = |text: String| text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>();
        let mut routes = lines(self.namespace.ip("-6 route show table all")?);
        routes.retain(|route| !route.contains("proto kernel"));
        let mut neighbours = lines(self.namespace.ip("-6 neighbour show nud permanent")?);
        neighbours.extend(lines(self.namespace.ip("-6 neighbour show proxy")?));
        Ok(Inventory { pins, map_entries, routes, neighbours })
    }

    /// Ids of the BPF links pinned for an interface as `<ifindex>-<hook>`: the same ids are the same attachments.
    pub fn links(&self, ifindex: u32) -> Result<Vec<u64>> {
        let start = format!("{ifindex}-");
        let mut ids = Vec::new();
        for pin in self.list_pins()? {
            let ours = pin.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&start));
            if ours && let Some(link) = self.bpftool(&["link", "show", "pinned"], &pin)? {
                ids.push(link["id"].as_u64().with_context(|| format!("a link without id: {link}"))?);
            }
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// Paths of all pins below the directory of pins, sorted; empty directories are marks and count.
    pub fn list_pins(&self) -> Result<Vec<PathBuf>> {
        let pins = self.pins();
        self.namespace.enter(|| {
            let mut found = Vec::new();
            let mut directories = vec![pins];
            while let Some(directory) = directories.pop() {
                let entries = read_directory(&directory)?;
                if entries.is_empty() {
                    found.push(directory);
                    continue;
                }
                for path in entries {
                    let to = if path.is_dir() { &mut directories } else { &mut found };
                    to.push(path);
                }
            }
            found.sort();
            Ok(found)
        })
    }

    /// What bpftool says of a pin; `None` when it is not of that kind.
    fn bpftool(&self, words: &[&str], pin: &Path) -> Result<Option<Value>> {
        let mut command = self.namespace.command("bpftool");
        command.arg("--json").args(words).arg(pin);
        let Ok(text) = process::run(command) else { return Ok(None) };
        let value: Value = serde_json::from_str(&text).with_context(|| format!("bpftool printed {text}"))?;
        Ok(value.get("error").is_none().then_some(value))
    }
}

fn read_directory(directory: &Path) -> Result<Vec<PathBuf>> {
    match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        other => Ok(other?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?),
    }
}
