//! Decodes JSON values by the types of a struct. The rules are those of [`Json`](super::Json).

use std::fmt::{self, Display};

use serde::de::value::StrDeserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, MapAccess, SeqAccess};
use serde::de::{Expected, IntoDeserializer, Unexpected, VariantAccess, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::Value;

use super::LARGEST;
use super::python::{number, shown, single};

/// Decodes an object. The error names the key and its value.
pub(super) fn decode<T: DeserializeOwned>(object: &Value) -> Result<T, String> {
    T::deserialize(Tolerant { value: object, place: &Place::Root }).map_err(|error| error.to_string())
}

/// The place of a value in a file.
enum Place<'p> {
    Root,
    Key(&'p Place<'p>, &'p str),
    Item(&'p Place<'p>, usize),
}

impl Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Root => Ok(()),
            Place::Key(Place::Root, key) => write!(f, "{key:.60}"),
            Place::Key(parent, key) => write!(f, "{parent}.{key:.60}"),
            Place::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// What is wrong with a value, and which value.
#[derive(Debug)]
struct Problem {
    place: Option<String>,
    what: String,
}

impl Problem {
    /// Adds the place, if there is none yet.
    fn at(mut self, place: &Place) -> Problem {
        if self.place.is_none() && !matches!(place, Place::Root) {
            self.place = Some(place.to_string());
        }
        self
    }
}

impl Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "`{place}` {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

impl std::error::Error for Problem {}

impl serde::de::Error for Problem {
    fn custom<T: Display>(what: T) -> Self {
        Problem { place: None, what: what.to_string() }
    }

    fn invalid_type(found: Unexpected, expected: &dyn Expected) -> Self {
        Problem::custom(format_args!("must be {expected}, but is {found}"))
    }

    fn invalid_value(found: Unexpected, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        Problem::custom(format_args!("must be {expected}, but has {length} entries"))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Problem::custom(format_args!("is \"{variant:.60}\", but only {} is supported", expected.join(" or ")))
    }

    fn missing_field(field: &'static str) -> Self {
        Problem::custom(format_args!("lacks `{field}`"))
    }
}

type Decoded<T> = Result<T, Problem>;

/// One value.
#[derive(Clone, Copy)]
struct Tolerant<'a> {
    value: &'a Value,
    place: &'a Place<'a>,
}

impl Tolerant<'_> {
    fn not(&self, expected: &str) -> Problem {
        Problem::custom(format_args!("must be {expected}, but is {}", shown(self.value))).at(self.place)
    }

    /// An integer between these bounds.
    fn integer(&self, least: i64) -> Decoded<i64> {
        let largest = LARGEST as i64;
        let found = single(self.value);
        let integer = found.as_i64().or_else(|| {
            let number = found.as_f64().filter(|number| number.fract() == 0.0)?;
            (number.abs() <= largest as f64).then_some(number as i64)
        });
        let integer = integer.filter(|integer| (least..=largest).contains(integer));
        integer.ok_or_else(|| self.not(&format!("an integer from {least} to {largest}")))
    }
}

macro_rules! integers {
    ($($method:ident $visit:ident $least:expr;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Decoded<V::Value> {
            visitor.$visit(self.integer($least)?.try_into().map_err(|_| self.not("smaller"))?)
        }
    )*};
}

