//! Reading JSON in which an object is an object: policies, logs, settings and configurations. What serde derives for a structure also
//! takes a list of its values in the order of the fields, by which `["deny", []]` would be a section.
//!
//! This is a layer between the derived code and a format: everything passes, but a list where a structure is asked for. So it holds for
//! all structures, at any depth, without a word about it where they are defined. There are two exceptions, since serde keeps what it has
//! read there before it knows what for: a field with `flatten`, and the fields of an `untagged` enum. These say [`object`] for themselves.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{
        DeserializeOwned, DeserializeSeed, EnumAccess, Error as _, MapAccess, SeqAccess, Unexpected, VariantAccess,
        Visitor,
    },
};
use serde_json::de::Read;

/// Reads JSON from a text, as `serde_json::from_str` does.
///
/// # Errors
///
/// When it isn't JSON, or not what is asked for.
pub fn from_str<'de, T: Deserialize<'de>>(text: &'de str) -> serde_json::Result<T> {
    whole(serde_json::Deserializer::from_str(text))
}

/// Reads JSON from a text in bytes, as `serde_json::from_slice` does.
///
/// # Errors
///
/// When it isn't JSON, or not what is asked for.
pub fn from_slice<'de, T: Deserialize<'de>>(text: &'de [u8]) -> serde_json::Result<T> {
    whole(serde_json::Deserializer::from_slice(text))
}

/// Reads a JSON value, as `serde_json::from_value` does.
///
/// # Errors
///
/// When it isn't what is asked for.
pub fn from_value<T: DeserializeOwned>(value: serde_json::Value) -> serde_json::Result<T> {
    T::deserialize(Strict(value))
}

/// Reads a part of a structure, as `#[serde(deserialize_with = "policy::strict::object")]` asks for.
///
/// # Errors
///
/// When it isn't what is asked for.
pub fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(json: D) -> Result<T, D::Error> {
    T::deserialize(Strict(json))
}

fn whole<'de, R: Read<'de>, T: Deserialize<'de>>(mut json: serde_json::Deserializer<R>) -> serde_json::Result<T> {
    let value = T::deserialize(Strict(&mut json))?;
    json.end()?;
    Ok(value)
}

/// A part of serde's reading (a format, the elements of a list, …) that passes itself on in what it leads to.
#[derive(Debug)]
pub struct Strict<T>(pub T);

/// What is done with a value: what `inner` does, unless the value is a list and `inner` is a structure.
struct Value<V> {
    inner: V,
    is_structure: bool,
}

impl<V> Value<V> {
    fn any(inner: V) -> Self {
        Self { inner, is_structure: false }
    }

    fn structure(inner: V) -> Self {
        Self { inner, is_structure: true }
    }
}

