//! Every client message and its answer.

mod leases;
mod legality;
mod options;
mod survival;
mod wire;

use crate::plan::Attached;
use crate::serve::fixture::{self, address};
use wire::SECOND;

fn two_addresses() -> Attached {
    let mut endpoint = fixture::endpoint();
    endpoint.leased.push(address(SECOND));
    endpoint
}

fn no_address() -> Attached {
    let mut endpoint = fixture::endpoint();
    endpoint.leased.clear();
    endpoint
}
