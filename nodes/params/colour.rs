//! Colours as parameters.

use lsregen_engine::NodeError;

/// Parses `#rrggbb` to red, green and blue in [0, 1].
///
/// # Errors
/// If the text is no such colour.
pub(crate) fn parse(text: &str) -> anyhow::Result<[f32; 3]> {
    let digits = text.strip_prefix('#').filter(|digits| digits.len() == 6);
    let number = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let number = number.ok_or_else(|| anyhow::anyhow!("{text:?} is not a colour"))?;
    Ok([16, 8, 0].map(|shift| (number >> shift & 255) as f32 / 255.0))
}

/// Returns the error of a colour at `path`, if it has one.
pub(crate) fn error(path: String, text: &str) -> Option<NodeError> {
    let error = parse(text).err()?;
    Some(
        NodeError::new(path, error.to_string())
            .help("write red, green and blue as \"#rrggbb\", in quotes: \"#ff0000\" is red"),
    )
}
