//! IP packets: who sends what to whom, as the headers say. What can't be told for certain can't be judged.

use crate::{net::Address, socket::protocol};

/// What a packet's headers tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The protocol on top of IP, an `IPPROTO_*` number.
    pub protocol: u32,
    /// The sender's port; 0 for a protocol without ports.
    pub source_port: u16,
    /// The receiver's port; 0 for a protocol without ports.
    pub destination_port: u16,
    /// How long the IP headers are, in bytes.
    pub end: u32,
}

/// Where a packet's first header is read to, and its addresses are left, each an IPv6 one. They are not copied: that is what
/// a program for the kernel would do with registers too few to hold them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    header: [u32; 10],
}

impl Addresses {
    /// Where the packet comes from.
    #[inline(always)]
    #[must_use]
    pub const fn source(&self) -> Address {
        let [_, _, a, b, c, d, ..] = self.header;
        Address::v6([a, b, c, d])
    }

    /// Where it goes.
    #[inline(always)]
    #[must_use]
    pub const fn destination(&self) -> Address {
        let [.., a, b, c, d] = self.header;
        Address::v6([a, b, c, d])
    }
}

/// How many words of 8 bytes the options of the longest IPv4 header are: it has 60 bytes, the one without options 20.
pub const OPTION_WORDS: usize = 5;
/// The length of an IPv4 header without options, in bytes.
const HEADER4: u32 = 20;

/// The bytes of a packet, from its IP header on.
pub trait Content {
    /// Copies as many words as there is room for from `offset` on, as they lie in memory, and gives 0. If there aren't as
    /// many: zeros, and 1.
    fn load<const N: usize>(&self, offset: u32, to: &mut [u32; N]) -> u32;

    /// Whether the packet is sent as one of this version of IP, 4 or 6, whatever it says itself.
    fn is_sent_as(&self, version: u32) -> bool;

    /// The options in an IPv4 header of `end` bytes from `start` on, which is 20 or more, and zeros behind them. All zeros if they
    /// are cut off; anything where they begin behind their end.
    fn load_options(&self, start: u32, end: u32) -> [u64; OPTION_WORDS];

    /// Returns `number` in a way that the compiler can't see through. Otherwise it would leave out a mask that the verifier needs,
    /// or make branches of arithmetic.
    fn opaque(number: u32) -> u32;

    /// Like [`Content::opaque`], of a longer number.
    fn opaque_long(number: u64) -> u64;

    /// All ones if the numbers are the same, else 0, without a branch.
    fn is(one: u32, other: u32) -> u32;

    /// All ones for a number that is negative as a signed one, else 0, without a branch.
    #[inline(always)]
    #[must_use]
    fn negative(number: u32) -> u32 {
        // The compiler would compare instead, and branch, if it knew how the number was made.
        0_u32.wrapping_sub(Self::opaque(number) >> 31)
    }

    /// Writes words, each after those before it: where the second half of eight bytes on the stack is written, the kernel's
    /// verifier forgets what it knew of the first, so that it takes them for words that were loaded.
    fn write(to: &mut [u32; 10], words: [u32; 10]);

    /// Zero. The kernel's verifier must not know that: where a zero that it knows is written into a part of a word on the
    /// stack, it compares that zero ever after, so that the two versions of IP would never come together again.
    fn zero(&self) -> u32;
}

/// Which way a packet goes, and so what its headers can still do.
pub trait Direction {
    /// Whether the kernel has acted on its headers already: then a route that it had is behind it, and so is that it may have been a
    /// fragment.
    const HAS_ARRIVED: bool;
}

/// The packet leaves. Its maker may have put anything into it.
pub struct Leaving;

impl Direction for Leaving {
    const HAS_ARRIVED: bool = false;
}

/// The packet has arrived.
pub struct Arrived;

impl Direction for Arrived {
    const HAS_ARRIVED: bool = true;
}

/// Extension headers of IPv6 that are followed: as many as RFC 8200, section 4.1, has in front of a packet's content. The kernel's
/// verifier follows each step.
const EXTENSIONS: u32 = 6;

