//! DNS messages (RFC 1035, section 4): what a query asks for, and which addresses an answer has.
#![allow(clippy::cast_possible_truncation)] // each cast takes the bits that it is to take

use core::marker::PhantomData;

use super::{Content, Step, Text, text};
use crate::net::Address;

/// The length of a message's header, which the question follows.
const HEADER: u32 = 12;

/// The bits of a header's second half-word: an answer; another operation than a query; what came of it.
const ANSWER: u32 = 0x8000;
const OPERATION: u32 = 0x7800;
const OUTCOME: u32 = 0x000f;

/// Where a header says that there is one question, and how many answers there are.
const ONE_QUESTION: u32 = 0x0001_0000;
const ANSWERS: u32 = 0xffff;

/// The class of the internet, the only one in use.
const INTERNET: u32 = 1;

/// Types of records.
pub mod kind {
    /// An IPv4 address.
    pub const A: u16 = 1;
    /// An IPv6 address (RFC 3596).
    pub const AAAA: u16 = 28;
    /// No record, but what a message says of itself (RFC 6891).
    pub const OPT: u16 = 41;
    /// How to reach a service (RFC 9460).
    pub const SVCB: u16 = 64;
    /// How to reach a web server.
    pub const HTTPS: u16 = 65;
}

/// What a query asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// The number that its answer repeats.
    pub id: u16,
    /// The type of the records that are asked for.
    pub kind: u16,
    /// The length of the name, of which the text is where it was to be read to.
    pub length: u32,
}

/// Reads a message of `size` bytes that is one query for a host name and nothing else: with no records but one that says what the
/// sender understands. `None` for all others.
#[inline(always)]
#[must_use]
pub fn query<C: Content>(content: &C, size: u32, text: &mut Text) -> Option<Query> {
    let mut header = [0; 3];
    let missing = content.load(0, &mut header);
    let [first, counts, more_counts] = header.map(u32::from_be);
    // One question, no answer, no authority, and at most one additional record.
    if missing | first & (ANSWER | OPERATION) | counts ^ ONE_QUESTION | more_counts & !1 != 0 {
        return None;
    }
    let Question { length, kind, end } = question(content, size, text)?;
    // The additional record: the root's name, which is a single 0; type; class; time to live; length of what it holds. Read from
    // the byte before it, that is whole words.
    let mut record = [0; 3];
    let missing = content.load(end.wrapping_sub(1), &mut record);
    let [start, _, rest] = record.map(u32::from_be);
    let wrong = missing | start & 0x00ff_ffff ^ u32::from(kind::OPT);
    let there = 0_u32.wrapping_sub(more_counts);
    let end = end.wrapping_add((11 + (rest & 0xffff)) & there);
    if C::opaque(wrong & there | end ^ size) != 0 {
        return None;
    }
    Some(Query { id: (first >> 16) as u16, kind, length })
}

/// What an answer is to, and where its records are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The number of the query.
    pub id: u16,
    /// The type of the records that were asked for.
    pub kind: u16,
    /// The length of the name that was asked for, as the answer repeats it; the text is where it was to be read to.
    pub length: u32,
    /// How many records there are in answer to the question.
    records: u32,
    /// Where the first begins.
    start: u32,
}

impl Answer {
    /// To nothing.
    pub const NONE: Self = Self { id: 0, kind: 0, length: 0, records: 0, start: 0 };
}

/// Reads the beginning of a message of `size` bytes that answers one question for a host name and reports no error. `None` for
/// all others.
#[inline(always)]
#[must_use]
pub fn answer<C: Content>(content: &C, size: u32, text: &mut Text) -> Option<Answer> {
    let mut header = [0; 3];
    let missing = content.load(0, &mut header);
    let [first, counts, _] = header.map(u32::from_be);
    let wrong = first & (ANSWER | OPERATION | OUTCOME) ^ ANSWER;
    if missing | wrong | (counts ^ ONE_QUESTION) & !ANSWERS != 0 {
        return None;
    }
    let Question { length, kind, end } = question(content, size, text)?;
    Some(Answer { id: (first >> 16) as u16, kind, length, records: counts & ANSWERS, start: end })
}

