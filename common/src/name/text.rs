//! A host name as text, back to front: so names that end alike begin alike, and one look-up by the longest prefix finds the name
//! itself or the nearest `*.example.org` above it.
//!
//! `api.example.org` is `gro.elpmaxe.ipa` and a NUL, which no longer name has in that place; `*.example.org` is the prefix
//! `gro.elpmaxe.`, which `example.org` itself doesn't have.
#![allow(clippy::cast_possible_truncation)] // each cast takes the bits that it is to take

use super::{Content, Step};

/// The longest name, in characters, without a dot at its end (RFC 1035, section 2.3.4: 255 bytes with the length of each label,
/// and that of the root).
pub const LONGEST: usize = 253;

/// Room for a name, and for what is read beside it.
pub const ROOM: usize = 256;

/// A name back to front, and a NUL behind it. What follows is left over.
pub type Text = [u8; ROOM];

/// How many bytes the longest name has in a message.
const ON_WIRE: u32 = 255;

/// The longest label.
const LONGEST_LABEL: u32 = 63;

/// What each byte of a label counts as: capital letters as small ones, and 0 for what is in no host name. A dot among them would
/// look like the end of a label, and a NUL like that of the name.
static FOLDED: [u8; 256] = {
    let mut folded = [0; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            folded[byte as usize] = byte.to_ascii_lowercase();
        }
        byte += 1;
    }
    folded
};

#[inline(always)]
fn folded<C: Content>(byte: u8) -> u8 {
    // The verifier of Linux 6.1 needs the mask.
    FOLDED[(C::opaque(byte.into()) & 0xff) as usize]
}

/// A place in a text.
#[inline(always)]
fn at<C: Content>(index: u32) -> usize {
    (C::opaque(index) & 0xff) as usize
}

/// Reads the name of a question that begins at `offset` in a message of `size` bytes. Gives the length of its text, or `None` for
/// the root, for what is no host name, for one that is compressed, and for one that is cut off.
#[inline(always)]
pub fn of_question<C: Content>(content: &C, offset: u32, size: u32, text: &mut Text) -> Option<u32> {
    let rest = size.wrapping_sub(offset);
    if rest == 0 || rest > size {
        return None;
    }
    let length = if rest < ON_WIRE { rest } else { ON_WIRE };
    if content.load_text(offset, length, text) != 0 {
        return None;
    }
    let mut labels = Labels::<C> { text, left: 0, length: 0, wrong: 0, content: core::marker::PhantomData };
    C::repeat(length, &mut labels);
    let (wrong, length) = (labels.wrong, labels.length);
    if wrong != 0 || length == 0 || length > LONGEST as u32 {
        return None;
    }
    turn::<C>(text, length);
    Some(length)
}

/// Reads a name that stands in a message as text of `length` bytes, with dots and without one at its end. `None` for what is no
/// host name.
#[inline(always)]
pub fn of_text<C: Content>(content: &C, offset: u32, length: u32, text: &mut Text) -> Option<()> {
    if length == 0 || length > LONGEST as u32 || content.load_text(offset, length, text) != 0 {
        return None;
    }
    let mut dotted = Dotted::<C> { text, left: 0, wrong: 0, content: core::marker::PhantomData };
    C::repeat(length, &mut dotted);
    // The last label has at least one byte, too.
    if dotted.wrong != 0 || dotted.left == 0 {
        return None;
    }
    text[at::<C>(length)] = 0;
    turn::<C>(text, length);
    Some(())
}

/// From labels, each with its length before it, to text.
struct Labels<'a, C> {
    text: &'a mut Text,
    /// How many bytes of the label are still to come.
    left: u32,
    /// The length of the text, where the name is at its end; else 0.
    length: u32,
    /// Not 0 if it is no host name. It is that until its end has been found.
    wrong: u32,
    content: core::marker::PhantomData<C>,
}

impl<C: Content> Step for Labels<'_, C> {
    #[inline(always)]
    fn step(&mut self, index: u32) -> u32 {
        let byte = self.text[at::<C>(index)];
        let number = u32::from(byte);
        let is_length = C::is(self.left, 0);
        let ends = is_length & C::is(number, 0);
        let folded = u32::from(folded::<C>(byte));
        // Each byte goes one place to the front, where there is room, since the length of the first label is no dot. What that
        // is itself goes behind everything.
        let to = (u32::from(b'.') & is_length | folded & !is_length) & !ends;
        self.text[at::<C>(index.wrapping_sub(1))] = to as u8;
        let too_long = is_length & (LONGEST_LABEL.wrapping_sub(number) >> 31);
        let strange = !is_length & C::is(folded, 0) & 1;
        self.wrong = too_long | strange;
        self.left = number & is_length | self.left.wrapping_sub(1) & !is_length;
        self.length = index.wrapping_sub(1) & ends & ROOM_MASK;
        C::opaque(self.wrong | ends & 1) & 1
    }
}

/// Keeps a length in bounds that are known to the verifier.
const ROOM_MASK: u32 = ROOM as u32 - 1;

