//! The JSON that diffusers and transformers write: configurations and tokenizers.
//!
//! Python's `json` writes what strict JSON does not allow, and both libraries use one value where the other writes
//! several. [`Json`] accepts all of that, for every file, and decodes it by the types of a struct:
//!
//! - `NaN`, `Infinity` and `-Infinity`, and a byte order mark at the start;
//! - `null` for the default of a field;
//! - `1000.0` for an integer, and 0 and 1 for a boolean;
//! - a list of equal values for one value, and one value for a list, or for an object with that value in its first field.
//!
//! Every integer is at most [`LARGEST`], so that products of two of them do not overflow. Errors name the file, the
//! key and its value.

mod python;
mod tolerant;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::foreign;
use crate::{Error, Result};

/// The largest integer that a file may state. No size of a network comes near it.
pub const LARGEST: u64 = 1 << 24;

/// The JSON object of a file.
#[derive(Clone, Debug)]
pub struct Json {
    label: String,
    /// An object.
    object: Value,
}

impl Json {
    /// Parses the text of a file, which messages call `label`.
    ///
    /// # Errors
    /// If it is not a JSON object. Says what the file is instead if it is recognised, or where it is malformed.
    pub fn parse(text: &[u8], label: &str) -> Result<Json> {
        let broken = |what: &str| Error::Config(format!("{label}: {what}"));
        if let Some(other) = foreign::recognised(text) {
            return Err(broken(other));
        }
        let text = python::strict(text);
        if text.trim_ascii().is_empty() {
            return Err(broken("the file is empty; download or copy it again"));
        }
        match serde_json::from_slice(&text) {
            Ok(object @ Value::Object(_)) => Ok(Json { label: label.into(), object }),
            Ok(_) => Err(broken("must be a JSON object, `{…}`")),
            Err(error) => Err(broken(&format!("malformed JSON: {error}; download or copy the file again"))),
        }
    }

    /// The name of the file in messages.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The value of a key; `None` if it is absent or `null`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    /// The number at `key`, which may be infinite or NaN.
    pub fn number(&self, key: &str) -> Option<f64> {
        self.get(key).and_then(python::number)
    }

