//! Domain names on the wire, as DHCPv6 (RFC 8415 section 10) and router advertisements (RFC 8106 section 5.2) carry
//! them: labels of RFC 1035 section 3.1, never compressed. Pure.

/// Longest name on the wire, final zero included (RFC 1035 section 2.3.4).
const LONGEST: usize = 255;

/// The labels of `name` and the root label; `None` when it is no domain name. A final dot makes no difference.
pub fn encode(name: &str) -> Option<Vec<u8>> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let mut wire = Vec::with_capacity(name.len() + 2);
    for label in name.split('.') {
        let legal = (1..=63).contains(&label.len()) && label.is_ascii();
        if !legal {
            return None;
        }
        wire.push(label.len() as u8);
        wire.extend_from_slice(label.as_bytes());
    }
    wire.push(0);
    (wire.len() <= LONGEST).then_some(wire)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_labels() {
        assert_eq!(encode("a.bc").unwrap(), b"\x01a\x02bc\0");
        assert_eq!(encode("a.bc."), encode("a.bc"));
    }

    #[test]
    fn refuses_what_is_no_name() {
        let long_label = "x".repeat(64);
        let long_name = ["x".repeat(63), "x".repeat(63), "x".repeat(63), "x".repeat(62)].join(".");
        for name in ["", ".", "a..b", ".a", "é.example", &long_label, &long_name] {
            assert_eq!(encode(name), None, "{name}");
        }
        assert_eq!(encode(&long_name[1..]).unwrap().len(), LONGEST);
    }
}
