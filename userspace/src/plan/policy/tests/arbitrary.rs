//! Everything that is made of policies says the same of random ones.

use super::super::arbitrary::{NODE, packets, tunnels, worlds};
use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn tables_say_what_the_documents_say(
        resources in worlds(),
        tunnels in tunnels(),
        packets in vec(packets(), 1..24),
    ) {
        let compiled = Compiled::new(&resources, NODE, tunnels);
        for name in compiled.policies.endpoints.keys() {
            for packet in &packets {
                for direction in [Direction::Ingress, Direction::Egress] {
                    asked(&resources, &compiled, name, direction, packet);
                }
            }
        }
    }
}
