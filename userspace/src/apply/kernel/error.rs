//! What can go wrong at the kernel's side, and what the reader can do about it.

use std::io;
use std::net::Ipv6Addr;
use std::path::PathBuf;

/// Why the kernel is not as the plan wants it.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// No netlink socket.
    #[error("cannot open a netlink route socket: {0}")]
    Open(#[source] io::Error),
    /// No privilege.
    #[error(
        "not allowed to {action}: run as root, or with CAP_NET_ADMIN in the owner of this network namespace"
    )]
    NotPermitted {
        /// What was tried.
        action: String,
    },
    /// The TAP went away, or another one has its name now. Its return is an event.
    #[error("{interface} vanished while it was being configured; it is configured when it returns")]
    Vanished {
        /// The TAP.
        interface: String,
    },
    /// The TAP went down. Its coming up is an event.
    #[error("{interface} went down while it was being configured; it is configured when it is up again")]
    Down {
        /// The TAP.
        interface: String,
    },
    /// The kernel keeps no IPv6 state for it.
    #[error(
        "{interface} has no IPv6: the kernel takes it from interfaces with an MTU below 1280 bytes; raise the MTU"
    )]
    NoIpv6 {
        /// The TAP.
        interface: String,
    },
    /// The kernel runs without IPv6.
    #[error("this kernel has no IPv6 ({path} is not there): boot it without ipv6.disable=1, and mount /proc")]
    HostWithoutIpv6 {
        /// What is missing.
        path: PathBuf,
    },
    /// A sysctl can't be read or written.
    #[error("cannot {action} {path}: {source}; is /proc/sys mounted read-only?")]
    Sysctl {
        /// `read` or `set`.
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Netlink refuses.
    #[error("the kernel refuses to {action}: {source}")]
    Refused {
        /// What was tried.
        action: String,
        /// Why.
        source: io::Error,
    },
    /// The kernel gives no answer.
    #[error("no answer from the kernel's netlink socket to: {action}; restart the daemon if this stays")]
    NoAnswer {
        /// What was asked.
        action: String,
    },
    /// Something else undoes what we do.
    #[error(
        "{interface}: {left} settings differ again right after they were set; something else configures this \
         interface: make NetworkManager, systemd-networkd and the like leave it alone"
    )]
    Unsettled {
        /// The TAP.
        interface: String,
        /// How many differ.
        left: usize,
    },
}

impl KernelError {
    /// What an errno of the kernel means for `interface` when `action` was tried.
    pub(super) fn of(interface: &str, action: impl FnOnce() -> String, source: io::Error) -> Self {
        let interface = || interface.to_owned();
        match (source.kind(), source.raw_os_error()) {
            (io::ErrorKind::TimedOut | io::ErrorKind::BrokenPipe, None) => {
                Self::NoAnswer { action: action() }
            }
            (_, Some(libc::EPERM)) => Self::NotPermitted { action: action() },
            (_, Some(libc::ENODEV | libc::ENXIO)) => Self::Vanished { interface: interface() },
            (_, Some(libc::ENETDOWN)) => Self::Down { interface: interface() },
            // Not a matter of privilege: the kernel says so when `disable_ipv6` is on, which we have just lifted.
            (_, Some(libc::EACCES)) => Self::Unsettled { interface: interface(), left: 1 },
            _ => Self::Refused { action: action(), source },
        }
    }
}

/// Something of somebody else that stands in the way of a working endpoint. It is left as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// The kernel sends packets to this address another way.
    #[error(
        "the kernel's route to {address} is not ours but of protocol {protocol} via interface {oif} with metric \
         {metric}: remove that one"
    )]
    Route {
        /// Address of the VM.
        address: Ipv6Addr,
        /// The other route's protocol number (`ip route` `proto`).
        protocol: u8,
        /// Its outgoing interface; 0 when it has none or several.
        oif: u32,
        /// Its metric.
        metric: u32,
    },
    /// A rule or route forbids packets to this address.
    #[error(
        "the kernel does not route packets to {address} ({reason}): look at `ip -6 rule` and `ip -6 route`"
    )]
    NoRoute {
        /// Address of the VM.
        address: Ipv6Addr,
        /// What the kernel says.
        reason: String,
    },
    /// A permanent neighbour of somebody else leads elsewhere.
    #[error(
        "neighbour {address} has been set to another MAC by somebody else (protocol {protocol}): remove that entry"
    )]
    Neighbour {
        /// Address of the VM.
        address: Ipv6Addr,
        /// The other entry's protocol number; 0 when it has none.
        protocol: u8,
    },
}
