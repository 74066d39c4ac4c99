//! Labels as selectors see them: an endpoint's own, those of its profiles, and its namespace.

use crate::resource::selector::{NAMESPACE, NAMESPACE_LABELS, SERVICE_ACCOUNT_LABELS};
use crate::resource::{EndpointName, Resources, Selector, WorkloadEndpoint};
use ipnet::Ipv6Net;
use std::collections::{BTreeMap, BTreeSet};

/// Labels by name.
pub(super) type Labels = BTreeMap<String, String>;

/// Every endpoint, of any node, and every network set, with its labels.
pub(super) struct Labelled<'a> {
    endpoints: BTreeMap<&'a EndpointName, (&'a WorkloadEndpoint, Labels)>,
    sets: Vec<(&'a [Ipv6Net], Labels)>,
}

impl<'a> Labelled<'a> {
    /// Of all resources.
    pub fn new(resources: &'a Resources) -> Self {
        let endpoints = resources.endpoints.values();
        let sets = resources.network_sets.values();
        Self {
            endpoints: endpoints
                .map(|endpoint| (&endpoint.name, (endpoint, endpoint_labels(resources, endpoint))))
                .collect(),
            sets: sets
                .map(|set| {
                    let mut labels = set.labels.clone();
                    if let Some(namespace) = &set.name.namespace {
                        labels.insert(NAMESPACE.to_owned(), namespace.clone());
                    }
                    (set.nets.as_slice(), labels)
                })
                .collect(),
        }
    }

    /// The labels of an endpoint.
    pub fn of(&self, name: &EndpointName) -> &Labels {
        static NONE: Labels = Labels::new();
        self.endpoints.get(name).map_or(&NONE, |(_, labels)| labels)
    }

    /// All endpoints.
    pub fn endpoints(&self) -> impl Iterator<Item = &'a WorkloadEndpoint> + '_ {
        self.endpoints.values().map(|(endpoint, _)| *endpoint)
    }

    /// The addresses of those that `selector` chooses.
    pub fn chosen(&self, selector: &Selector) -> BTreeSet<Ipv6Net> {
        let endpoints = self.endpoints.values().filter(|(_, labels)| selector.matches(labels));
        let addresses = endpoints.flat_map(|(endpoint, _)| endpoint.all_addresses());
        let sets = self.sets.iter().filter(|(_, labels)| selector.matches(labels));
        addresses
            .map(|address| Ipv6Net::from(address.get()))
            .chain(sets.flat_map(|(nets, _)| nets.iter().copied()))
            .collect()
    }
}

/// What Calico lets count: an endpoint may not give itself the labels of a namespace or service account, and its own labels
/// win over those of its profiles.
pub(super) fn endpoint_labels(resources: &Resources, endpoint: &WorkloadEndpoint) -> Labels {
    let reserved =
        |label: &str| label.starts_with(NAMESPACE_LABELS) || label.starts_with(SERVICE_ACCOUNT_LABELS);
    let mut labels: Labels = endpoint
        .labels
        .iter()
        .filter(|(label, _)| !reserved(label))
        .map(|(label, value)| (label.clone(), value.clone()))
        .collect();
    for profile in endpoint.profiles.iter().filter_map(|name| resources.profiles.get(name)) {
        for (label, value) in &profile.labels {
            labels.entry(label.clone()).or_insert_with(|| value.clone());
        }
    }
    labels.insert(NAMESPACE.to_owned(), endpoint.name.namespace.clone());
    labels
}