/// What a number in the field for the next header's protocol says about that header.
///
/// The set is looked up rather than compared: the verifier follows a comparison without a branch for five instructions, and a
/// branch for both sides.
#[derive(Clone, Copy)]
struct Kind {
    /// 1: it begins with two ports.
    ports: u8,
    /// All ones for an extension header of IPv6 that is followed, one that only adds something; else 0.
    extension: u8,
    /// What such a header's length field counts, in bytes; 0 for any other.
    unit: u8,
    /// What is to be added to that.
    more: u8,
    /// 1: it can't come behind an IPv6 header and what is followed of extensions, or what it is about can't be told: an
    /// extension too many, or a routing header (it names another destination) or a fragment header (the ports may be
    /// missing behind it).
    refused: u8,
    /// The bits of such a header's second two bytes that are 0 if it only adds something: of a routing header, the segments that
    /// are left, and of a fragment header, where the fragment begins and whether there are more. In a packet that leaves, such a
    /// header is never followed.
    only_if_zero: u16,
}

static KINDS: [Kind; 256] = {
    const ANY: Kind = Kind { ports: 0, extension: 0, unit: 0, more: 0, refused: 0, only_if_zero: 0 };
    const PORTS: Kind = Kind { ports: 1, ..ANY };
    // RFC 8200, section 4
    const OPTIONS: Kind = Kind { extension: u8::MAX, unit: 8, more: 8, refused: 1, ..ANY };
    // RFC 4302, section 2.2
    const AUTHENTICATION: Kind = Kind { unit: 4, ..OPTIONS };
    const ROUTE: Kind = Kind { only_if_zero: 0x00ff, ..OPTIONS };
    // Its second byte is no length.
    const FRAGMENT: Kind = Kind { unit: 0, only_if_zero: 0xfff9, ..OPTIONS };
    let mut kinds = [ANY; 256];
    kinds[protocol::TCP as usize] = PORTS;
    kinds[protocol::UDP as usize] = PORTS;
    kinds[protocol::DCCP as usize] = PORTS;
    kinds[protocol::SCTP as usize] = PORTS;
    kinds[protocol::UDPLITE as usize] = PORTS;
    // Hop by hop, and for the destination.
    kinds[0] = OPTIONS;
    kinds[60] = OPTIONS;
    kinds[51] = AUTHENTICATION;
    kinds[ROUTING as usize] = ROUTE;
    kinds[44] = FRAGMENT;
    kinds
};

#[inline(always)]
fn kind<C: Content>(protocol: u32) -> &'static Kind {
    // Verifiers that don't know the bounds of a number that was on the stack need the mask.
    &KINDS[(C::opaque(protocol) & 0xff) as usize]
}

/// Reads the headers of a packet, and its addresses to where they are to be, that is sent as one of this version of IP: a raw socket can write another version into
/// it. `None` if they contradict that, if they are incomplete, if the packet is a fragment, so that its ports may be
/// elsewhere, or if it has a route of its own, so that the destination isn't where it finally goes.
///
/// There are few branches, and none in the loops: the kernel's verifier would follow all that comes after them once for
/// each.
#[inline(always)]
#[must_use]
pub fn parse<D: Direction, C: Content>(content: &C, addresses: &mut Addresses) -> Option<Packet> {
    let Header { protocol, end, refused } = if content.is_sent_as(4) {
        header4::<D, C>(content, addresses)
    } else if content.is_sent_as(6) {
        header6::<D, C>(content, addresses)
    } else {
        return None;
    };
    // Where there are no ports, there may be nothing to load either.
    let mut ports = [0];
    let missing = content.load(end, &mut ports);
    let [ports] = ports;
    let with_ports = u32::from(kind::<C>(protocol).ports);
    if refused | with_ports & missing != 0 {
        return None;
    }
    let ports = u32::from_be(ports) * with_ports;
    #[allow(clippy::cast_possible_truncation)] // each takes the half that it is to take
    let (source_port, destination_port) = ((ports >> 16) as u16, ports as u16);
    Some(Packet { protocol, source_port, destination_port, end })
}

/// What comes before the ports.
struct Header {
    protocol: u32,
    /// Where the next header begins.
    end: u32,
    /// Not 0 if the packet can't be judged.
    refused: u32,
}