    /// The keys of the object.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.object.as_object().into_iter().flat_map(|object| object.keys().map(String::as_str))
    }

    /// Whether there is a value for `key`, `null` included.
    pub fn has(&self, key: &str) -> bool {
        self.object.get(key).is_some()
    }

    /// The object at `key`, if there is one.
    ///
    /// # Errors
    /// If the value is no object.
    pub fn object(&self, key: &str) -> Result<Option<Json>> {
        match self.get(key) {
            None => Ok(None),
            Some(object @ Value::Object(_)) => {
                Ok(Some(Json { label: format!("{}: `{key}`", self.label), object: object.clone() }))
            }
            Some(other) => Err(Error::Config(format!(
                "{}: `{key}` must be an object, but is {}",
                self.label,
                python::shown(other)
            ))),
        }
    }

    /// Takes over the values of `other`, except `null`.
    #[must_use]
    pub fn overridden_by(mut self, other: Json) -> Json {
        if let (Value::Object(object), Value::Object(other)) = (&mut self.object, other.object) {
            object.extend(other.into_iter().filter(|(_, value)| !value.is_null()));
        }
        self
    }

    /// Decodes the object.
    ///
    /// # Errors
    /// If a value has another type than the field of that name, or is missing. Names the key and what it holds.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T> {
        tolerant::decode(&self.object).map_err(|what| Error::Config(format!("{}: {what}", self.label)))
    }

    /// Checks keys of which only some values are supported, or absence: any other value would change the network.
    ///
    /// # Errors
    /// If a key has another value.
    pub fn only(&self, supported: &[(&str, &[Value])]) -> Result<()> {
        for (key, values) in supported {
            let Some(found) = self.get(key) else { continue };
            if !values.iter().any(|value| python::same(found, value)) {
                let values: Vec<_> = values.iter().filter(|value| !value.is_null()).map(python::shown).collect();
                let choice = if values.is_empty() { "absence".into() } else { values.join(" or ") };
                return Err(Error::Config(format!(
                    "{}: `{key}` is {}, but only {choice} is supported",
                    self.label,
                    python::shown(found)
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default)]
    struct Config {
        steps: usize,
        scale: f64,
        clip: bool,
        widths: Vec<usize>,
        mean: [f64; 3],
        spacing: Spacing,
        pad: Option<Token>,
        id: u32,
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(rename_all = "snake_case")]
    enum Spacing {
        #[default]
        Leading,
        Trailing,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct Token {
        content: String,
        #[serde(default)]
        special: bool,
    }

    fn decode(text: &str) -> Result<Config> {
        Json::parse(text.as_bytes(), "x.json")?.decode()
    }

    #[test]
    fn what_python_writes_is_read() {
        let text = "\u{feff}{\"steps\": 1000.0, \"a\": [-Infinity, Infinity, NaN], \"scale\": [0.5, 0.5], \"clip\": 1,
            \"widths\": 64, \"mean\": 0.5, \"spacing\": \"trailing\", \"pad\": \"!\", \"id\": null, \"b\": \"NaN \\\" NaN\"}";
        let token = Token { content: "!".into(), special: false };
        let expected = Config {
            steps: 1000,
            scale: 0.5,
            clip: true,
            widths: vec![64],
            mean: [0.5; 3],
            spacing: Spacing::Trailing,
            pad: Some(token),
            id: 0,
        };
        assert_eq!(decode(text).unwrap(), expected);
        let pad = decode(r#"{"pad": {"content": "<pad>", "special": true, "lstrip": null}}"#).unwrap().pad;
        assert_eq!(pad, Some(Token { content: "<pad>".into(), special: true }));
        assert_eq!(
            Json::parse(br#"{"b": "NaN \" NaN", "c": null}"#, "x").unwrap().get("b"),
            Some(&json!("NaN \" NaN"))
        );
        let vocab: HashMap<String, u32> = Json::parse(br#"{"a": 1, "NaN": 2}"#, "x").unwrap().decode().unwrap();
        assert_eq!(vocab["NaN"], 2);
    }

    #[test]
    fn errors_name_the_file_the_key_and_the_value() {
        for (text, message) in [
            (r#"{"steps": "x"}"#, "x.json: `steps` must be an integer from 0 to 16777216, but is \"x\""),
            (
                r#"{"steps": 9223372036854775807}"#,
                "`steps` must be an integer from 0 to 16777216, but is 9223372036854775807",
            ),
            (r#"{"steps": 1e300}"#, "but is 1e+300"),
            (r#"{"steps": -1}"#, "but is -1"),
            (r#"{"steps": 1.5}"#, "but is 1.5"),
            (r#"{"steps": [2, 3]}"#, "`steps` must be an integer from 0 to 16777216, but is [2,3]"),
            (r#"{"scale": -Infinity}"#, "`scale` must be a finite number, but is -Infinity"),
            (r#"{"scale": NaN}"#, "but is NaN"),
            (r#"{"widths": [1, "y"]}"#, "`widths[1]` must be an integer"),
            (r#"{"widths": {}}"#, "`widths` must be a list, but is {}"),
            (r#"{"mean": [1, 2]}"#, "`mean` must be a list of 3 values, but is [1,2]"),
            (r#"{"clip": "no"}"#, "`clip` must be true or false, but is \"no\""),
            (r#"{"spacing": "odd"}"#, "`spacing` is \"odd\", but only leading or trailing is supported"),
            (r#"{"pad": {}}"#, "`pad` lacks `content`"),
            (r#"{"pad": {"content": 5}}"#, "`pad.content` must be a text, but is 5"),
            ("[]", "must be a JSON object"),
            ("", "the file is empty"),
            ("{\n \"a\": NaN,\n \"b\" 1}", "malformed JSON: expected `:` at line 3 column 6"),
            ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "x.json: a pointer of Git LFS"),
            ("<!doctype html>", "a web page"),
        ] {
            let error = decode(text).unwrap_err().to_string();
            assert!(error.starts_with("x.json: ") && error.contains(message), "{text}: {error}");
        }
    }

    #[test]
    fn only_some_values_are_supported() {
        let check = |text: &str, values: &[Value]| Json::parse(text.as_bytes(), "x").unwrap().only(&[("a", values)]);
        for text in ["{}", r#"{"a": null}"#, r#"{"a": false}"#, r#"{"a": [false, false]}"#] {
            check(text, &[json!(false)]).unwrap();
        }
        check(r#"{"a": "swish"}"#, &[json!("silu"), json!("swish")]).unwrap();
        check(r#"{"a": 1.0}"#, &[json!(1)]).unwrap();
        check(r#"{"a": ["x", "x"]}"#, &[json!(["x", "x"])]).unwrap();
        let error = check(r#"{"a": [false, true]}"#, &[json!(false)]).unwrap_err().to_string();
        assert_eq!(error, "x: `a` is [false,true], but only false is supported");
        assert!(
            check(r#"{"a": 1}"#, &[Value::Null]).unwrap_err().to_string().contains("but only absence is supported")
        );
    }
}
