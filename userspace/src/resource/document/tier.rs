//! Calico's `Tier`.

use super::super::policy::{DEFAULT_TIER, Order, Tier};
use super::fields::Fields;
use super::{metadata, policy};

/// Reads the document; `None` when a fault was reported.
pub(super) fn read(document: &mut Fields<'_>) -> Option<Tier> {
    let name = metadata::read(document).name;
    let mut order = Some(Order::default());
    let mut passes = false;
    if let Some(field) = document.optional("spec") {
        let mut spec = field.fields();
        if let Some(field) = spec.optional("order") {
            order = policy::order(&field);
        }
        if let Some(field) = spec.optional("defaultAction") {
            match field.string() {
                Some("Pass") => passes = true,
                Some("Deny" | "") | None => {}
                Some(other) => field.error(format!("`{other}` is none of Deny, Pass")),
            }
            if passes && name == Some(DEFAULT_TIER) {
                field.error(
                    "the default tier denies what no policy of it allows; Calico refuses another action",
                );
            }
        }
        spec.end();
    }
    Some(Tier { name: name?.to_owned(), order: order?, passes })
}