/// From any spelling of text to the one that rules are looked up by.
struct Dotted<'a, C> {
    text: &'a mut Text,
    /// How many bytes the label has so far.
    left: u32,
    wrong: u32,
    content: core::marker::PhantomData<C>,
}

impl<C: Content> Step for Dotted<'_, C> {
    #[inline(always)]
    fn step(&mut self, index: u32) -> u32 {
        let byte = self.text[at::<C>(index)];
        let is_dot = C::is(byte.into(), b'.'.into());
        let folded = u32::from(folded::<C>(byte));
        self.text[at::<C>(index)] = (u32::from(b'.') & is_dot | folded & !is_dot) as u8;
        let empty = is_dot & C::is(self.left, 0);
        let strange = !is_dot & C::is(folded, 0);
        self.left = self.left.wrapping_add(1) & !is_dot;
        let too_long = LONGEST_LABEL.wrapping_sub(self.left) >> 31;
        self.wrong = empty & 1 | strange & 1 | too_long;
        C::opaque(self.wrong) & 1
    }
}

/// Turns the first `length` bytes round.
#[inline(always)]
fn turn<C: Content>(text: &mut Text, length: u32) {
    C::repeat(length / 2, &mut Turn::<C> { text, last: length.wrapping_sub(1), content: core::marker::PhantomData });
}

struct Turn<'a, C> {
    text: &'a mut Text,
    last: u32,
    content: core::marker::PhantomData<C>,
}

impl<C: Content> Step for Turn<'_, C> {
    #[inline(always)]
    fn step(&mut self, index: u32) -> u32 {
        let (one, other) = (at::<C>(index), at::<C>(self.last.wrapping_sub(index)));
        let (first, last) = (self.text[one], self.text[other]);
        self.text[one] = last;
        self.text[other] = first;
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::tests::{Slice, readable};

    fn question(bytes: &[u8]) -> Option<String> {
        let mut text = [0xff; ROOM];
        let slice = Slice(bytes);
        of_question(&slice, 0, slice.size(), &mut text).map(|length| readable(&text, length))
    }

    fn wire(labels: &[&[u8]]) -> Vec<u8> {
        let mut wire = Vec::new();
        for label in labels {
            wire.push(u8::try_from(label.len()).unwrap());
            wire.extend_from_slice(label);
        }
        wire.push(0);
        wire
    }

    #[test]
    fn names_of_questions_are_read() {
        let (long, most) = ([b'a'; 63], [b'b'; 61]);
        let longest: [&[u8]; 4] = [&long, &long, &long, &most];
        let joined = |labels: &[&[u8]]| {
            labels
                .iter()
                .map(|label| String::from_utf8(label.to_ascii_lowercase()).unwrap())
                .collect::<Vec<_>>()
                .join(".")
        };
        let table: [&[&[u8]]; 6] = [
            &[b"api", b"example", b"org"],
            &[b"API", b"eXample", b"ORG"],
            &[b"_sip", b"x--1"],
            &[b"a"],
            &[b"xn--mnchen-3ya", b"example"],
            &longest,
        ];
        for labels in table {
            assert_eq!(question(&wire(labels)), Some(joined(labels)));
        }
    }

    #[test]
    fn what_is_no_host_name_is_refused() {
        let (long, more) = ([b'a'; 63], [b'b'; 62]);
        let too_long: [&[u8]; 4] = [&long, &long, &long, &more];
        let refused = [
            vec![0],
            vec![],
            vec![3, b'a'],
            vec![3, b'a', b'b', b'c'],
            vec![1, b'a', 0xc0, 0x0c],
            vec![0xc0, 0x0c],
            wire(&[b"a.b", b"org"]),
            wire(&[b"a\0b", b"org"]),
            wire(&[b"\x07example\x03org"]),
            wire(&[b"a b"]),
            wire(&["ä".as_bytes()]),
            wire(&[b"*", b"org"]),
            wire(&too_long),
            [vec![64], vec![b'a'; 64], vec![0]].concat(),
            [vec![0x41], vec![b'a'; 8], vec![0]].concat(),
        ];
        for bytes in refused {
            assert_eq!(question(&bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn names_as_text_are_read() {
        let dotted = |name: &str| {
            let mut text = [0xff; ROOM];
            let length = u32::try_from(name.len()).unwrap();
            of_text(&Slice(name.as_bytes()), 0, length, &mut text).map(|()| readable(&text, length))
        };
        let long = "a".repeat(63);
        let longest = [long.as_str(), &long, &long, &"b".repeat(61)].join(".");
        for name in ["api.example.org", "API.example.ORG", "a", &longest] {
            assert_eq!(dotted(name), Some(name.to_lowercase()));
        }
        let label = "a".repeat(64);
        let name = longest.clone() + "b";
        for name in ["", ".", "a.", ".a", "a..b", "a\0b", "a b", "ä", "*.org", &label, &name] {
            assert_eq!(dotted(name), None, "{name:?}");
        }
    }
}