struct Question {
    length: u32,
    kind: u16,
    /// Where it ends.
    end: u32,
}

/// Reads the question behind the header.
#[inline(always)]
fn question<C: Content>(content: &C, size: u32, text: &mut Text) -> Option<Question> {
    let length = text::of_question(content, HEADER, size, text)?;
    // The name has one byte more at both of its ends: the length of its first label, and that of the root.
    let after = HEADER + length + 2;
    let mut rest = [0];
    let missing = content.load(after, &mut rest);
    let [rest] = rest.map(u32::from_be);
    if missing | rest & 0xffff ^ INTERNET != 0 {
        return None;
    }
    Some(Question { length, kind: (rest >> 16) as u16, end: after + 4 })
}

/// Who learns what an answer says.
pub trait Learner {
    /// Takes an address of the answer.
    fn learn(&mut self, address: Address);
}

/// The most steps through the records of an answer: each is one record or one label of a record's name. A message of 65,535 bytes
/// has at most 5,957 records, since none is shorter than 11 bytes.
const STEPS: u32 = 8192;

/// Has all addresses learnt that an answer of `size` bytes has for its question, whatever names the records have: behind a
/// CNAME these are others than the one that was asked for. Where the answer makes no sense, the rest of it isn't read.
#[inline(always)]
pub fn addresses<C: Content, L: Learner>(content: &C, answer: &Answer, size: u32, learner: &mut L) {
    let mut records =
        ResourceRecords::<C, L> { content, learner, place: answer.start, left: answer.records, size, of: PhantomData };
    if records.left != 0 {
        C::repeat(STEPS, &mut records);
    }
}

/// Going through the records of an answer.
struct ResourceRecords<'a, C, L> {
    content: &'a C,
    learner: &'a mut L,
    /// Where the next record, or the next label of its name, begins.
    place: u32,
    /// How many records are still to come.
    left: u32,
    size: u32,
    of: PhantomData<C>,
}

impl<C: Content, L: Learner> Step for ResourceRecords<'_, C, L> {
    #[inline(always)]
    fn step(&mut self, _: u32) -> u32 {
        let place = self.place;
        // No record is shorter than four bytes.
        let mut start = [0];
        let missing = self.content.load(place, &mut start);
        let first = u32::from_be(start[0]) >> 24;
        if missing != 0 {
            return 1;
        }
        if first & 0xc0 == 0 && first != 0 {
            self.place = place.wrapping_add(first + 1);
            return 0;
        }
        // The name ends with the root, one byte, or goes on elsewhere (RFC 1035, section 4.1.4), by two. From two bytes before
        // its end on, what follows is whole words: type, class, time to live, and the length of the data.
        let end = place.wrapping_add(1 + (first >> 7));
        let mut fixed = [0; 3];
        let missing = self.content.load(end.wrapping_sub(2), &mut fixed);
        let [kind, class, length] = fixed.map(u32::from_be);
        let (kind, class, length) = (kind & 0xffff, class >> 16, length & 0xffff);
        let (data, next) = (end.wrapping_add(10), end.wrapping_add(10 + length));
        // Beginnings of names with only one of the two bits are not in use.
        let strange = (first >> 6 ^ first >> 7) & 1;
        if missing | strange | self.size.wrapping_sub(next) >> 31 != 0 {
            return 1;
        }
        if class == INTERNET && kind == u32::from(kind::A) && length == 4 {
            let mut address = [0];
            if self.content.load(data, &mut address) == 0 {
                self.learner.learn(Address::v4(address[0]));
            }
        }
        if class == INTERNET && kind == u32::from(kind::AAAA) && length == 16 {
            let mut address = [0; 4];
            if self.content.load(data, &mut address) == 0 {
                self.learner.learn(Address::v6(address));
            }
        }
        self.place = next;
        self.left = self.left.wrapping_sub(1);
        u32::from(self.left == 0)
    }
}
