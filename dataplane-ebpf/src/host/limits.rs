//! Limits in plain memory.

use crate::abi::{Address, Allowance, Reason};
use crate::decide::limit::{self, Limits};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

/// Rates and the map of what is used up.
#[derive(Clone, Debug)]
pub struct MemoryLimits {
    /// `ANSWER_RATE`, `HOST_RATE`, and the clock.
    pub limits: Cell<Limits>,
    /// `ALLOWANCES`.
    pub allowances: RefCell<BTreeMap<u32, Allowance>>,
}

impl MemoryLimits {
    /// Nothing is used up yet.
    pub fn new(limits: Limits) -> Self {
        Self { limits: Cell::new(limits), allowances: RefCell::default() }
    }

    pub(super) fn may_answer(&self, ifindex: u32, slot: u32) -> bool {
        self.with(slot, |allowance, limits| limit::answer(allowance, ifindex, limits))
    }

    pub(super) fn may_hand_over(&self, ifindex: u32, slot: u32, source: &Address) -> Result<(), Reason> {
        self.with(slot, |allowance, limits| limit::hand_over(allowance, ifindex, source, limits))
    }

    pub(super) fn may_resolve(&self, ifindex: u32, slot: u32) -> bool {
        self.with(slot, |allowance, limits| limit::resolve(allowance, ifindex, limits))
    }

    fn with<R>(&self, slot: u32, take: impl FnOnce(&mut Allowance, &Limits) -> R) -> R {
        take(self.allowances.borrow_mut().entry(slot).or_default(), &self.limits.get())
    }
}
