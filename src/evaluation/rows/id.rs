//! Ids of images, annotations and categories.

use std::fmt;

use lsregen_files::{file_name_from, invalid_name};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

/// An id in a dataset. Numbers come before texts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Id {
    /// A whole number from 0. A text of digits, such as `"000000000139"`, is one too.
    Number(u64),
    /// Any other text.
    Text(String),
}

impl Id {
    /// Returns the id that a text means.
    pub fn parse(text: &str) -> Id {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(number) if is_number => Id::Number(number),
            _ => Id::Text(text.into()),
        }
    }

    /// Returns the id that the name of a file means: its name without folder and extension.
    pub fn of_file(name: &str) -> Id {
        let name = name.rsplit(['/', '\\']).next().unwrap_or(name);
        let is_extension = |end: &str| (1..=4).contains(&end.len()) && end.bytes().all(|b| b.is_ascii_alphanumeric());
        match name.rsplit_once('.') {
            Some((stem, end)) if !stem.is_empty() && is_extension(end) => Id::parse(stem),
            _ => Id::parse(name),
        }
    }

    /// Returns the name of a row: a number has twelve digits, as in COCO's file names.
    pub fn row_name(&self) -> String {
        match self {
            Id::Number(number) => format!("{number:012}"),
            Id::Text(text) => row_name(text),
        }
    }

    /// Returns the seed of an image: its number, or a hash (FNV-1a, folded to 32 bits) of its text.
    pub fn seed(&self) -> u64 {
        let text = match self {
            Id::Number(number) => return *number,
            Id::Text(text) => text,
        };
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, step);
        (hash >> 32) ^ (hash & 0xffff_ffff)
    }
}

/// Returns a name that a row and its folder can have.
pub(super) fn row_name(text: &str) -> String {
    let name = file_name_from(text);
    if invalid_name(&name).is_some() { format!("_{name}") } else { name }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Id::Number(number) => number.fmt(f),
            Id::Text(text) => text.fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Id, D::Error> {
        struct IdVisitor;

        impl Visitor<'_> for IdVisitor {
            type Value = Id;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an id, which is a number or a text")
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Id, E> {
                Ok(Id::Number(number))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Id, E> {
                Ok(u64::try_from(number).map_or_else(|_| Id::Text(number.to_string()), Id::Number))
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Id, E> {
                // Some programs write 139.0.
                let is_whole = number.fract() == 0.0 && (0.0..9e15).contains(&number);
                Ok(if is_whole { Id::Number(number as u64) } else { Id::Text(number.to_string()) })
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Id, E> {
                Ok(Id::parse(text))
            }
        }

        from.deserialize_any(IdVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_texts_are_told_apart() {
        let read = |json: &str| serde_json::from_str::<Id>(json).unwrap();
        for json in ["139", "139.0", "\"139\"", "\"000000000139\""] {
            assert_eq!(read(json), Id::Number(139), "{json}");
        }
        assert_eq!(read("-1"), Id::Text("-1".into()));
        assert_eq!(read("\"+1\""), Id::Text("+1".into()));
        assert!(serde_json::from_str::<Id>("[1]").is_err());
        assert_eq!(Id::of_file("val2017/000000000139.jpg"), Id::Number(139));
        assert_eq!(Id::of_file("v1.5 test"), Id::Text("v1.5 test".into()));
    }

    #[test]
    fn an_id_names_a_row_and_gives_its_seed() {
        assert_eq!((Id::Number(139).row_name().as_str(), Id::Number(139).seed()), ("000000000139", 139));
        let text = |text: &str| Id::Text(text.into());
        assert_eq!(text("a/b").row_name(), "a_b");
        assert_eq!(text("nul").row_name(), "_nul");
        assert_eq!(text("").row_name(), "_");
        assert!(text("a").seed() != text("b").seed() && text("a").seed() <= u64::from(u32::MAX));
    }
}
