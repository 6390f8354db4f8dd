//! The numbers and lengths that a schema allows.

use serde_json::Value as Json;

use super::Object;

pub(super) fn bound(object: &Object, name: &str) -> Option<u64> {
    object.get(name).and_then(Json::as_u64)
}

/// The smallest and largest number that a schema allows, and whether the limit itself is excluded.
pub(super) struct Limits<'a> {
    least: Option<(&'a Json, bool)>,
    most: Option<(&'a Json, bool)>,
}

impl<'a> Limits<'a> {
    pub fn of(object: &'a Object) -> Limits<'a> {
        let limit = |open: &str, closed: &str| {
            object.get(open).map(|limit| (limit, true)).or_else(|| object.get(closed).map(|limit| (limit, false)))
        };
        Limits { least: limit("exclusiveMinimum", "minimum"), most: limit("exclusiveMaximum", "maximum") }
    }

    /// The limits for a label or the documentation: `0 … 1`.
    fn text(&self) -> String {
        match (self.least, self.most) {
            (Some((least, false)), Some((most, false))) => format!("{} … {}", shown(least), shown(most)),
            (Some((least, least_open)), Some((most, most_open))) => {
                let sign = |open| if open { "<" } else { "≤" };
                format!("{} {} x {} {}", shown(least), sign(least_open), sign(most_open), shown(most))
            }
            (Some((least, open)), None) => format!("{} {}", if open { ">" } else { "≥" }, shown(least)),
            (None, Some((most, open))) => format!("{} {}", if open { "<" } else { "≤" }, shown(most)),
            (None, None) => String::new(),
        }
    }

    /// The limits for a sentence: `from 0 to 1`.
    pub fn words(&self) -> String {
        let least = |(least, open)| format!("{} {}", if open { "above" } else { "at least" }, shown(least));
        let most = |(most, open)| format!("{} {}", if open { "below" } else { "at most" }, shown(most));
        match (self.least, self.most) {
            (Some((least, false)), Some((most, false))) => format!("from {} to {}", shown(least), shown(most)),
            (Some(first), Some(last)) => format!("{} and {}", least(first), most(last)),
            (Some(first), None) => least(first),
            (None, Some(last)) => most(last),
            (None, None) => String::new(),
        }
    }

    /// Whether a value is within the limits.
    pub fn allow(&self, value: f64) -> bool {
        let limit = |limit: Option<(&Json, bool)>| limit.and_then(|(limit, open)| Some((limit.as_f64()?, open)));
        limit(self.least).is_none_or(|(least, open)| if same(value, least) { !open } else { value > least })
            && limit(self.most).is_none_or(|(most, open)| if same(value, most) { !open } else { value < most })
    }
}

/// Whether a value equals the limit. A limit that is an f32, such as 0.1, equals the values that round to it.
fn same(value: f64, limit: f64) -> bool {
    value == limit || (f64::from(limit as f32) == limit && value as f32 == limit as f32)
}

/// Writes a number as people do: `1`, not `1.0`; `0.1`, not the nearest f32 in full.
pub(crate) fn shown(number: &Json) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() && f64::from(float as f32) == float => (float as f32).to_string(),
        Some(float) if number.is_f64() => float.to_string(),
        _ => number.to_string(),
    }
}

/// The range of a value in words; empty if any value is allowed.
pub(super) fn range_of(object: &Object) -> String {
    let limits = Limits::of(object).text();
    if !limits.is_empty() {
        return limits;
    }
    let length = |least, most, what: &str| match (bound(object, least), bound(object, most)) {
        (None, None) => String::new(),
        (Some(least), Some(most)) if least == most => format!("{least} {what}s"),
        (Some(least), Some(most)) => format!("{least} … {most} {what}s"),
        (Some(1), None) => format!("at least 1 {what}"),
        (Some(least), None) => format!("at least {least} {what}s"),
        (None, Some(most)) => format!("at most {most} {what}s"),
    };
    let text = length("minItems", "maxItems", "item");
    if text.is_empty() { length("minLength", "maxLength", "character") } else { text }
}

/// The limits of an integer type that the schema gives only by its `format`.
pub(crate) fn format_limits(object: &Object) -> Option<(i128, i128)> {
    match object.get("format")?.as_str()? {
        "uint8" => Some((0, u8::MAX.into())),
        "uint16" => Some((0, u16::MAX.into())),
        "uint32" => Some((0, u32::MAX.into())),
        "uint64" | "uint" => Some((0, u64::MAX.into())),
        "int8" => Some((i8::MIN.into(), i8::MAX.into())),
        "int16" => Some((i16::MIN.into(), i16::MAX.into())),
        "int32" => Some((i32::MIN.into(), i32::MAX.into())),
        "int64" | "int" => Some((i64::MIN.into(), i64::MAX.into())),
        _ => None,
    }
}
