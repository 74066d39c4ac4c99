//! What a plan needs of the host when it is put into effect: passwords, our address towards neighbours, and the state
//! of the extra file. Reads files and asks the kernel; changes nothing.

use crate::config::Bfd;
use crate::plan::bird::{BirdPlan, Inputs, Password, Reach};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Longest file that is read for a password.
const LONGEST: u64 = 4096;

/// Reads what `plan` needs; says what is missing. A password that cannot be read any more is the one it was in `known`:
/// a live session is not given up for it.
pub(super) fn gather(plan: &BirdPlan, supervised: bool, known: &Inputs) -> (Inputs, Vec<String>) {
    let mut problems = Vec::new();
    let mut passwords: BTreeMap<PathBuf, Password> = BTreeMap::new();
    // Sessions may share one.
    let files: BTreeSet<&PathBuf> = plan.password_files().collect();
    for file in files {
        match password(file) {
            Ok(password) => {
                passwords.insert(file.clone(), password);
            }
            Err(error) => {
                let names: Vec<&str> = plan
                    .sessions
                    .iter()
                    .filter(|session| session.password.as_ref() == Some(file))
                    .map(|session| session.name.as_str())
                    .collect();
                let fate = if known.passwords.contains_key(file) {
                    "keep the one they had"
                } else {
                    "have no session"
                };
                problems.push(format!(
                    "password {}: {error}; until then {} {fate}",
                    file.display(),
                    names.join(", ")
                ));
                passwords.extend(known.passwords.get_key_value(file).map(|(k, v)| (k.clone(), v.clone())));
            }
        }
    }
    let mut sources = BTreeMap::new();
    let need_one = |session: &&crate::plan::bird::Session| {
        session.source.is_none() && session.bfd != Bfd::Off && session.reach != Reach::Direct
    };
    for session in plan.sessions.iter().filter(need_one) {
        match source_towards(session.neighbour).or_else(|_| known_source(known, session.neighbour)) {
            Ok(source) => {
                sources.insert(session.neighbour, source);
            }
            Err(error) => problems.push(format!(
                "{} is without BFD: no address of ours leads to {}: {error}; set bird.address",
                session.name, session.neighbour
            )),
        }
    }
    let extra = plan.extra.as_deref().and_then(|file| {
        sign(file).map_err(|error| problems.push(format!("{} is left out: {error}", file.display()))).ok()
    });
    (Inputs { supervised, passwords, sources, extra, device: None }, problems)
}

/// Reads a password from a file that nobody but its owner, root or us, may read.
fn password(path: &Path) -> Result<Password, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("no regular file".to_owned());
    }
    if metadata.mode() & 0o077 != 0 {
        return Err("others may read or write it; chmod 600".to_owned());
    }
    if metadata.uid() != 0 && metadata.uid() != nix::unistd::geteuid().as_raw() {
        return Err("it belongs to another user; chown root".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    Password::of_file(&bytes).map_err(|error| error.to_string())
}

/// The address that the kernel would send from. Connecting a UDP socket asks for it and sends nothing.
fn source_towards(neighbour: Ipv6Addr) -> io::Result<Ipv6Addr> {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
    socket.connect(SocketAddr::from((neighbour, 179)))?;
    match socket.local_addr()?.ip() {
        IpAddr::V6(address) if !address.is_unspecified() => Ok(address),
        _ => Err(io::ErrorKind::AddrNotAvailable.into()),
    }
}

fn known_source(known: &Inputs, neighbour: Ipv6Addr) -> io::Result<Ipv6Addr> {
    known.sources.get(&neighbour).copied().ok_or_else(|| io::ErrorKind::NetworkUnreachable.into())
}

/// Something that is another when the file is another.
fn sign(path: &Path) -> io::Result<String> {
    let metadata = std::fs::metadata(path)?;
    let (seconds, nanoseconds) = (metadata.mtime(), metadata.mtime_nsec());
    Ok(format!("{} bytes, inode {}, written {seconds}.{nanoseconds:09}", metadata.len(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::plan::bird::{Host, plan};
    use crate::resource::Resources;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn planned(text: &str) -> BirdPlan {
        let config = Config::parse(Path::new("f"), text.as_bytes()).unwrap().bird.unwrap();
        plan(&config, Host { node: "n1", tap_prefix: "tap" }, &Resources::default())
    }

    fn write(path: &Path, text: &str, mode: u32) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_password_that_others_may_read_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("secret");
        let peers = format!(
            "[bird]\npeers = [{{ name = 'a', address = 'fd00::1', password_file = '{0}' }}, {{ name = 'b', address = 'fd00::2', password_file = '{0}' }}]",
            file.display()
        );
        let plan = planned(&peers);
        let gathered = |known: &Inputs| gather(&plan, true, known);

        write(&file, "one\n", 0o644);
        let (inputs, problems) = gathered(&Inputs::default());
        assert!(inputs.passwords.is_empty());
        assert_eq!(
            problems,
            [format!(
                "password {}: others may read or write it; chmod 600; until then a, b have no session",
                file.display()
            )]
        );

        write(&file, "one\n", 0o600);
        let (inputs, problems) = gathered(&Inputs::default());
        assert_eq!(problems, [""; 0]);
        assert_eq!(inputs.passwords[&file].reveal(), "one");

        fs::remove_file(&file).unwrap();
        let (kept, problems) = gathered(&inputs);
        assert_eq!(kept, inputs);
        assert!(problems[0].ends_with("until then a, b keep the one they had"), "{problems:?}");
    }

    #[test]
    fn the_extra_file_is_noticed_when_it_changes() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("extra");
        let plan = planned(&format!("[bird]\nextra = '{}'", file.display()));
        let (inputs, problems) = gather(&plan, true, &Inputs::default());
        assert_eq!((inputs.extra, problems.len()), (None, 1));
        write(&file, "one", 0o600);
        let first = gather(&plan, true, &Inputs::default()).0.extra.unwrap();
        write(&file, "other", 0o600);
        assert_ne!(gather(&plan, true, &Inputs::default()).0.extra.unwrap(), first);
    }

    #[test]
    fn the_kernel_names_the_source() {
        assert_eq!(source_towards(Ipv6Addr::LOCALHOST).unwrap(), Ipv6Addr::LOCALHOST);
    }
}
