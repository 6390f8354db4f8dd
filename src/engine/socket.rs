//! How a node declares what it takes and gives: a struct of typed sockets, written once.
//!
//! ```
//! # use std::sync::Arc;
//! # use lsregen_engine::{Inputs, Payload, outputs, sockets};
//! # struct Model; impl Payload for Model { const TYPE: &'static str = "Model"; fn bytes(&self) -> usize { 0 } }
//! # struct Image; impl Payload for Image { const TYPE: &'static str = "Image"; fn bytes(&self) -> usize { 0 } }
//! sockets! {
//!     pub struct EncodeInputs {
//!         /// The model whose autoencoder encodes.
//!         pub model: Arc<Model> = ["sdxl", "gligen"],     // the model families that fit; all of them where left out
//!         /// The pictures.
//!         pub images: Vec<Arc<Image>>,
//!         /// Where to look.
//!         pub mask: Option<Arc<Image>>,
//!     }
//! }
//! outputs! {
//!     pub struct EncodeOutputs {
//!         /// The picture again.
//!         pub image: Arc<Image>,
//!     }
//! }
//! assert_eq!(EncodeInputs::SPECS[0].variants, ["sdxl", "gligen"]);
//! ```

use std::sync::Arc;

use crate::value::{AnyCodec, EdgeValue, Payload};

/// How many links a socket takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    /// `Arc<P>`: exactly one.
    One,
    /// `Option<Arc<P>>`: one or none.
    Optional,
    /// `Vec<Arc<P>>`: a list, which may be empty.
    Many,
}

/// A socket as the checks and the reference see it.
#[derive(Clone, Copy, Debug)]
pub struct SocketSpec {
    pub name: &'static str,
    /// The field's doc comment, untrimmed: see [`SocketSpec::doc`].
    pub raw_doc: &'static str,
    /// [`Payload::TYPE`].
    pub type_name: &'static str,
    pub arity: Arity,
    /// Variants (model families) that fit; any where empty.
    pub variants: &'static [&'static str],
    /// Of an output: the input whose variant (model family) it has.
    pub like: Option<&'static str>,
    /// The form of its values on disk, if they have one.
    pub codec: Option<AnyCodec>,
}

impl SocketSpec {
    /// The field's doc comment.
    pub fn doc(&self) -> String {
        self.raw_doc.lines().map(str::trim).collect::<Vec<_>>().join("\n").trim().to_string()
    }
}

/// A value that does not fit the socket it arrived at. The graph check makes this impossible for a checked graph.
#[derive(Debug, thiserror::Error)]
#[error("socket `{socket}` takes {expected}, but got {got}")]
pub struct SocketError {
    pub socket: &'static str,
    pub expected: &'static str,
    pub got: String,
}

/// What a node takes. Made by [`sockets!`](crate::sockets); `()` takes nothing.
pub trait Inputs: Sized + Send {
    const SPECS: &'static [SocketSpec];

    /// From the values of each socket, in the order of `SPECS`.
    fn from_values(values: Vec<Vec<EdgeValue>>) -> Result<Self, SocketError>;
}

/// What a node gives. Made by [`outputs!`](crate::outputs); `()` gives nothing.
pub trait Outputs: Sized + Send {
    const SPECS: &'static [SocketSpec];

    /// One value a socket, in the order of `SPECS`.
    fn into_values(self) -> Vec<EdgeValue>;

    /// The reverse of [`into_values`](Outputs::into_values).
    fn from_values(values: &[EdgeValue]) -> Result<Self, SocketError>;
}

/// A field type of an inputs or outputs struct.
pub trait Socket: Sized {
    const TYPE: &'static str;
    const ARITY: Arity;
    const CODEC: Option<AnyCodec>;

    /// # Errors
    /// When number or type of the values do not fit.
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

    fn take(socket: &'static str, values: Vec<EdgeValue>) -> Result<Self, SocketError> {
        at_most_one(socket, &values)?.ok_or(SocketError { socket, expected: P::TYPE, got: "nothing".into() })
    }
}

impl<P: Payload> Socket for Option<Arc<P>> {
    const TYPE: &'static str = P::TYPE;
    const ARITY: Arity = Arity::Optional;
    const CODEC: Option<AnyCodec> = AnyCodec::of::<P>();

    fn take(socket: &'static str, values: Vec<EdgeValue>) -> Result<Self, SocketError> {
        at_most_one(socket, &values)
    }
}

impl<P: Payload> Socket for Vec<Arc<P>> {
    const TYPE: &'static str = P::TYPE;
    const ARITY: Arity = Arity::Many;
    const CODEC: Option<AnyCodec> = AnyCodec::of::<P>();

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

/// Declares the struct of a node's inputs. Fields are `Arc<P>`, `Option<Arc<P>>` or `Vec<Arc<P>>`; a field may end in
/// `= ["variant", …]`, the variants (model families) it accepts.
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

/// Declares the struct of a node's outputs. Every field is an `Arc<P>`; a field may end in `= model`, the input socket
/// whose variant (model family) it has.
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
            like: { const LIKE: &[&str] = &[$(stringify!($like))?]; LIKE.first().copied() },
        }
    };
}