#[inline(always)]
fn header4<D: Direction, C: Content>(content: &C, addresses: &mut Addresses) -> Header {
    /// More fragments, or an offset: bits 0 to 13 of the word.
    const FRAGMENT: u32 = 0x3fff;
    // To where the source is in its place already.
    let [_, _, header @ .., _, _, _] = &mut addresses.header;
    let missing = content.load(0, header);
    let [first, fragment, protocol, source, destination] = *header;
    let (first, zero) = (u32::from_be(first), content.zero());
    let [a, b, c, d] = Address::v4(destination).or(zero).words();
    C::write(&mut addresses.header, [zero, zero, a, b, c, source, a, b, c, d]);
    let end = (first >> 24 & 0xf) * 4;
    let mut refused = missing | first >> 28 ^ 4 | u32::from_be(fragment) & FRAGMENT;
    // A header can't be shorter than 20 bytes.
    refused |= end.wrapping_sub(20) >> 31;
    if !D::HAS_ARRIVED {
        refused |= u32::from(C::opaque_long(routes4(content, end)) != 0);
    }
    let protocol = u32::from_be(protocol) >> 16 & 0xff;
    Header { protocol, end, refused }
}

/// The options of IPv4 that are read one after the other. What is in the first ones (a time, the addresses of a route that is
/// recorded) may look like anything.
const OPTIONS_READ: u32 = 3;

/// Not 0 if the options in an IPv4 header of `end` bytes have a route in them. Of those behind the first ones, any byte counts that
/// looks like one.
#[inline(always)]
fn routes4<C: Content>(content: &C, end: u32) -> u64 {
    let (mut at, mut routed) = (HEADER4, 0);
    for _ in 0..OPTIONS_READ {
        let mut option = [0];
        content.load(at, &mut option);
        let [option] = option.map(u32::from_be);
        let (kind, length) = (option >> 24, option >> 16 & 0xff);
        // All ones if it is there, and is no end of options; and if it has no length, being a byte for alignment.
        let is_there = C::negative(at.wrapping_sub(end)) & !C::is(kind, 0);
        let single = C::is(kind, 1);
        routed |= (C::is(kind, LOOSE_ROUTE) | C::is(kind, STRICT_ROUTE)) & is_there;
        at += (length & !single | 1 & single) & is_there;
    }
    // A length that leads beyond the end: who receives it may read it as something else.
    routed |= C::negative(end.wrapping_sub(at));
    u64::from(routed) | names_route(&content.load_options(at, end))
}

/// Not 0 if any byte of options of IPv4 looks like one that gives a packet a route.
#[inline(always)]
fn names_route(options: &[u64; OPTION_WORDS]) -> u64 {
    options.iter().fold(0, |either, word| either | has_byte(*word, LOOSE_ROUTE) | has_byte(*word, STRICT_ROUTE))
}

/// All ones if any byte of options of IPv4 looks like one that gives a packet a route, else 0. `is` is as for
/// [`crate::net::effective_destination`].
#[inline(always)]
#[must_use]
#[allow(clippy::cast_possible_truncation)] // both halves are taken
pub fn names_route4(options: &[u64; OPTION_WORDS], is: impl Fn(u32, u32) -> u32) -> u32 {
    let found = names_route(options);
    !is(found as u32 | (found >> 32) as u32, 0)
}

/// What the IP headers say of where a packet goes that the kernel has made of what a socket wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The destination: the next one of several, if it has a route.
    pub destination: Address,
    /// Not 0 if it has a route of its own, or not all of the headers is there.
    pub routed: u64,
    /// The port that it goes to, in host byte order, if TCP or UDP comes next.
    pub port: u16,
}

/// Extension headers of IPv6 that are followed: the kernel puts a routing header behind two others at most, of which each is
/// there once (`ipv6_push_nfrag_opts`).
const BEFORE_ROUTE: u32 = 2;

