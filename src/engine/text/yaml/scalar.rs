//! What a plain scalar means: null, a boolean, a number or a text.

use serde_json::Number;

use super::YamlData;

/// Returns the meaning of a plain scalar.
///
/// # Errors
/// Returns why the scalar is invalid, for a sentence.
pub(crate) fn plain(text: &str) -> Result<YamlData, String> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(YamlData::Null),
        "true" | "True" | "TRUE" => return Ok(YamlData::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(YamlData::Bool(false)),
        _ => {}
    }
    let unsigned = text.trim_start_matches(['+', '-', '.']);
    let numeric = text.len() < 400
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
        && (unsigned.starts_with(|c: char| c.is_ascii_digit())
            || matches!(unsigned.to_lowercase().as_str(), "inf" | "nan"));
    if !numeric {
        return Ok(YamlData::Text(text.into()));
    }
    if text.trim_start_matches(['+', '-']).bytes().all(|b| b.is_ascii_digit()) && too_large(text) {
        return Err("is not between -9223372036854775808 and 18446744073709551615, the limits of whole numbers".into());
    }
    if let Some(number) = simple_number(text) {
        return Ok(YamlData::Number(number));
    }
    match serde_yaml::from_str(text) {
        Ok(serde_yaml::Value::Number(number)) => {
            let json = match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(whole), _, _) => Some(whole.into()),
                (_, Some(whole), _) => Some(whole.into()),
                (_, _, Some(float)) => Number::from_f64(float),
                _ => None,
            };
            json.map(YamlData::Number).ok_or_else(|| "is not a finite number".into())
        }
        _ => Ok(YamlData::Text(text.into())),
    }
}

/// A number in a common form, such as `7` or `-0.25`. Faster than serde_yaml.
fn simple_number(text: &str) -> Option<Number> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !is_digits(whole) || !is_digits(fraction) || (whole.len() > 1 && whole.starts_with('0')) {
        return None;
    }
    if digits.contains('.') {
        return Number::from_f64(text.parse().ok()?);
    }
    text.parse::<u64>().map(Number::from).or_else(|_| text.parse::<i64>().map(Number::from)).ok()
}

/// Whether digits are a whole number that does not fit into 64 bits.
fn too_large(digits: &str) -> bool {
    let text = digits.trim_start_matches('+');
    text.parse::<i64>().is_err() && text.parse::<u64>().is_err() && !text.trim_start_matches('-').is_empty()
}
