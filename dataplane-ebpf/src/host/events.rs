//! Events in plain memory.

use crate::abi::{Event, EventBudget, EventControl};
use crate::decide::event::Sink;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

/// The maps of events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryEvents {
    /// `EVENT_CONTROL`.
    pub control: Cell<EventControl>,
    /// The clock.
    pub time: Cell<u64>,
    /// `EVENT_BUDGETS`.
    pub budgets: RefCell<BTreeMap<u32, EventBudget>>,
    /// `EVENTS`.
    pub told: RefCell<Vec<Event>>,
}

impl Sink for MemoryEvents {
    fn control(&self) -> Option<EventControl> {
        Some(self.control.get())
    }

    fn time(&self) -> u64 {
        self.time.get()
    }

    fn with_budget<R>(&self, slot: u32, change: impl FnOnce(&mut EventBudget) -> R) -> Option<R> {
        Some(change(self.budgets.borrow_mut().entry(slot).or_default()))
    }

    fn write(&self, fill: impl FnOnce(&mut Event)) -> bool {
        let mut event = Event::default();
        fill(&mut event);
        self.told.borrow_mut().push(event);
        true
    }
}