/// Reads where a packet goes, of IPv4 if all bits of `v4` are set, else (none is) of IPv6. There is no branch, after which the
/// kernel's verifier would follow each version of IP by itself.
#[inline(always)]
#[must_use]
pub fn way<C: Content>(content: &C, v4: u32) -> Way {
    // An IPv4 packet's destination is the last word of its first 20 bytes, an IPv6 packet's all four from byte 24 on.
    let mut address = [0; 4];
    let mut missing = content.load(0x18 & !v4 | 0x04 & v4, &mut address);
    let destination = Address::v6(address).or_v4(address[3], v4);
    let mut start = [0; 2];
    missing |= content.load(0, &mut start);
    let [first, second] = start.map(u32::from_be);
    let routed4 = routes4(content, (first >> 24 & 0xf) * 4) & (u64::from(v4) << 32 | u64::from(v4));
    let (mut next, mut end) = (second >> 8 & 0xff, 40);
    for _ in 0..BEFORE_ROUTE {
        let mut extension = [0];
        content.load(end, &mut extension);
        let [extension] = extension.map(u32::from_be);
        // Hop by hop, and for the destination: their length does not count the first 8 bytes.
        let is_followed = C::is(next, 0) | C::is(next, 60);
        end += ((extension >> 16 & 0xff) * 8 + 8) & is_followed;
        next ^= (next ^ extension >> 24) & is_followed;
    }
    let routed6 = C::is(next, ROUTING) & !v4;
    let end = end & !v4 | ((first >> 24 & 0xf) * 4) & v4;
    let mut ports = [0];
    missing |= content.load(end, &mut ports);
    #[allow(clippy::cast_possible_truncation)] // the half that it is to take
    let port = u32::from_be(ports[0]) as u16;
    Way { destination, routed: routed4 | u64::from(routed6 | missing), port }
}

/// The kind of a routing header (RFC 8200, section 4.4).
const ROUTING: u32 = 43;

/// Options by which a packet takes a route of its own (RFC 791).
const LOOSE_ROUTE: u32 = 131;
const STRICT_ROUTE: u32 = 137;

/// Not 0 if one of the word's bytes is this one. (It may be not 0 for other words, too, but only where a lower byte is.)
#[inline(always)]
const fn has_byte(word: u64, byte: u32) -> u64 {
    let difference = word ^ (0x0101_0101_0101_0101 * byte as u64);
    difference.wrapping_sub(0x0101_0101_0101_0101) & !difference & 0x8080_8080_8080_8080
}

