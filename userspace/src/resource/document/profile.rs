//! Calico's `Profile`.

use super::super::policy::Profile;
use super::fields::Fields;
use super::{metadata, rule};

/// Reads the document; `None` when a fault was reported.
pub(super) fn read(document: &mut Fields<'_>) -> Option<Profile> {
    let name = metadata::read(document).name;
    let mut profile = Profile {
        name: name.unwrap_or_default().to_owned(),
        ingress: Vec::new(),
        egress: Vec::new(),
        labels: std::collections::BTreeMap::new(),
    };
    if let Some(field) = document.optional("spec") {
        let mut spec = field.fields();
        if let Some(field) = spec.optional("ingress") {
            profile.ingress = rule::list(&field, None);
        }
        if let Some(field) = spec.optional("egress") {
            profile.egress = rule::list(&field, None);
        }
        if let Some(field) = spec.optional("labelsToApply") {
            profile.labels = metadata::labels(&field);
        }
        spec.end();
    }
    name.map(|_| profile)
}
