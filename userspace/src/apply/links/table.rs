//! What the kernel has told about interfaces so far: a pure fold over its messages.

use crate::plan::{HostFacts, LinkFacts};
use crate::resource::MacAddress;
use rtnetlink::packet_core::{DecodeError, NlaBuffer, NlasIterator};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{LinkFlags, LinkHeader, LinkLayerType};
use std::collections::{BTreeMap, BTreeSet};

/// Length of `struct ifinfomsg`.
const LINK_HEADER: usize = 16;
/// `IFLA_TUN_TYPE` within `IFLA_INFO_DATA` (linux/if_link.h), and its value for a TAP (linux/if_tun.h `IFF_TAP`).
const IFLA_TUN_TYPE: u16 = 3;
const TYPE_TAP: u8 = 2;

/// One message about one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// It is there, like this.
    There(String, LinkFacts),
    /// It is gone.
    Gone(u32),
}

impl Notice {
    /// Reads the payload of RTM_NEWLINK or RTM_DELLINK; `None` when it is not about an interface as such.
    ///
    /// Reads only the attributes it needs: an attribute that a newer kernel has changed must not make the interface
    /// invisible.
    pub(super) fn parse(payload: &[u8], gone: bool) -> Result<Option<Self>, DecodeError> {
        let header = LinkHeader::parse(payload)?;
        // A bridge sends RTM_DELLINK of family AF_BRIDGE when an interface leaves it; the interface still exists.
        if header.interface_family != AddressFamily::Unspec {
            return Ok(None);
        }
        if gone {
            return Ok(Some(Self::Gone(header.index)));
        }
        let mut name = None;
        let mut facts = LinkFacts {
            ifindex: header.index,
            mac: None,
            mtu: 0,
            admin_up: header.flags.contains(LinkFlags::Up),
            carrier: header.flags.contains(LinkFlags::LowerUp),
            tap: false,
        };
        let ethernet = header.link_layer_type == LinkLayerType::Ether;
        for attribute in NlasIterator::new(&payload[LINK_HEADER..]) {
            let attribute = attribute?;
            match attribute.kind() {
                libc::IFLA_IFNAME => name = Some(string(attribute.value())),
                libc::IFLA_ADDRESS if ethernet => {
                    facts.mac =
                        attribute.value().try_into().ok().and_then(|octets| MacAddress::new(octets).ok());
                }
                libc::IFLA_MTU => {
                    facts.mtu = attribute.value().first_chunk().map_or(0, |mtu| u32::from_ne_bytes(*mtu));
                }
                libc::IFLA_LINKINFO => facts.tap = ethernet && is_tap(attribute.value()),
                _ => {}
            }
        }
        let name = name.ok_or_else(|| DecodeError::from("it has no name (IFLA_IFNAME)"))?;
        Ok(Some(Self::There(name, facts)))
    }
}

fn is_tap(info: &[u8]) -> bool {
    let parts: Vec<NlaBuffer<&[u8]>> = NlasIterator::new(info).filter_map(Result::ok).collect();
    let tun = parts.iter().any(|part| part.kind() == libc::IFLA_INFO_KIND && string(part.value()) == "tun");
    // Kernels before 4.20 do not tell the type; there Ethernet is the mark of a TAP.
    let kind = parts
        .iter()
        .filter(|part| part.kind() == libc::IFLA_INFO_DATA)
        .flat_map(|part| NlasIterator::new(part.value()).filter_map(Result::ok))
        .find(|part| part.kind() == IFLA_TUN_TYPE)
        .and_then(|part| part.value().first().copied());
    tun && kind.is_none_or(|kind| kind == TYPE_TAP)
}