#[inline(always)]
fn header6<D: Direction, C: Content>(content: &C, addresses: &mut Addresses) -> Header {
    let missing = content.load(0, &mut addresses.header);
    let [first, next, ..] = addresses.header;
    let (mut protocol, mut end) = (u32::from_be(next) >> 8 & 0xff, 40_u32);
    for _ in 0..EXTENSIONS {
        // None is shorter than 8 bytes, of which the first two are the next header's kind and this one's length.
        let mut extension = [0];
        content.load(end, &mut extension);
        let [extension] = extension;
        let extension = u32::from_be(extension);
        let (following, length, second) = (extension >> 24, extension >> 16 & 0xff, extension & 0xffff);
        let kind = kind::<C>(protocol);
        // All ones if there is more behind it that counts.
        let only_if_zero = u32::from(kind.only_if_zero);
        let is_followed = C::is(if D::HAS_ARRIVED { second & only_if_zero } else { only_if_zero }, 0);
        end += (length * u32::from(kind.unit) + u32::from(kind.more)) & is_followed;
        protocol ^= (protocol ^ following) & u32::from(kind.extension) & is_followed;
    }
    let refused = missing | u32::from_be(first) >> 28 ^ 6 | u32::from(kind::<C>(protocol).refused);
    Header { protocol, end, refused }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet's bytes, and the version of IP that it is sent as.
    struct Sent<'a>(&'a [u8], u32);

    impl Content for Sent<'_> {
        fn is_sent_as(&self, version: u32) -> bool {
            self.1 == version
        }

        fn load_options(&self, start: u32, end: u32) -> [u64; OPTION_WORDS] {
            let mut options = [0; 8 * OPTION_WORDS];
            let (start, end) = (usize::try_from(start).unwrap(), usize::try_from(end).unwrap());
            if let Some(bytes) = self.0.get(start..end) {
                options[..bytes.len()].copy_from_slice(bytes);
            }
            let mut words = options.chunks(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap()));
            std::array::from_fn(|_| words.next().unwrap())
        }

        fn opaque(number: u32) -> u32 {
            number
        }

        fn opaque_long(number: u64) -> u64 {
            number
        }

        fn is(one: u32, other: u32) -> u32 {
            crate::net::ones_if_equal(one, other)
        }

        fn write(to: &mut [u32; 10], words: [u32; 10]) {
            *to = words;
        }

        fn load<const N: usize>(&self, offset: u32, to: &mut [u32; N]) -> u32 {
            *to = [0; N];
            let offset = usize::try_from(offset).unwrap();
            let Some(bytes) = self.0.get(offset..offset + 4 * N) else { return 1 };
            let mut words = bytes.chunks(4).map(|word| u32::from_ne_bytes(word.try_into().unwrap()));
            *to = std::array::from_fn(|_| words.next().unwrap());
            0
        }

        fn zero(&self) -> u32 {
            0
        }
    }

    /// What is read of a packet, its addresses aside.
    fn parse<D: Direction, C: Content>(content: &C) -> Option<Packet> {
        super::parse::<D, C>(content, &mut Addresses::default())
    }

    const PORTS: [u8; 4] = [0x12, 0x34, 0x00, 0x35];

    /// An IPv4 packet from 10.0.0.1 to 10.0.0.2 in a buffer, and its length.
    fn packet4(options: &[u8], fragment: u16, protocol: u8, payload: &[u8]) -> ([u8; 128], usize) {
        let mut bytes = [0; 128];
        bytes[0] = 0x45 + u8::try_from(options.len() / 4).unwrap();
        bytes[6..8].copy_from_slice(&fragment.to_be_bytes());
        bytes[9] = protocol;
        bytes[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        bytes[20..20 + options.len()].copy_from_slice(options);
        let end = 20 + options.len() + payload.len();
        bytes[20 + options.len()..end].copy_from_slice(payload);
        (bytes, end)
    }

    /// An IPv6 packet from `::1` to `::2`, and its length.
    fn packet6(next: u8, payload: &[u8]) -> ([u8; 128], usize) {
        let mut bytes = [0; 128];
        bytes[0] = 0x60;
        bytes[6] = next;
        (bytes[23], bytes[39]) = (1, 2);
        bytes[40..40 + payload.len()].copy_from_slice(payload);
        (bytes, 40 + payload.len())
    }

    fn parsed((bytes, length): ([u8; 128], usize)) -> Option<(u32, u16, u16)> {
        let version = u32::from(bytes[0] >> 4);
        assert_eq!(parse::<Leaving, _>(&Sent(&bytes[..length], 10 - version)), None, "sent as the other version");
        let mut addresses = Addresses::default();
        let packet = super::parse::<Leaving, _>(&Sent(&bytes[..length], version), &mut addresses)?;
        let v4 = (Address::from_bits(0xffff_0a00_0001), Address::from_bits(0xffff_0a00_0002));
        let v6 = (Address::from_bits(1), Address::from_bits(2));
        assert!([v4, v6].contains(&(addresses.source(), addresses.destination())), "{addresses:?}");
        Some((packet.protocol, packet.source_port, packet.destination_port))
    }

    #[test]
    fn ipv4() {
        let ports = Some((17, 0x1234, 53));
        assert_eq!(parsed(packet4(&[], 0, 17, &PORTS)), ports);
        // "Don't fragment" makes no fragment.
        assert_eq!(parsed(packet4(&[], 0x4000, 17, &PORTS)), ports);
        assert_eq!(parsed(packet4(&[1; 40], 0, 17, &PORTS)), ports);
        assert_eq!(parsed(packet4(&[148, 4, 0, 0], 0, 17, &PORTS)), ports);
        assert_eq!(parsed(packet4(&[], 0, 1, &[8, 0, 0, 0])), Some((1, 0, 0)));
        // Without options, what follows the header may look like one.
        assert_eq!(parsed(packet4(&[], 0, 17, &[131, 131, 137, 137])), Some((17, 0x8383, 0x8989)));
        for (what, packet) in [
            ("ports cut off", packet4(&[], 0, 17, &PORTS[..3])),
            ("more fragments", packet4(&[], 0x2000, 17, &PORTS)),
            ("a later fragment", packet4(&[], 1, 17, &PORTS)),
            ("loose route", packet4(&[1, 131, 7, 4, 10, 0, 0, 3], 0, 17, &PORTS)),
            ("strict route, last", packet4(&[[1; 36].as_slice(), &[137, 3, 4, 0]].concat(), 0, 17, &PORTS)),
        ] {
            assert_eq!(parsed(packet), None, "{what}");
        }
        let (mut short, length) = packet4(&[], 0, 17, &PORTS);
        short[0] = 0x44;
        assert_eq!(parsed((short, length)), None, "a header of 16 bytes");
        assert_eq!(parse::<Leaving, _>(&Sent(&[0x45; 19], 4)), None);
    }

    #[test]
    fn ipv6() {
        let ports = Some((6, 0x1234, 53));
        let behind = |extensions: &[u8]| [extensions, &PORTS].concat();
        assert_eq!(parsed(packet6(6, &PORTS)), ports);
        assert_eq!(parsed(packet6(0, &behind(&[6, 0, 0, 0, 0, 0, 0, 0]))), ports);
        assert_eq!(parsed(packet6(60, &behind(&[[6, 1].as_slice(), &[0; 14]].concat()))), ports);
        assert_eq!(parsed(packet6(51, &behind(&[[6, 1].as_slice(), &[0; 10]].concat()))), ports);
        let two = [[60, 0].as_slice(), &[0; 6], &[6, 0], &[0; 6]].concat();
        assert_eq!(parsed(packet6(0, &behind(&two))), ports);
        assert_eq!(parsed(packet6(58, &[128, 0, 0, 0])), Some((58, 0, 0)));
        assert_eq!(parsed(packet6(59, &[])), Some((59, 0, 0)));
        let many = [60, 0, 0, 0, 0, 0, 0, 0].repeat(7);
        for (what, packet) in [
            ("ports cut off", packet6(6, &PORTS[..3])),
            ("routing header", packet6(43, &behind(&[6, 0, 0, 0, 0, 0, 0, 0]))),
            ("fragment header", packet6(44, &behind(&[6, 0, 0, 0, 0, 0, 0, 0]))),
            ("fragment behind options", packet6(0, &behind(&[[44, 0].as_slice(), &[0; 6], &[6, 0], &[0; 6]].concat()))),
            ("too many headers", packet6(60, &behind(&many))),
            ("an extension cut off", packet6(0, &[6])),
        ] {
            assert_eq!(parsed(packet), None, "{what}");
        }
    }

    #[test]
    fn what_has_arrived_has_its_route_behind_it() {
        let version = |bytes: &[u8]| u32::from(bytes[0] >> 4);
        let arrived =
            |(bytes, length): ([u8; 128], usize)| parse::<Arrived, _>(&Sent(&bytes[..length], version(&bytes)));
        let behind = |extensions: &[&[u8]]| [extensions.concat().as_slice(), &PORTS].concat();
        let option = |next: u8| [next, 0, 0, 0, 0, 0, 0, 0];
        let fragment = |next: u8, offset: u16| {
            // Its second byte means nothing.
            let [high, low] = offset.to_be_bytes();
            [next, 7, high, low, 1, 2, 3, 4]
        };
        let route = |next: u8, left: u8| [[next, 2, 4, left, 0, 0, 0, 0].as_slice(), &[7; 16]].concat();
        for (what, packet) in [
            ("IPv4", packet4(&[], 0, 17, &PORTS)),
            ("a route of IPv4's", packet4(&[131, 7, 4, 10, 0, 0, 3, 0], 0, 17, &PORTS)),
            ("IPv6", packet6(17, &PORTS)),
            ("a fragment that is the whole", packet6(44, &behind(&[&fragment(17, 0)]))),
            ("reserved bits", packet6(44, &behind(&[&fragment(17, 6)]))),
            ("a route that is behind", packet6(43, &behind(&[&route(17, 0)]))),
            (
                "all that there can be",
                packet6(
                    0,
                    &behind(&[
                        &option(60),
                        &option(43),
                        &route(44, 0),
                        &fragment(51, 0),
                        &[60, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                        &option(17),
                    ]),
                ),
            ),
        ] {
            let read = arrived(packet).unwrap_or_else(|| panic!("{what}"));
            assert_eq!((read.protocol, read.destination_port), (17, 53), "{what}");
            assert_eq!(read.end as usize + PORTS.len(), packet.1, "{what}");
        }
        for (what, packet) in [
            ("a fragment of IPv4's", packet4(&[], 0x2000, 17, &PORTS)),
            ("a first fragment", packet6(44, &behind(&[&fragment(17, 1)]))),
            ("a later fragment", packet6(44, &behind(&[&fragment(17, 8)]))),
            ("a route that is not behind", packet6(43, &behind(&[&route(17, 1)]))),
            ("too many", packet6(60, &behind(&[&option(60).repeat(6), &option(17)]))),
        ] {
            assert_eq!(arrived(packet), None, "{what}");
        }
    }

    #[test]
    fn the_way_of_a_packet() {
        let extension = |next: u8| [[next, 0].as_slice(), &[0; 6]].concat();
        let behind = |extensions: &[Vec<u8>]| [extensions.concat(), PORTS.to_vec()].concat();
        // Type 4, no segments left.
        let route = || [[17, 2, 4, 0, 0, 0, 0, 0].as_slice(), &[7; 16]].concat();
        let table = [
            ("no options", packet4(&[], 0, 17, &PORTS), false),
            ("others", packet4(&[148, 4, 0, 0, 7, 3, 4, 0], 0, 6, &PORTS), false),
            ("as many as there can be", packet4(&[1; 40], 0, 17, &PORTS), false),
            ("a loose route", packet4(&[131, 7, 4, 10, 0, 0, 3, 0], 0, 17, &PORTS), true),
            ("a strict route, last", packet4(&[[1; 36].as_slice(), &[137, 3, 4, 0]].concat(), 0, 17, &PORTS), true),
            ("a payload like one", packet4(&[], 0, 17, &[131, 7, 4, 10, 0, 0, 3, 0]), false),
            ("a time like one", packet4(&[68, 12, 13, 1, 10, 0, 0, 131, 137, 131, 1, 2], 0, 17, &PORTS), false),
            ("a record like one", packet4(&[1, 7, 7, 8, 10, 0, 0, 137], 0, 17, &PORTS), false),
            ("a route behind a record", packet4(&[1, 7, 3, 4, 131, 7, 4, 10, 0, 0, 3, 0], 0, 17, &PORTS), true),
            ("a route behind others", packet4(&[1, 1, 1, 1, 1, 137, 3, 4], 0, 17, &PORTS), true),
            ("no length", packet4(&[7, 0, 131, 7], 0, 17, &PORTS), true),
            ("a length beyond the end", packet4(&[7, 9, 4, 0], 0, 17, &PORTS), true),
            ("behind the end of options", packet4(&[0, 131, 0, 0], 0, 17, &PORTS), true),
            ("no headers", packet6(17, &PORTS), false),
            ("hop by hop", packet6(0, &behind(&[extension(17)])), false),
            ("two others", packet6(0, &behind(&[extension(60), extension(6)])), false),
            ("a route", packet6(43, &behind(&[route()])), true),
            ("a route behind another", packet6(60, &behind(&[extension(43), route()])), true),
            ("a route behind two", packet6(0, &behind(&[extension(60), extension(43), route()])), true),
            ("cut off", packet6(0, &[43]), true),
        ];
        for (what, (bytes, length), routed) in table {
            let (version, mask) = if bytes[0] >> 4 == 4 { (4, u32::MAX) } else { (6, 0) };
            let way = way(&Sent(&bytes[..length], version), mask);
            assert_eq!(way.routed != 0, routed, "{what}");
            let (v4, v6) = (Address::from_bits(0xffff_0a00_0002), Address::from_bits(2));
            assert_eq!(way.destination, if version == 4 { v4 } else { v6 }, "{what}");
            let is_cut = what == "cut off";
            assert!(routed || is_cut || way.port == 0x35 || what == "a payload like one", "{what}: {}", way.port);
        }
        for bytes in [&[0x45; 19][..], &[0x60; 39]] {
            let mask = if bytes[0] == 0x45 { u32::MAX } else { 0 };
            assert_ne!(way(&Sent(bytes, 4), mask).routed, 0, "too short");
        }
    }

    #[test]
    fn other_versions() {
        for version in [0_u8, 1, 2, 3, 5, 7, 8, 15] {
            assert_eq!(parse::<Leaving, _>(&Sent(&[version << 4; 64], version.into())), None, "{version}");
        }
    }
}
