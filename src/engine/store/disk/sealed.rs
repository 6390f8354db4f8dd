//! JSON files that contain their own digest, so that any damaged byte is found.
//!
//! ```json
//! {"digest":"<64 hexadecimal digits>","content":{…}}
//! ```

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::key::Digest;

const BEFORE_DIGEST: &str = "{\"digest\":\"";
const BEFORE_CONTENT: &str = "\",\"content\":";
const END: &str = "}\n";

/// Writes the text of a file with this content.
///
/// # Errors
/// Returns an error if the content cannot be written as JSON.
pub(crate) fn seal(content: &impl Serialize) -> serde_json::Result<String> {
    let content = serde_json::to_string(content)?;
    Ok(format!("{BEFORE_DIGEST}{}{BEFORE_CONTENT}{content}{END}", Digest::of(content.as_bytes())))
}

/// Reads the content of a file; `None` if any byte differs from what [`seal`] wrote.
pub(crate) fn open<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let sealed = std::str::from_utf8(bytes).ok()?.strip_prefix(BEFORE_DIGEST)?.strip_suffix(END)?;
    let (digest, content) = sealed.split_once(BEFORE_CONTENT)?;
    // Compare as text, so that the case of a digit matters too.
    if digest != Digest::of(content.as_bytes()).to_string() {
        return None;
    }
    serde_json::from_str(content).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let content = vec!["some".to_string(), "more".to_string()];
        let sealed = seal(&content).unwrap().into_bytes();
        assert_eq!(open::<Vec<String>>(&sealed), Some(content));
        for i in 0..sealed.len() {
            assert_eq!(open::<Vec<String>>(&sealed[..i]), None, "cut to {i}");
            for bit in 0..8 {
                let mut bytes = sealed.clone();
                bytes[i] ^= 1 << bit;
                assert_eq!(open::<Vec<String>>(&bytes), None, "bit {bit} of byte {i}");
            }
        }
    }

    #[test]
    fn a_sealed_file_is_json() {
        let sealed = seal(&[1, 2]).unwrap();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&sealed).unwrap()["content"][1], 2);
    }
}
