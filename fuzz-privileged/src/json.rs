//! JSON as it is written: with the order of members, keys that occur twice, and any spelling of them. And as it is read, also
//! with all of that.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};

/// A document to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// A scalar, as JSON text.
    Scalar(String),
    /// A list.
    List(Vec<Written>),
    /// An object: keys as JSON text, quotes included.
    Object(Vec<(String, Written)>),
}

impl Written {
    /// Takes a document over; members are in the order of their keys.
    #[must_use]
    pub fn new(value: &serde_json::Value) -> Self {
        match value {
            serde_json::Value::Array(list) => Self::List(list.iter().map(Self::new).collect()),
            serde_json::Value::Object(members) => {
                Self::Object(members.iter().map(|(key, value)| (quoted(key), Self::new(value))).collect())
            }
            scalar => Self::Scalar(scalar.to_string()),
        }
    }

    /// The member of an object with exactly this key, written in the usual way; it is made if need be. None if this is no object.
    pub fn member(&mut self, key: &str, made: &Self) -> Option<&mut Self> {
        let Self::Object(members) = self else { return None };
        let key = quoted(key);
        let index = members.iter().position(|(name, _)| *name == key).unwrap_or_else(|| {
            members.push((key, made.clone()));
            members.len() - 1
        });
        Some(&mut members[index].1)
    }
}

/// A string as JSON text.
#[must_use]
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scalar(text) => f.write_str(text),
            Self::List(list) => {
                f.write_str("[")?;
                for (index, value) in list.iter().enumerate() {
                    write!(f, "{}{value}", if index > 0 { "," } else { "" })?;
                }
                f.write_str("]")
            }
            Self::Object(members) => {
                f.write_str("{")?;
                for (index, (key, value)) in members.iter().enumerate() {
                    write!(f, "{}{key}:{value}", if index > 0 { "," } else { "" })?;
                }
                f.write_str("}")
            }
        }
    }
}

/// A document that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// null.
    Null,
    /// A string.
    Text(String),
    /// A list.
    List(Vec<Read>),
    /// An object, with all of its members in their order.
    Object(Vec<(String, Read)>),
    /// A number, true or false.
    Other,
}

impl<'de> Deserialize<'de> for Read {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Read;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_bool<E>(self, _: bool) -> Result<Read, E> {
                Ok(Read::Other)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Read, E> {
                Ok(Read::Other)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Read, E> {
                Ok(Read::Other)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Read, E> {
                Ok(Read::Other)
            }

            fn visit_unit<E>(self) -> Result<Read, E> {
                Ok(Read::Null)
            }

            fn visit_str<E>(self, text: &str) -> Result<Read, E> {
                Ok(Read::Text(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Read, A::Error> {
                let mut list = Vec::new();
                while let Some(value) = access.next_element()? {
                    list.push(value);
                }
                Ok(Read::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Read, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = access.next_entry()? {
                    members.push(member);
                }
                Ok(Read::Object(members))
            }
        }
        deserializer.deserialize_any(All)
    }
}

impl Read {
    /// Reads a whole document.
    #[must_use]
    pub fn whole(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }

    /// Reads the first document, whatever follows it.
    #[must_use]
    pub fn first(text: &[u8]) -> Option<Self> {
        serde_json::Deserializer::from_slice(text).into_iter().next()?.ok()
    }
}
