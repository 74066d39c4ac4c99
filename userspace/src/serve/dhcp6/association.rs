//! Which identity association gets which address.

use std::net::Ipv6Addr;

/// The addresses of `leased` for each of the client's non-temporary associations, given what each names.
///
/// Whatever an association names and is leased, it keeps: nothing is stored, so the client's word says which is where,
/// and as the VM is one it harms nothing if two name the same address. Addresses that none names go one to each
/// association that is still empty, in order, as a client that sends several wants several; the rest go to the first, as
/// a client that sends one association must get all its addresses there.
pub(super) fn spread(leased: &[Ipv6Addr], named: &[&[Ipv6Addr]]) -> Vec<Vec<Ipv6Addr>> {
    let mut given: Vec<Vec<Ipv6Addr>> = named
        .iter()
        .map(|named| leased.iter().copied().filter(|address| named.contains(address)).collect())
        .collect();
    let mut unnamed =
        leased.iter().copied().filter(|address| !named.iter().any(|named| named.contains(address)));
    for addresses in given.iter_mut().filter(|addresses| addresses.is_empty()) {
        addresses.extend(unnamed.next());
    }
    if let Some(first) = given.first_mut() {
        first.extend(unnamed);
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xa);
    const B: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xb);
    const C: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xc);
    const FOREIGN: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xf);

    #[test]
    fn one_association_gets_all() {
        assert_eq!(spread(&[A, B, C], &[&[]]), [vec![A, B, C]]);
        assert_eq!(spread(&[A, B], &[&[B]]), [vec![B, A]]);
        assert_eq!(spread(&[], &[&[A]]), [Vec::<Ipv6Addr>::new()]);
    }

    #[test]
    fn several_get_one_each_and_the_first_the_rest() {
        assert_eq!(spread(&[A], &[&[], &[]]), [vec![A], vec![]]);
        assert_eq!(spread(&[A, B], &[&[], &[]]), [vec![A], vec![B]]);
        assert_eq!(spread(&[A, B, C], &[&[], &[]]), [vec![A, C], vec![B]]);
    }

    #[test]
    fn what_is_named_stays() {
        assert_eq!(spread(&[A, B], &[&[B], &[A]]), [vec![B], vec![A]]);
        assert_eq!(spread(&[A], &[&[], &[A]]), [vec![], vec![A]]);
        assert_eq!(spread(&[A], &[&[A], &[A]]), [vec![A], vec![A]]);
        assert_eq!(spread(&[A, B], &[&[FOREIGN], &[A]]), [vec![B], vec![A]]);
    }

    proptest! {
        /// With any association there is, every address is given and none that is not leased.
        #[test]
        fn all_and_only_the_leased(
            leased in proptest::collection::btree_set(0u128..12, 0..8),
            named in proptest::collection::vec(proptest::collection::vec(0u128..16, 0..6), 1..5),
        ) {
            let leased: Vec<Ipv6Addr> = leased.into_iter().map(Ipv6Addr::from).collect();
            let named: Vec<Vec<Ipv6Addr>> =
                named.into_iter().map(|n| n.into_iter().map(Ipv6Addr::from).collect()).collect();
            let named: Vec<&[Ipv6Addr]> = named.iter().map(Vec::as_slice).collect();
            let given = spread(&leased, &named);
            prop_assert_eq!(given.len(), named.len());
            prop_assert!(given.iter().flatten().all(|address| leased.contains(address)));
            prop_assert!(leased.iter().all(|address| given.iter().any(|given| given.contains(address))));
        }
    }
}
