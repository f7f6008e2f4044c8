//! Which server the first message of a TLS connection is for (RFC 8446, section 4.1.2, and RFC 6066, section 3).

use super::{Content, Step, Text, text};

/// Begins a record of a handshake.
const HANDSHAKE: u32 = 22;
/// The message by which a client begins.
const CLIENT_HELLO: u32 = 1;
/// The extension for the name of the server.
const SERVER_NAME: u32 = 0;

/// A record's header, of which the last two bytes are the length of what follows.
const RECORD: u32 = 5;
/// The most bytes in a record.
const LONGEST_RECORD: u32 = 1 << 14;
/// A message's header, of which the last three bytes are the length of what follows.
const MESSAGE: u32 = 4;
/// What is before the session's id: a version and 32 random bytes.
const FIXED: u32 = 34;
/// An extension's header: its type, and the length of what follows.
const EXTENSION: u32 = 4;

/// The most extensions before the name of the server.
const EXTENSIONS: u32 = 256;

/// What the beginning of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// A ClientHello that names one host, by so many characters; the text is where it was to be read to.
    Named(u32),
    /// The bytes may become a ClientHello when there are more of them.
    Short,
    /// Something else.
    Other,
}

/// Reads `size` bytes by which a connection begins.
#[inline(always)]
#[must_use]
pub fn beginning<C: Content>(content: &C, size: u32, text: &mut Text) -> Beginning {
    if let Some(length) = server_name(content, text) {
        return Beginning::Named(length);
    }
    let mut start = [0; 2];
    let missing = content.load(0, &mut start);
    let [first, second] = start.map(u32::from_be);
    let record = first << 8 & 0xff00 | second >> 24;
    // Shorter than a header, or than what that says; a message is no longer than a record can be (RFC 8446, section 5.1).
    let begins = first >> 24 == HANDSHAKE && first >> 16 & 0xff == 3 && record <= LONGEST_RECORD;
    if missing != 0 || begins && size < record + RECORD { Beginning::Short } else { Beginning::Other }
}

/// Reads which server the beginning of a connection names. Gives the length of the name, of which the text is where it was to be read to.
/// `None` if that is no whole ClientHello in a record of its own, or if it names no host, or not only one.
///
/// Of what follows the name only the lengths are read, and only as far as it is there.
#[inline(always)]
#[must_use]
pub fn server_name<C: Content>(content: &C, text: &mut Text) -> Option<u32> {
    let mut start = [0; 3];
    let missing = content.load(0, &mut start);
    let [first, second, _] = start.map(u32::from_be);
    // Version 3.x, in whatever disguise.
    let wrong = first >> 24 ^ HANDSHAKE | first >> 16 & 0xff ^ 3 | second >> 16 & 0xff ^ CLIENT_HELLO;
    let record = first << 8 & 0xff00 | second >> 24;
    let message = (second & 0xffff) << 8 | u32::from_be(start[2]) >> 24;
    if missing | wrong | (message + MESSAGE) ^ record != 0 {
        return None;
    }
    let size = RECORD + record;
    let session = RECORD + MESSAGE + FIXED;
    let suites = session + 1 + byte(content, session)?;
    let methods = suites + 2 + half(content, suites)?;
    let extensions = methods + 1 + byte(content, methods)?;
    // They end where the message does.
    if half(content, extensions)? + extensions + 2 != size {
        return None;
    }
    let mut search = Search::<C> { content, place: extensions + 2, size, found: 0, count: 0, wrong: 0 };
    C::repeat(EXTENSIONS, &mut search);
    if search.wrong | search.count ^ 1 != 0 {
        return None;
    }
    let place = search.found;
    let whole = half(content, place + 2)?;
    // A list of one name, which is a host's.
    let list = half(content, place + EXTENSION)?;
    let mut name = [0];
    let missing = content.load(place + EXTENSION + 2, &mut name);
    let [name] = name.map(u32::from_be);
    let length = name >> 8 & 0xffff;
    if missing | name >> 24 | (list + 2) ^ whole | (length + 3) ^ list != 0 {
        return None;
    }
    text::of_text(content, place + EXTENSION + 5, length, text)?;
    Some(length)
}

#[inline(always)]
fn byte<C: Content>(content: &C, place: u32) -> Option<u32> {
    // Something follows everything that is asked for.
    half(content, place).map(|half| half >> 8)
}

/// The two bytes at a place, which have two others before them.
#[inline(always)]
fn half<C: Content>(content: &C, place: u32) -> Option<u32> {
    let mut word = [0];
    let missing = content.load(place.wrapping_sub(2), &mut word);
    if missing == 0 { Some(u32::from_be(word[0]) & 0xffff) } else { None }
}

/// Going through the extensions.
struct Search<'a, C> {
    content: &'a C,
    place: u32,
    size: u32,
    /// Where the name of the server is.
    found: u32,
    /// How many there are.
    count: u32,
    wrong: u32,
}

impl<C: Content> Step for Search<'_, C> {
    #[inline(always)]
    fn step(&mut self, _: u32) -> u32 {
        if self.place == self.size {
            return 1;
        }
        let mut header = [0];
        if self.content.load(self.place, &mut header) != 0 {
            // What isn't there can't be read. It may be in the next segment.
            return 1;
        }
        let [header] = header.map(u32::from_be);
        let next = self.place.wrapping_add(EXTENSION + (header & 0xffff));
        if self.size.wrapping_sub(next) >> 31 != 0 {
            self.wrong = 1;
            return 1;
        }
        if header >> 16 == SERVER_NAME {
            self.found = self.place;
            self.count = self.count.wrapping_add(1);
        }
        self.place = next;
        0
    }
}