macro_rules! deserialize {
    ($($method:ident($($argument:ident: $type:ty),*))*) => {
        $(fn $method<V: Visitor<'de>>(self, $($argument: $type,)* visitor: V) -> Result<V::Value, D::Error> {
            self.0.$method($($argument,)* Value::any(visitor))
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Strict<D> {
    type Error = D::Error;

    deserialize! {
        deserialize_any() deserialize_bool() deserialize_char() deserialize_str() deserialize_string() deserialize_bytes()
        deserialize_byte_buf() deserialize_i8() deserialize_i16() deserialize_i32() deserialize_i64() deserialize_i128()
        deserialize_u8() deserialize_u16() deserialize_u32() deserialize_u64() deserialize_u128() deserialize_f32()
        deserialize_f64() deserialize_option() deserialize_unit() deserialize_seq() deserialize_map() deserialize_identifier()
        deserialize_ignored_any() deserialize_unit_struct(name: &'static str) deserialize_newtype_struct(name: &'static str)
        deserialize_tuple(len: usize) deserialize_tuple_struct(name: &'static str, len: usize)
        deserialize_enum(name: &'static str, variants: &'static [&'static str])
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_struct(name, fields, Value::structure(visitor))
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

macro_rules! visit {
    ($($method:ident($type:ty))*) => {
        $(fn $method<E: serde::de::Error>(self, value: $type) -> Result<V::Value, E> {
            self.inner.$method(value)
        })*
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Value<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_structure { f.write_str("an object") } else { self.inner.expecting(f) }
    }

    visit! {
        visit_bool(bool) visit_char(char) visit_str(&str) visit_borrowed_str(&'de str) visit_string(String) visit_bytes(&[u8])
        visit_borrowed_bytes(&'de [u8]) visit_byte_buf(Vec<u8>) visit_i8(i8) visit_i16(i16) visit_i32(i32) visit_i64(i64)
        visit_i128(i128) visit_u8(u8) visit_u16(u16) visit_u32(u32) visit_u64(u64) visit_u128(u128) visit_f32(f32)
        visit_f64(f64)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, value: D) -> Result<V::Value, D::Error> {
        self.inner.visit_some(Strict(value))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, value: D) -> Result<V::Value, D::Error> {
        self.inner.visit_newtype_struct(Strict(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<V::Value, A::Error> {
        if self.is_structure {
            return Err(A::Error::invalid_type(Unexpected::Other("list"), &self));
        }
        self.inner.visit_seq(Strict(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<V::Value, A::Error> {
        self.inner.visit_map(Strict(entries))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, variant: A) -> Result<V::Value, A::Error> {
        self.inner.visit_enum(Strict(variant))
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Strict<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(Strict(value))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Strict<A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.next_element_seed(Strict(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Strict<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.next_key_seed(Strict(seed))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.0.next_value_seed(Strict(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: EnumAccess<'de>> EnumAccess<'de> for Strict<A> {
    type Error = A::Error;
    type Variant = Strict<A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), A::Error> {
        self.0.variant_seed(Strict(seed)).map(|(value, variant)| (value, Strict(variant)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Strict<A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.0.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.0.newtype_variant_seed(Strict(seed))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.0.tuple_variant(len, Value::any(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.0.struct_variant(fields, Value::structure(visitor))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::value::RawValue;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Inner {
        word: String,
        number: Option<u8>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    enum Choice {
        Unit,
        New(Inner),
        Pair(u8, Inner),
        Named { inner: Inner },
    }

    fn read<T: DeserializeOwned>(text: &str) -> Result<T, String> {
        from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_list_is_no_structure_wherever_it_is() {
        const REFUSED: &str = "invalid type: list, expected an object";
        for text in [r#"["x", 1]"#, "[]"] {
            let wrong = |outcome: Result<(), String>| assert!(outcome.unwrap_err().starts_with(REFUSED), "{text}");
            // The derived code alone takes the first of the two.
            assert_eq!(serde_json::from_str::<Inner>(text).is_ok(), text != "[]");
            wrong(read::<Inner>(text).map(drop));
            wrong(read::<Option<Inner>>(text).map(drop));
            wrong(read::<Vec<Inner>>(&format!("[{text}]")).map(drop));
            wrong(read::<(u8, Inner)>(&format!("[1, {text}]")).map(drop));
            wrong(read::<BTreeMap<String, Inner>>(&format!(r#"{{"key": {text}}}"#)).map(drop));
            wrong(read::<Choice>(&format!(r#"{{"New": {text}}}"#)).map(drop));
            wrong(read::<Choice>(&format!(r#"{{"Pair": [1, {text}]}}"#)).map(drop));
            wrong(read::<Choice>(&format!(r#"{{"Named": {{"inner": {text}}}}}"#)).map(drop));
            wrong(read::<Choice>(&format!(r#"{{"Named": [{text}]}}"#)).map(drop));
        }
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct Flat {
        #[serde(flatten, deserialize_with = "object")]
        choice: Outer,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct Outer {
        inner: Inner,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(untagged)]
    enum Untagged {
        Named {
            #[serde(deserialize_with = "object")]
            inner: Inner,
        },
    }

    #[test]
    fn fields_of_which_the_format_is_kept_say_it_themselves() {
        let (good, bad) = (r#"{"inner": {"word": "x", "number": 1}}"#, r#"{"inner": ["x", 1]}"#);
        assert_eq!(read::<Flat>(good), serde_json::from_str(good).map_err(|_| unreachable!()));
        assert!(read::<Flat>(bad).is_err() && read::<Untagged>(bad).is_err());
        assert!(read::<Untagged>(good).is_ok());
    }

    #[test]
    fn texts_slices_values_and_raw_values_are_read_alike() {
        let text = r#"{"word": "x"}"#;
        let expected = Inner { word: "x".to_owned(), number: None };
        assert_eq!(from_slice::<Inner>(text.as_bytes()).unwrap(), expected);
        assert_eq!(from_value::<Inner>(serde_json::from_str(text).unwrap()).unwrap(), expected);
        assert_eq!(from_str::<&RawValue>(text).unwrap().get(), text);
        assert!(from_value::<Inner>(serde_json::json!(["x", 1])).is_err());
        assert!(from_str::<Inner>(&format!("{text} x")).is_err());
    }

    #[test]
    fn everything_else_is_read_as_without() {
        fn same<T: DeserializeOwned + PartialEq + fmt::Debug>(text: &str) {
            let plain =
                serde_json::from_str(text).map_err(|error| error.to_string().replace("struct Inner", "an object"));
            assert_eq!(read::<T>(text), plain, "{text}");
        }
        for text in
            [r#"{"word": "x", "number": 1}"#, r#"{"word": "x"}"#, r#"{"word": "x", "number": null}"#, "1", "null", "{}"]
        {
            same::<Inner>(text);
            same::<Option<Inner>>(text);
            same::<serde_json::Value>(text);
        }
        for text in [
            r#""Unit""#,
            r#"{"New": {"word": "x"}}"#,
            r#"{"Pair": [1, {"word": "x"}]}"#,
            r#"{"Named": {"inner": {"word": "x"}}}"#,
        ] {
            same::<Choice>(text);
        }
        for text in ["true", "-1", "1.5", "18446744073709551615", "[1, [2, {\"a\": []}]]", "\"a\\nb\"", "[1, 2]"] {
            same::<serde_json::Value>(text);
            same::<(u8, u8)>(text);
            same::<Vec<i64>>(text);
            same::<String>(text);
            same::<f64>(text);
        }
    }
}
