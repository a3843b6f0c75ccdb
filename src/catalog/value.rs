//! A column's value as JSON: from the type's text output to exactly the bytes that PostgreSQL's `to_json` prints.
//!
//! The text is what a session with TimeZone UTC, DateStyle ISO, IntervalStyle postgres, extra_float_digits 1 and
//! bytea_output hex writes. What a type means is decided once, when an [`Encoder`] is made; encoding a scalar then
//! allocates nothing.
//!
//! It differs from `to_json` in two points. Line breaks inside json become spaces: there they are white space, and
//! an event is one line. And a type with a cast to json of its own (`hstore`) goes out as its text: the cast is the
//! database's code, the stream has only the text.
//!
//! Whatever the bytes are, what comes out is one JSON value on one line: text that is not what its type writes goes
//! out as a string.

mod array;
mod datetime;
mod escape;
mod json;
mod record;

use bytes::BytesMut;

use crate::postgres::schema::{MAX_DEPTH, TypeKind, Types};

pub use escape::encode_string;

/// How to encode the values of one type.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoder {
    shape: Shape,
}

/// What `json_categorize_type` tells apart (PostgreSQL's `src/backend/utils/adt/json.c`), domains looked through.
#[derive(Clone, Debug, PartialEq)]
enum Shape {
    Text,
    Bool,
    /// A number, or a string where it has none (`NaN`, `Infinity`).
    Number,
    Timestamp,
    TimestampTz,
    Json,
    Array {
        element: Box<Shape>,
        delimiter: u8,
    },
    /// `int2vector`, `oidvector`.
    Vector {
        element: Box<Shape>,
    },
    Composite(Box<[Field]>),
}

/// An attribute of a composite: `"name":`, and what follows.
#[derive(Clone, Debug, PartialEq)]
struct Field {
    key: Box<[u8]>,
    shape: Shape,
}

impl Encoder {
    /// For a type that `types` does not know, an encoder to strings.
    #[must_use]
    pub fn new(types: &Types, oid: u32) -> Self {
        Self { shape: Shape::of(types, oid, 0) }
    }

    /// Appends the JSON value of `text`, the output of a value that is not null.
    pub fn encode(&self, text: &[u8], out: &mut BytesMut) {
        self.shape.encode(text, out);
    }
}

impl Shape {
    fn of(types: &Types, oid: u32, depth: usize) -> Self {
        if depth >= MAX_DEPTH {
            return Self::Text;
        }
        let base = types.base(oid);
        match base {
            16 => return Self::Bool,
            // int8, int2, int4, float4, float8, numeric
            20 | 21 | 23 | 700 | 701 | 1700 => return Self::Number,
            114 | 3802 => return Self::Json,
            1114 => return Self::Timestamp,
            1184 => return Self::TimestampTz,
            _ => {}
        }
        match types.kind(base) {
            Some(&TypeKind::Array { element, delimiter }) => {
                Self::Array { element: Box::new(Self::of(types, element, depth + 1)), delimiter }
            }
            Some(&TypeKind::Vector { element }) => {
                Self::Vector { element: Box::new(Self::of(types, element, depth + 1)) }
            }
            Some(TypeKind::Composite { fields }) => Self::Composite(
                fields
                    .iter()
                    .map(|field| Field {
                        key: key(&field.name),
                        shape: Self::of(types, field.type_oid, depth + 1),
                    })
                    .collect(),
            ),
            _ => Self::Text,
        }
    }

    fn encode(&self, text: &[u8], out: &mut BytesMut) {
        let start = out.len();
        let encoded = match self {
            Self::Text => None,
            Self::Bool => encode_bool(text, out),
            Self::Number => json::encode_number(text, out),
            Self::Timestamp => datetime::encode_timestamp(text, out),
            Self::TimestampTz => datetime::encode_timestamp_tz(text, out),
            Self::Json => json::encode_json(text, out),
            Self::Array { element, delimiter } => array::encode(text, element, *delimiter, out),
            Self::Vector { element } => array::encode_vector(text, element, out),
            Self::Composite(fields) => record::encode(text, fields, out),
        };
        if encoded.is_none() {
            out.truncate(start);
            encode_string(text, out);
        }
    }
}

/// `"name":`
fn key(name: &str) -> Box<[u8]> {
    let mut key = BytesMut::with_capacity(name.len() + 3);
    encode_string(name.as_bytes(), &mut key);
    key.extend_from_slice(b":");
    key.as_ref().into()
}

fn encode_bool(text: &[u8], out: &mut BytesMut) -> Option<()> {
    let word: &[u8] = match text {
        b"t" => b"true",
        b"f" => b"false",
        _ => return None,
    };
    out.extend_from_slice(word);
    Some(())
}

#[cfg(test)]
mod tests;