fn string(value: &[u8]) -> String {
    let end = value.iter().position(|&byte| byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// All interfaces, and which of them were touched since somebody asked.
#[derive(Debug, Default)]
pub(super) struct Table {
    links: BTreeMap<u32, (String, LinkFacts)>,
    touched: BTreeSet<u32>,
    /// While a dump arrives: the interfaces that it, or a notification after its beginning, has confirmed.
    confirmed: Option<BTreeSet<u32>>,
}

impl Table {
    pub(super) fn note(&mut self, notice: Notice) {
        match notice {
            Notice::There(name, facts) => {
                let ifindex = facts.ifindex;
                if let Some(confirmed) = &mut self.confirmed {
                    confirmed.insert(ifindex);
                }
                let now = (name, facts);
                if self.links.get(&ifindex) != Some(&now) {
                    self.links.insert(ifindex, now);
                    self.touched.insert(ifindex);
                }
            }
            Notice::Gone(ifindex) => {
                if self.links.remove(&ifindex).is_some() {
                    self.touched.insert(ifindex);
                }
            }
        }
    }

    /// A dump has been asked for. Notifications that were waiting in the socket come first: they are older than the
    /// dump, and confirm nothing.
    pub(super) fn request_dump(&mut self) {
        self.confirmed = None;
    }

    /// A message of the dump is here; whatever comes from now on is younger than the dump's beginning.
    pub(super) fn dump_arrives(&mut self) {
        self.confirmed.get_or_insert_default();
    }

    /// A whole dump has been noted: what it did not show is gone.
    pub(super) fn end_dump(&mut self) {
        if let Some(confirmed) = self.confirmed.take() {
            let touched = &mut self.touched;
            self.links.retain(|ifindex, _| {
                let there = confirmed.contains(ifindex);
                if !there {
                    touched.insert(*ifindex);
                }
                there
            });
        }
    }

    /// Something may have happened to any of them.
    pub(super) fn touch_all(&mut self) {
        self.touched.extend(self.links.keys());
    }

    pub(super) fn untouched(&self) -> bool {
        self.touched.is_empty()
    }

    pub(super) fn take_touched(&mut self) -> BTreeSet<u32> {
        std::mem::take(&mut self.touched)
    }

    pub(super) fn facts(&self) -> HostFacts {
        HostFacts { links: self.links.values().cloned().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtnetlink::packet_core::{DefaultNla, Emitable};
    use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoTun, LinkAttribute, LinkInfo, LinkMessage};

    fn there(ifindex: u32, name: &str, admin_up: bool) -> Notice {
        let facts = LinkFacts { ifindex, mac: None, mtu: 1500, admin_up, carrier: false, tap: true };
        Notice::There(name.to_owned(), facts)
    }

    fn message(family: AddressFamily, attributes: Vec<LinkAttribute>) -> Vec<u8> {
        let mut message = LinkMessage::default();
        message.header.interface_family = family;
        message.header.index = 7;
        message.header.link_layer_type = LinkLayerType::Ether;
        message.header.flags = LinkFlags::Up;
        message.attributes = attributes;
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        bytes
    }

    fn tun(kind: u8) -> LinkAttribute {
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Tun),
            LinkInfo::Data(InfoData::Tun(vec![InfoTun::Other(DefaultNla::new(IFLA_TUN_TYPE, vec![kind]))])),
        ])
    }

    #[test]
    fn reads_a_tap() {
        let bytes = message(
            AddressFamily::Unspec,
            vec![
                LinkAttribute::IfName("tap0".to_owned()),
                LinkAttribute::Mtu(9000),
                LinkAttribute::Address(vec![2, 0, 0, 0, 0, 1]),
                tun(TYPE_TAP),
            ],
        );
        let expected = LinkFacts {
            ifindex: 7,
            mac: Some("02:00:00:00:00:01".parse().unwrap()),
            mtu: 9000,
            admin_up: true,
            carrier: false,
            tap: true,
        };
        let notice = Notice::parse(&bytes, false).unwrap();
        assert_eq!(notice, Some(Notice::There("tap0".to_owned(), expected)));
        assert_eq!(Notice::parse(&bytes, true).unwrap(), Some(Notice::Gone(7)));
    }

    #[test]
    fn a_tun_without_ethernet_frames_is_no_tap() {
        let bytes = message(AddressFamily::Unspec, vec![LinkAttribute::IfName("tun0".to_owned()), tun(1)]);
        let Some(Notice::There(_, facts)) = Notice::parse(&bytes, false).unwrap() else {
            panic!("it is an interface");
        };
        assert!(!facts.tap);
    }

    #[test]
    fn leaving_a_bridge_is_not_leaving_the_host() {
        let bytes = message(AddressFamily::Bridge, vec![LinkAttribute::IfName("tap0".to_owned())]);
        assert_eq!(Notice::parse(&bytes, true).unwrap(), None);
    }

    #[test]
    fn truncated_messages_are_errors() {
        let bytes = message(AddressFamily::Unspec, vec![LinkAttribute::IfName("tap".to_owned())]);
        for length in 0..bytes.len() {
            assert!(Notice::parse(&bytes[..length], false).is_err(), "{length}");
        }
    }

    #[test]
    fn a_bounce_is_seen_although_the_facts_are_the_same() {
        let mut table = Table::default();
        table.note(there(7, "tap0", true));
        table.take_touched();
        let before = table.facts();
        table.note(there(7, "tap0", true));
        assert!(table.untouched());
        table.note(there(7, "tap0", false));
        table.note(there(7, "tap0", true));
        assert_eq!(table.facts(), before);
        assert_eq!(table.take_touched(), BTreeSet::from([7]));
    }

    #[test]
    fn a_dump_takes_away_what_it_does_not_show() {
        let mut table = Table::default();
        table.note(there(7, "tap0", true));
        table.note(there(8, "tap1", true));
        table.take_touched();
        table.request_dump();
        // Has waited in the socket; what came after it was lost.
        table.note(there(7, "tap0", true));
        table.dump_arrives();
        table.note(there(8, "tap1", true));
        // Created while the dump runs, after the dump has passed it.
        table.note(there(9, "tap0", true));
        table.end_dump();
        assert_eq!(table.take_touched(), BTreeSet::from([7, 9]));
        assert_eq!(table.facts().links["tap0"].ifindex, 9);
        assert_eq!(table.facts().links.len(), 2);
    }

    #[test]
    fn a_name_that_moves_is_the_new_interfaces() {
        let mut table = Table::default();
        table.note(there(7, "tap0", true));
        table.note(there(7, "old", true));
        table.note(there(8, "tap0", true));
        assert_eq!(table.facts().links["tap0"].ifindex, 8);
        assert_eq!(table.facts().links["old"].ifindex, 7);
        table.note(Notice::Gone(7));
        assert_eq!(table.facts().links.len(), 1);
    }
}
