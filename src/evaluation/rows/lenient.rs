//! JSON as other programs write it: read piece by piece, with NaN and infinity, a byte order mark, and errors that name
//! the element of a list.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::marker::PhantomData;
use std::path::Path;

use lsregen_files::Kind;
use lsregen_tensor::{Error, Result};
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// The reader of a JSON file. Python's `NaN`, `Infinity` and `-Infinity`, which JSON lacks, become [`Number`]s of the same
/// length, so that the columns of errors are those of the file.
pub(super) struct Lenient {
    file: BufReader<File>,
    state: State,
}

#[derive(Clone, Copy)]
enum State {
    Plain,
    Text,
    /// Behind a backslash in a text.
    Escape,
    /// In a word, with what is left to return in its place.
    Word(&'static [u8]),
}

impl Lenient {
    /// Opens a file of annotations or captions.
    ///
    /// # Errors
    /// If it cannot be opened, or is packed.
    pub fn open(path: &Path) -> Result<Lenient> {
        let file = lsregen_files::open(path, Kind::ANNOTATIONS).map_err(Error::io(path))?;
        let mut file = BufReader::with_capacity(1 << 18, file);
        let start = file.fill_buf().map_err(Error::io(path))?;
        if start.starts_with(b"PK") || start.starts_with(&[0x1f, 0x8b]) {
            return Err(Error::Input(format!("{}: the file is packed; unpack it first", path.display())));
        }
        if start.starts_with(b"\xef\xbb\xbf") {
            file.consume(3);
        }
        Ok(Lenient { file, state: State::Plain })
    }

    /// The first byte that is not white space; it stays to be read.
    pub fn first(&mut self) -> io::Result<Option<u8>> {
        loop {
            let buffer = self.file.fill_buf()?;
            let Some(byte) = buffer.first() else { return Ok(None) };
            if !byte.is_ascii_whitespace() || *byte == b'\n' && buffer.len() > 1 {
                return Ok(buffer.iter().find(|byte| !byte.is_ascii_whitespace()).copied());
            }
            self.file.consume(1);
        }
    }
}

impl Read for Lenient {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(bytes)?;
        for byte in &mut bytes[..count] {
            self.state = match (self.state, *byte) {
                (State::Plain, b'"') => State::Text,
                (State::Plain, b'N') => {
                    *byte = b'"';
                    State::Word(b"\" ")
                }
                (State::Plain, b'I') => {
                    *byte = b'1';
                    State::Word(b"e308   ")
                }
                (State::Plain, _) | (State::Text, b'"') => State::Plain,
                (State::Text, b'\\') => State::Escape,
                (State::Text | State::Escape, _) => State::Text,
                (State::Word([next, rest @ ..]), b'a'..=b'z' | b'N') => {
                    *byte = *next;
                    State::Word(rest)
                }
                // The word has ended.
                (State::Word(_), b'"') => State::Text,
                (State::Word(_), _) => State::Plain,
            };
        }
        Ok(count)
    }
}

/// A number. `null` and NaN are NaN; infinity is ±1e308.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number(pub f64);

impl Default for Number {
    fn default() -> Number {
        Number(f64::NAN)
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Number, D::Error> {
        struct NumberVisitor;

        impl Visitor<'_> for NumberVisitor {
            type Value = Number;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Number, E> {
                Ok(Number(number as f64))
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Number, E> {
                Ok(Number(number as f64))
            }

            fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Number, E> {
                Ok(Number(number))
            }

            fn visit_unit<E: serde::de::Error>(self) -> Result<Number, E> {
                Ok(Number::default())
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Number, E> {
                match text {
                    "" => Ok(Number::default()),
                    text => text.parse().map(Number).map_err(|_| E::custom(format!("`{text}` is not a number"))),
                }
            }
        }

        from.deserialize_any(NumberVisitor)
    }
}

/// A list whose errors name the element that they are in, by its number from 0.
#[derive(Debug)]
pub(super) struct List<T>(pub Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<List<T>, D::Error> {
        struct ListVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for ListVisitor<T> {
            type Value = List<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<List<T>, A::Error> {
                let mut items = vec![];
                loop {
                    match list.next_element() {
                        Ok(Some(item)) => items.push(item),
                        Ok(None) => return Ok(List(items)),
                        Err(error) => return Err(A::Error::custom(format!("element {}: {error}", items.len()))),
                    }
                }
            }
        }

        from.deserialize_seq(ListVisitor(PhantomData))
    }
}

/// Leaves out the middle of a long message: the parser quotes whole texts of the file.
pub(super) fn shortened(message: &str) -> String {
    const ENDS: usize = 120;
    let length = message.chars().count();
    if length <= 3 * ENDS {
        return message.into();
    }
    let start: String = message.chars().take(ENDS).collect();
    let end: String = message.chars().skip(length - ENDS).collect();
    format!("{start} … {end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: serde::de::DeserializeOwned>(text: &str) -> serde_json::Result<T> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        std::fs::write(&path, text).unwrap();
        serde_json::from_reader(Lenient::open(&path).unwrap())
    }

    #[test]
    fn numbers_that_json_lacks_are_read() {
        let numbers: Vec<Number> = read("\u{feff}[NaN,Infinity, -Infinity, null, 1, -2.5,NaN]").unwrap();
        let numbers: Vec<_> = numbers.into_iter().map(|number| number.0).collect();
        assert_eq!(numbers[1..3], [1e308, -1e308]);
        assert_eq!(numbers[4..6], [1.0, -2.5]);
        assert!([0, 3, 6].iter().all(|&i| numbers[i].is_nan()), "{numbers:?}");
        let texts: Vec<String> = read(r#"["NaN \" Infinity", "\\", "N"]"#).unwrap();
        assert_eq!(texts, ["NaN \" Infinity", "\\", "N"]);
    }

    #[test]
    fn an_error_names_the_element_and_the_place() {
        let error = read::<List<u8>>("[1,\n NaN]").unwrap_err().to_string();
        assert!(error.starts_with("element 1: ") && error.ends_with("at line 2 column 3"), "{error}");
        let error = read::<List<List<u8>>>("[[], [1, 2, 300]]").unwrap_err().to_string();
        assert!(error.starts_with("element 1: element 2: ") && error.contains("at line 1"), "{error}");
    }

    #[test]
    fn the_first_byte_is_found_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        for (text, first) in [(" \n\n [1]", Some(b'[')), ("{}", Some(b'{')), ("", None), (" \n", None)] {
            std::fs::write(&path, text).unwrap();
            let mut file = Lenient::open(&path).unwrap();
            assert_eq!(file.first().unwrap(), first, "{text:?}");
            let mut rest = String::new();
            file.read_to_string(&mut rest).unwrap();
            assert_eq!(rest.trim(), text.trim());
        }
        std::fs::write(&path, b"PK\x03\x04").unwrap();
        assert!(Lenient::open(&path).err().unwrap().to_string().contains("unpack it first"));
    }
}
