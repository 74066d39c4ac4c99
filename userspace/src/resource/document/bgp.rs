//! Values that several kinds of BGP have.

use super::super::{AsNumber, SecretKey};
use super::fields::Field;
use super::metadata;
use super::tree::Value;

/// An AS number: Calico takes it as a number and as a text.
pub(super) fn as_number(field: &Field<'_>) -> Option<AsNumber> {
    let text = match &field.node.value {
        Value::Number(text) => text,
        _ => field.string()?,
    };
    text.parse().map_err(|wrong: crate::resource::NameError| field.error(wrong.to_string())).ok()
}

/// A port.
pub(super) fn port(field: &Field<'_>) -> Option<u16> {
    field.integer(1..=65_535).and_then(|port| u16::try_from(port).ok())
}

/// A duration as Go writes it (`90s`, `1m30s`), in whole seconds of `range`.
pub(super) fn seconds(field: &Field<'_>, range: std::ops::RangeInclusive<u16>) -> Option<u16> {
    let text = field.string()?;
    let seconds = go_seconds(text).and_then(|seconds| u16::try_from(seconds).ok());
    let seconds = seconds.filter(|seconds| range.contains(seconds));
    if seconds.is_none() {
        let (least, most) = (range.start(), range.end());
        field.error(format!(
            "`{text}` is no duration of {least} to {most} seconds; write one like 120s or 1m30s"
        ));
    }
    seconds
}

fn go_seconds(text: &str) -> Option<u32> {
    let mut rest = text;
    let mut total = 0_u32;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let unit_length = rest[digits..].bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit = match &rest[digits..digits + unit_length] {
            "h" => 3600,
            "m" => 60,
            "s" => 1,
            _ => return None,
        };
        total = total.checked_add(rest[..digits].parse::<u32>().ok()?.checked_mul(unit)?)?;
        rest = &rest[digits + unit_length..];
    }
    (!text.is_empty()).then_some(total)
}

/// A password: a reference to a key of a secret.
pub(super) fn password(field: &Field<'_>) -> Option<SecretKey> {
    let mut fields = field.fields();
    let reference = fields.required("secretKeyRef");
    fields.end();
    let mut reference = reference?.fields();
    let secret = reference.required("name").and_then(|field| file_name(&field));
    let key = reference.required("key").and_then(|field| file_name(&field));
    reference.accept(&["optional"]);
    reference.end();
    Some(SecretKey { secret: secret?, key: key? })
}

/// A name that is also one of a file in the directory of secrets.
fn file_name(field: &Field<'_>) -> Option<String> {
    let name = metadata::name(field)?;
    if name.starts_with('.') {
        field.error(format!("`{name}` begins with a dot; a secret's name and key do not"));
        return None;
    }
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::go_seconds;

    #[test]
    fn durations_are_gos() {
        assert_eq!(go_seconds("120s"), Some(120));
        assert_eq!(go_seconds("1h2m3s"), Some(3723));
        for text in ["", "1", "s", "1.5s", "100ms", "1 s", "-1s", "99999999999s", "4294967295h"] {
            assert_eq!(go_seconds(text), None, "{text}");
        }
    }
}