impl<'de> Deserializer<'de> for Tolerant<'_> {
    type Error = Problem;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Decoded<V::Value> {
        Err(self.not("of a known type"))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Decoded<V::Value> {
        match single(self.value) {
            Value::Bool(value) => visitor.visit_bool(*value),
            value => match value.as_f64() {
                Some(0.0) => visitor.visit_bool(false),
                Some(1.0) => visitor.visit_bool(true),
                _ => Err(self.not("true or false")),
            },
        }
    }

    integers! {
        deserialize_u8 visit_u8 0;
        deserialize_u16 visit_u16 0;
        deserialize_u32 visit_u32 0;
        deserialize_u64 visit_u64 0;
        deserialize_i8 visit_i8 -(LARGEST as i64);
        deserialize_i16 visit_i16 -(LARGEST as i64);
        deserialize_i32 visit_i32 -(LARGEST as i64);
        deserialize_i64 visit_i64 -(LARGEST as i64);
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Decoded<V::Value> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Decoded<V::Value> {
        let finite = number(single(self.value)).filter(|number| number.is_finite());
        visitor.visit_f64(finite.ok_or_else(|| self.not("a finite number"))?)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Decoded<V::Value> {
        match single(self.value) {
            value @ Value::String(_) if number(value).is_some() => Err(self.not("a text")),
            Value::String(text) => visitor.visit_str(text).map_err(|problem: Problem| problem.at(self.place)),
            _ => Err(self.not("a text")),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Decoded<V::Value> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Decoded<V::Value> {
        if self.value.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Decoded<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Decoded<V::Value> {
        match self.value {
            Value::Array(items) => {
                visitor.visit_seq(Items { items, repeated: 1, alone: false, next: 0, place: self.place })
            }
            Value::Null | Value::Object(_) => Err(self.not("a list")),
            value => {
                let items = std::slice::from_ref(value);
                visitor.visit_seq(Items { items, repeated: 1, alone: true, next: 0, place: self.place })
            }
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Decoded<V::Value> {
        let items = match self.value {
            Value::Array(items) => items.as_slice(),
            value => std::slice::from_ref(value),
        };
        let repeated = match items.len() {
            1 => length,
            n if n == length => 1,
            _ => return Err(self.not(&format!("a list of {length} values"))),
        };
        visitor.visit_seq(Items { items, repeated, alone: !self.value.is_array(), next: 0, place: self.place })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(self, _: &str, length: usize, visitor: V) -> Decoded<V::Value> {
        self.deserialize_tuple(length, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Decoded<V::Value> {
        let Value::Object(object) = self.value else { return Err(self.not("an object")) };
        visitor.visit_map(Entries { entries: object.iter(), value: None, skip_null: false, place: self.place })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Decoded<V::Value> {
        let decoded = match (self.value, fields) {
            (Value::Object(object), _) => {
                visitor.visit_map(Entries { entries: object.iter(), value: None, skip_null: true, place: self.place })
            }
            (Value::Null | Value::Array(_), _) | (_, []) => return Err(self.not("an object")),
            (value, [field, ..]) => visitor.visit_map(Alone { field: Some(field), value, place: self.place }),
        };
        decoded.map_err(|problem| problem.at(self.place))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Decoded<V::Value> {
        let Value::String(text) = single(self.value) else { return Err(self.not("a text")) };
        visitor.visit_enum(Name(text)).map_err(|problem| problem.at(self.place))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Decoded<V::Value> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! { i128 u128 char bytes byte_buf unit unit_struct identifier }
}

/// The entries of a list, or one value several times.
struct Items<'a> {
    items: &'a [Value],
    repeated: usize,
    /// Whether the file has a value in place of a list.
    alone: bool,
    next: usize,
    place: &'a Place<'a>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Problem;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Decoded<Option<T::Value>> {
        if self.next == self.items.len() * self.repeated {
            return Ok(None);
        }
        let value = &self.items[self.next % self.items.len()];
        let item = Place::Item(self.place, self.next);
        let place = if self.alone { self.place } else { &item };
        self.next += 1;
        seed.deserialize(Tolerant { value, place }).map(Some)
    }
}

/// The entries of an object.
struct Entries<'a> {
    entries: serde_json::map::Iter<'a>,
    value: Option<(&'a str, &'a Value)>,
    /// Whether `null` is absence.
    skip_null: bool,
    place: &'a Place<'a>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Problem;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Decoded<Option<K::Value>> {
        let skip_null = self.skip_null;
        let Some((key, value)) = self.entries.find(|(_, value)| !(skip_null && value.is_null())) else {
            return Ok(None);
        };
        self.value = Some((key, value));
        let key: StrDeserializer<Problem> = key.as_str().into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Decoded<V::Value> {
        let (key, value) = self.value.take().ok_or_else(|| Problem::custom("a value without a key"))?;
        seed.deserialize(Tolerant { value, place: &Place::Key(self.place, key) })
    }
}

/// A value in place of an object: its first field.
struct Alone<'a> {
    field: Option<&'static str>,
    value: &'a Value,
    place: &'a Place<'a>,
}

impl<'de> MapAccess<'de> for Alone<'_> {
    type Error = Problem;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Decoded<Option<K::Value>> {
        let field = self.field.take().map(IntoDeserializer::<Problem>::into_deserializer);
        field.map(|field: StrDeserializer<Problem>| seed.deserialize(field)).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Decoded<V::Value> {
        seed.deserialize(Tolerant { value: self.value, place: self.place })
    }
}

/// The name of a variant without content.
struct Name<'a>(&'a str);

impl<'de> EnumAccess<'de> for Name<'_> {
    type Error = Problem;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Decoded<(V::Value, Self)> {
        let name: StrDeserializer<Problem> = self.0.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> VariantAccess<'de> for Name<'_> {
    type Error = Problem;

    fn unit_variant(self) -> Decoded<()> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Decoded<T::Value> {
        Err(Problem::custom("is a name without content"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Decoded<V::Value> {
        Err(Problem::custom("is a name without content"))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Decoded<V::Value> {
        Err(Problem::custom("is a name without content"))
    }
}
