//! Sockets: how a node declares its inputs and outputs, as a struct of typed fields.
//!
//! ```
//! # use std::sync::Arc;
//! # use lsregen_engine::{Inputs, Payload, outputs, sockets};
//! # struct Model; impl Payload for Model { const TYPE: &'static str = "Model"; fn bytes(&self) -> usize { 0 } }
//! # struct Image; impl Payload for Image { const TYPE: &'static str = "Image"; fn bytes(&self) -> usize { 0 } }
//! sockets! {
//!     pub struct EncodeInputs {
//!         /// The model whose autoencoder encodes.
//!         pub model: Arc<Model> = ["sdxl", "gligen"],     // the model families that it accepts; all if omitted
//!         /// The images.
//!         pub images: Vec<Arc<Image>>,
//!         /// The part of the image to encode.
//!         pub mask: Option<Arc<Image>>,
//!     }
//! }
//! outputs! {
//!     pub struct EncodeOutputs {
//!         /// The decoded image.
//!         pub image: Arc<Image>,
//!     }
//! }
//! assert_eq!(EncodeInputs::SPECS[0].variants, ["sdxl", "gligen"]);
//! ```

use std::sync::Arc;

use super::value::{AnyCodec, EdgeValue, Payload};

/// How many links an input socket takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    /// `Arc<P>`: exactly one.
    One,
    /// `Option<Arc<P>>`: at most one.
    Optional,
    /// `Vec<Arc<P>>`: a list, which may be empty.
    Many,
}

/// A socket as data, for checks and documentation.
#[derive(Clone, Copy, Debug)]
pub struct SocketSpec {
    /// The name of the field.
    pub name: &'static str,
    /// The field's doc comment, untrimmed: see [`SocketSpec::doc`].
    pub raw_doc: &'static str,
    /// [`Payload::TYPE`].
    pub type_name: &'static str,
    /// How many links it takes.
    pub arity: Arity,
    /// The variants (model families) that it accepts; empty for any.
    pub variants: &'static [&'static str],
    /// For an output: the input whose variant (model family) it has.
    pub like: Option<&'static str>,
    /// The format of its values on disk, if they have one.
    pub codec: Option<AnyCodec>,
    /// [`Payload::READS_LATE`].
    pub reads_late: bool,
}

impl SocketSpec {
    /// The field's doc comment.
    pub fn doc(&self) -> String {
        self.raw_doc.lines().map(str::trim).collect::<Vec<_>>().join("\n").trim().to_string()
    }
}

/// A socket got values of another type or number than it takes. This cannot happen in a checked graph.
#[derive(Debug, thiserror::Error)]
#[error("socket `{socket}` takes {expected}, but got {got}")]
pub struct SocketError {
    /// The name of the socket.
    pub socket: &'static str,
    /// The type that it takes.
    pub expected: &'static str,
    /// What it got.
    pub got: String,
}

/// The inputs of a node: a struct declared by [`sockets!`](crate::sockets), or `()` for none.
pub trait Inputs: Sized + Send {
    /// The sockets, in the order of the fields.
    const SPECS: &'static [SocketSpec];

    /// Creates the struct from the values of each socket, in the order of `SPECS`.
    ///
    /// # Errors
    /// Returns an error if the type or number of the values of a socket is wrong.
    fn from_values(values: Vec<Vec<EdgeValue>>) -> Result<Self, SocketError>;
}

/// The outputs of a node: a struct declared by [`outputs!`](crate::outputs), or `()` for none.
pub trait Outputs: Sized + Send {
    /// The sockets, in the order of the fields.
    const SPECS: &'static [SocketSpec];

    /// Returns one value for each socket, in the order of `SPECS`.
    fn into_values(self) -> Vec<EdgeValue>;

    /// Creates the struct from the values that [`into_values`](Outputs::into_values) returned.
    ///
    /// # Errors
    /// Returns an error if the type or number of the values is wrong.
    fn from_values(values: &[EdgeValue]) -> Result<Self, SocketError>;
}

/// The type of a field in a struct of inputs or outputs.
pub trait Socket: Sized {
    /// The [`Payload::TYPE`] of its values.
    const TYPE: &'static str;
    /// How many values it takes.
    const ARITY: Arity;
    /// The format of its values on disk.
    const CODEC: Option<AnyCodec>;
    /// [`Payload::READS_LATE`].
    const READS_LATE: bool;

    /// Creates the field from the values of the socket called `socket`.
    ///
    /// # Errors
    /// Returns an error if the type or number of the values is wrong.
    fn take(socket: &'static str, values: Vec<EdgeValue>) -> Result<Self, SocketError>;
}

fn get<P: Payload>(socket: &'static str, value: &EdgeValue) -> Result<Arc<P>, SocketError> {
    value.get().ok_or_else(|| SocketError { socket, expected: P::TYPE, got: value.type_name().into() })
}

fn at_most_one<P: Payload>(socket: &'static str, values: &[EdgeValue]) -> Result<Option<Arc<P>>, SocketError> {
    match values {
        [] => Ok(None),
        [value] => get(socket, value).map(Some),
        more => Err(SocketError { socket, expected: P::TYPE, got: format!("{} values", more.len()) }),
    }
}

impl<P: Payload> Socket for Arc<P> {
    const TYPE: &'static str = P::TYPE;
    const ARITY: Arity = Arity::One;
    const CODEC: Option<AnyCodec> = AnyCodec::of::<P>();
    const READS_LATE: bool = P::READS_LATE;

