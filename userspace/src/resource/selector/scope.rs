//! Namespaces in selectors: Calico turns everything that a document says about namespaces into conditions on labels.

use super::{Label, Selector, Text};

/// Every namespaced resource has this label, with the namespace as value.
pub const NAMESPACE: &str = "projectcalico.org/namespace";

/// Prefix of the labels that endpoints inherit from their namespace.
pub const NAMESPACE_LABELS: &str = "pcns.";

/// The name of an endpoint's service account.
const SERVICE_ACCOUNT: &str = "projectcalico.org/serviceaccount";

/// Prefix of the labels that endpoints inherit from their service account.
pub const SERVICE_ACCOUNT_LABELS: &str = "pcsa.";

impl Selector {
    /// What is in `namespace`.
    pub fn in_namespace(namespace: &str) -> Self {
        Self::Is(Label(NAMESPACE.to_owned()), Text(namespace.to_owned()))
    }

    /// What is in a namespace that `self` chooses: `all()` is every namespace, `global()` is what is in none.
    pub fn of_namespaces(&self) -> Self {
        let namespaced = || Self::Has(Label(NAMESPACE.to_owned()));
        match self {
            Self::All => namespaced(),
            Self::Global => Self::Not(Box::new(namespaced())),
            labels => labels.with_prefix(NAMESPACE_LABELS),
        }
    }

    /// What has a service account that `self` chooses.
    pub fn of_service_accounts(&self) -> Self {
        self.with_prefix(SERVICE_ACCOUNT_LABELS)
    }

    /// What has one of the service accounts `names`.
    pub fn of_accounts(names: impl IntoIterator<Item = String>) -> Self {
        Self::In(Label(SERVICE_ACCOUNT.to_owned()), names.into_iter().map(Text).collect())
    }

    /// What both choose.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::All, one) | (one, Self::All) => one,
            (one, other) => Self::Every(vec![one, other]),
        }
    }

    /// The same condition on labels whose names begin with `prefix`.
    fn with_prefix(&self, prefix: &str) -> Self {
        let name = |label: &Label| Label(format!("{prefix}{}", label.0));
        let each = |parts: &[Self]| parts.iter().map(|part| part.with_prefix(prefix)).collect();
        match self {
            Self::All => Self::All,
            Self::Global => Self::Global,
            Self::Has(label) => Self::Has(name(label)),
            Self::Is(label, text) => Self::Is(name(label), text.clone()),
            Self::IsNot(label, text) => Self::IsNot(name(label), text.clone()),
            Self::Contains(label, text) => Self::Contains(name(label), text.clone()),
            Self::StartsWith(label, text) => Self::StartsWith(name(label), text.clone()),
            Self::EndsWith(label, text) => Self::EndsWith(name(label), text.clone()),
            Self::In(label, texts) => Self::In(name(label), texts.clone()),
            Self::NotIn(label, texts) => Self::NotIn(name(label), texts.clone()),
            Self::Not(inner) => Self::Not(Box::new(inner.with_prefix(prefix))),
            Self::Every(parts) => Self::Every(each(parts)),
            Self::Any(parts) => Self::Any(each(parts)),
        }
    }
}
