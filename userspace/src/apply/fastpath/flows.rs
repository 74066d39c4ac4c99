//! What is remembered of an endpoint's flows: how much that may be, and that it goes with the endpoint. The flows themselves
//! are the hooks' (`decide::flow`).

use super::FastPathError;
use super::batch::BatchMap;
use super::routes::{failed, open};
use aya::maps::Map;
use dataplane_ebpf::abi::{Flow, FlowKey, FlowQuota, RingPlace, names};

/// `FLOWS`, `FLOW_RINGS` and `FLOW_QUOTAS`.
pub struct FlowMaps {
    flows: BatchMap<FlowKey, Flow>,
    rings: BatchMap<RingPlace, FlowKey>,
    quotas: BatchMap<u32, FlowQuota>,
    /// How many flows every endpoint may have.
    places: u32,
}

impl FlowMaps {
    /// Takes the maps out of a loaded object. Until [`set_places`](Self::set_places) no flow is remembered.
    pub fn open(
        mut take: impl FnMut(&'static str) -> Result<Map, FastPathError>,
    ) -> Result<Self, FastPathError> {
        Ok(Self {
            flows: open(names::FLOWS, take(names::FLOWS)?)?,
            rings: open(names::FLOW_RINGS, take(names::FLOW_RINGS)?)?,
            quotas: open(names::FLOW_QUOTAS, take(names::FLOW_QUOTAS)?)?,
            places: 0,
        })
    }

    /// How many flows every endpoint may have that is admitted from now on.
    pub fn set_places(&mut self, places: u32) {
        self.places = places;
    }

    /// Lets flows of the endpoint with this counter slot be remembered; whether that was not so before.
    pub fn admit(&self, slot: u32) -> Result<bool, FastPathError> {
        let quota = self.quota(slot)?;
        if quota.places == self.places {
            return Ok(false);
        }
        if quota.places > self.places {
            // Beyond the new end nobody would look at them again.
            self.clear(slot, quota.places)?;
        }
        self.set_quota(slot, FlowQuota { places: self.places, ..quota })?;
        Ok(true)
    }

    /// Forgets all flows of the endpoint with this slot: whoever has the slot next begins with none. Whether packets are
    /// still under way is no matter as long as it is called once more before.
    pub fn forget(&self, slot: u32) -> Result<(), FastPathError> {
        let quota = self.quota(slot)?;
        if quota == FlowQuota::default() {
            return Ok(());
        }
        // The hand stays, as a sign that there may be some, until nothing was found.
        self.set_quota(slot, FlowQuota { places: 0, ..quota })?;
        let places = if quota.places == 0 { self.places } else { quota.places };
        if self.clear(slot, places)? == 0 && quota.places == 0 {
            self.set_quota(slot, FlowQuota::default())?;
        }
        Ok(())
    }

    /// Flows that found no place since the endpoint came.
    pub fn pressure(&self, slot: u32) -> Result<u64, FastPathError> {
        self.quota(slot).map(|quota| quota.pressure)
    }

    /// Removes the flows in the first `places` of a ring; how many there were.
    fn clear(&self, slot: u32, places: u32) -> Result<usize, FastPathError> {
        let mut taken = Vec::new();
        let mut flows = Vec::new();
        for place in 0..places {
            let place = RingPlace { owner: slot, place };
            let read = failed(names::FLOW_RINGS, "cannot be read");
            let Some(key) = self.rings.get(&place).map_err(read)? else { continue };
            taken.push(place);
            let flow = self.flows.get(&key).map_err(failed(names::FLOWS, "cannot be read"))?;
            if let Some(flow) = flow.filter(|flow| flow.owner == slot) {
                flows.extend([key, key.reverse(flow.reverse_zone)]);
            }
        }
        self.flows.remove(&flows).map_err(failed(names::FLOWS, "cannot remove entries"))?;
        self.rings.remove(&taken).map_err(failed(names::FLOW_RINGS, "cannot remove entries"))?;
        Ok(taken.len())
    }

    fn quota(&self, slot: u32) -> Result<FlowQuota, FastPathError> {
        let quota = self.quotas.get(&slot).map_err(failed(names::FLOW_QUOTAS, "cannot be read"))?;
        Ok(quota.unwrap_or_default())
    }

    fn set_quota(&self, slot: u32, quota: FlowQuota) -> Result<(), FastPathError> {
        self.quotas.update(&[(slot, quota)]).map_err(failed(names::FLOW_QUOTAS, "cannot write an entry"))
    }
}