    fn take(socket: &'static str, values: Vec<EdgeValue>) -> Result<Self, SocketError> {
        at_most_one(socket, &values)?.ok_or(SocketError { socket, expected: P::TYPE, got: "nothing".into() })
    }
}

impl<P: Payload> Socket for Option<Arc<P>> {
    const TYPE: &'static str = P::TYPE;
    const ARITY: Arity = Arity::Optional;
    const CODEC: Option<AnyCodec> = AnyCodec::of::<P>();
    const READS_LATE: bool = P::READS_LATE;

    fn take(socket: &'static str, values: Vec<EdgeValue>) -> Result<Self, SocketError> {
        at_most_one(socket, &values)
    }
}

impl<P: Payload> Socket for Vec<Arc<P>> {
    const TYPE: &'static str = P::TYPE;
    const ARITY: Arity = Arity::Many;
    const CODEC: Option<AnyCodec> = AnyCodec::of::<P>();
    const READS_LATE: bool = P::READS_LATE;

    fn take(socket: &'static str, values: Vec<EdgeValue>) -> Result<Self, SocketError> {
        values.iter().map(|value| get(socket, value)).collect()
    }
}

impl Inputs for () {
    const SPECS: &'static [SocketSpec] = &[];

    fn from_values(_: Vec<Vec<EdgeValue>>) -> Result<Self, SocketError> {
        Ok(())
    }
}

impl Outputs for () {
    const SPECS: &'static [SocketSpec] = &[];

    fn into_values(self) -> Vec<EdgeValue> {
        vec![]
    }

    fn from_values(_: &[EdgeValue]) -> Result<Self, SocketError> {
        Ok(())
    }
}

/// Declares the struct of a node's inputs. A field is an `Arc<P>`, `Option<Arc<P>>` or `Vec<Arc<P>>`. It may end in
/// `= ["variant", …]`: the variants (model families) that it accepts.
#[macro_export]
macro_rules! sockets {
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $(
        $(#[doc = $doc:literal])* $field_vis:vis $field:ident : $type:ty $(= [$($variant:literal),* $(,)?])?
    ),* $(,)? }) => {
        $(#[$meta])*
        $vis struct $name { $( $(#[doc = $doc])* $field_vis $field: $type, )* }

        impl $crate::Inputs for $name {
            const SPECS: &'static [$crate::SocketSpec] = &[$(
                $crate::socket_spec!($field, $type, [$($doc),*], [$($($variant),*)?], []),
            )*];

            fn from_values(values: Vec<Vec<$crate::EdgeValue>>) -> Result<Self, $crate::SocketError> {
                let mut values = values.into_iter();
                Ok(Self { $(
                    $field: <$type as $crate::Socket>::take(stringify!($field), values.next().unwrap_or_default())?,
                )* })
            }
        }
    };
}

/// Declares the struct of a node's outputs. A field is an `Arc<P>`. It may end in `= model`: the input socket whose
/// variant (model family) it has.
#[macro_export]
macro_rules! outputs {
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $(
        $(#[doc = $doc:literal])* $field_vis:vis $field:ident : $type:ty $(= $like:ident)?
    ),* $(,)? }) => {
        $(#[$meta])*
        $vis struct $name { $( $(#[doc = $doc])* $field_vis $field: $type, )* }

        impl $crate::Outputs for $name {
            const SPECS: &'static [$crate::SocketSpec] = &[$(
                $crate::socket_spec!($field, $type, [$($doc),*], [], [$($like)?]),
            )*];

            fn into_values(self) -> Vec<$crate::EdgeValue> {
                vec![$( $crate::EdgeValue::new(self.$field), )*]
            }

            fn from_values(values: &[$crate::EdgeValue]) -> Result<Self, $crate::SocketError> {
                let mut values = values.iter().cloned();
                Ok(Self { $(
                    $field: <$type as $crate::Socket>::take(stringify!($field), values.next().into_iter().collect())?,
                )* })
            }
        }
    };
}

/// One [`SocketSpec`], for the two macros above.
#[doc(hidden)]
#[macro_export]
macro_rules! socket_spec {
    ($field:ident, $type:ty, [$($doc:literal),*], [$($variant:literal),*], [$($like:ident)?]) => {
        $crate::SocketSpec {
            name: stringify!($field),
            raw_doc: concat!($($doc, "\n",)*),
            type_name: <$type as $crate::Socket>::TYPE,
            arity: <$type as $crate::Socket>::ARITY,
            variants: &[$($variant),*],
            codec: <$type as $crate::Socket>::CODEC,
            reads_late: <$type as $crate::Socket>::READS_LATE,
            like: { const LIKE: &[&str] = &[$(stringify!($like))?]; LIKE.first().copied() },
        }
    };
}
