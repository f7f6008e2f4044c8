//! Addresses that an answer may say only where a policy means that: else anybody who owns a name, or can forge an answer, could point it at
//! what is near to anybody who asks ("DNS rebinding").

use crate::net::Address;

/// What an address is to anybody who asks for a name, as masks: all ones if it is so, else 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nearness {
    /// No name leads to it: no single host has it, or a cloud serves its metadata and credentials there.
    pub never: u32,
    /// The address is on this host, in this network or in a private one.
    pub private: u32,
}

/// Networks of IPv4 for no single host: "this host", groups, and what is reserved, with the address of all.
pub const NO_HOST: &[(u32, u32)] = &[(0, 8), (0xe000_0000, 4), (0xf000_0000, 4)];

/// Networks of IPv4 on this host and near it: private ones (RFC 1918), those behind a provider's translation (RFC 6598), link-local ones (RFC 3927), for protocols
/// (RFC 6890) and for measurements (RFC 2544).
pub const PRIVATE: &[(u32, u32)] = &[
    (0x7f00_0000, 8),
    (0x0a00_0000, 8),
    (0xac10_0000, 12),
    (0xc0a8_0000, 16),
    (0x6440_0000, 10),
    (0xa9fe_0000, 16),
    (0xc000_0000, 24),
    (0xc612_0000, 15),
];

/// The addresses of `"hosts": ["metadata"]`: of IPv4, and of IPv6 as four words.
pub const METADATA4: [u32; 6] = [0xa9fe_a9fe, 0xa9fe_aa02, 0xa9fe_aa17, 0xa83f_8110, 0x6464_64c8, 0xa9fe_2a2a];
/// See [`METADATA4`].
pub const METADATA6: [[u32; 4]; 4] = [
    [0xfd00_0ec2, 0, 0, 0x0254],
    [0xfd00_0ec2, 0, 0, 0x0023],
    [0xfd20_00ce, 0, 0, 0x0254],
    [0xfd00_0042, 0, 0, 0x0042],
];

/// What an address is to anybody who asks for a name. `is` gives all ones if the numbers are the same, else 0.
#[inline(always)]
#[must_use]
pub fn nearness(address: Address, is: impl Fn(u32, u32) -> u32 + Copy) -> Nearness {
    let words = address.words().map(u32::from_be);
    let [a, b, c, d] = words;
    // An IPv4 address, or one that leads to one: translated (RFC 6052), or through a tunnel (RFC 3056).
    let mapped = is(a | b | (c ^ 0xffff), 0);
    let translated = is(a ^ 0x0064_ff9b | b | c, 0);
    let tunnelled = is(a >> 16, 0x2002);
    let v4 = mapped | translated | tunnelled;
    let word = d & !tunnelled | (a << 16 | b >> 16) & tunnelled;
    let within = |networks: &[(u32, u32)]| {
        networks.iter().fold(0, |found, (first, length)| found | is((word ^ first) >> (32 - length), 0))
    };
    let one_of = |found, metadata: &u32| found | is(word, *metadata);
    let never4 = within(NO_HOST) | METADATA4.iter().fold(0, one_of);
    let private4 = within(PRIVATE);
    // IPv6: what is left of ::/96, but for this host; groups; private, link-local and site-local networks; translation into
    // networks of one's own (RFC 8215).
    let loopback = is(a | b | c | (d ^ 1), 0);
    let none = is(a | b | c, 0) & !loopback;
    let groups = is(a >> 24, 0xff);
    let same = |found, metadata: &[u32; 4]| {
        let [e, f, g, h] = *metadata;
        found | is(a ^ e | b ^ f | c ^ g | d ^ h, 0)
    };
    let never6 = none | groups | METADATA6.iter().fold(0, same);
    let near = is(a >> 25, 0xfc >> 1) | is(a >> 22, 0xfe80 >> 6) | is(a >> 22, 0xfec0 >> 6);
    let private6 = loopback | near | is(a ^ 0x0064_ff9b | (b >> 16 ^ 1), 0);
    Nearness { never: never4 & v4 | never6 & !v4, private: private4 & v4 | private6 & !v4 }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use super::*;
    use crate::net::ones_if_equal;

    fn nearness_of(address: IpAddr) -> (bool, bool) {
        let bits = match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let Nearness { never, private } = nearness(Address::from_bits(bits.to_bits()), ones_if_equal);
        (never != 0, private != 0)
    }

    #[test]
    fn near_addresses_are_told_from_others() {
        // Never, private.
        let table = [
            ("203.0.113.7", (false, false)),
            ("8.8.8.8", (false, false)),
            ("2001:db8::1", (false, false)),
            ("2a00:1450::1", (false, false)),
            ("127.0.0.53", (false, true)),
            ("10.1.2.3", (false, true)),
            ("172.15.255.255", (false, false)),
            ("172.16.0.0", (false, true)),
            ("172.31.255.255", (false, true)),
            ("172.32.0.0", (false, false)),
            ("192.168.0.1", (false, true)),
            ("192.169.0.1", (false, false)),
            ("100.64.0.1", (false, true)),
            ("100.128.0.1", (false, false)),
            ("169.254.1.1", (false, true)),
            ("169.254.169.254", (true, true)),
            ("168.63.129.16", (true, false)),
            ("0.0.0.0", (true, false)),
            ("0.1.2.3", (true, false)),
            ("224.0.0.251", (true, false)),
            ("255.255.255.255", (true, false)),
            ("::", (true, false)),
            ("::1", (false, true)),
            ("::127.0.0.1", (true, false)),
            ("::ffff:127.0.0.1", (false, true)),
            ("::ffff:8.8.8.8", (false, false)),
            ("64:ff9b::127.0.0.1", (false, true)),
            ("64:ff9b::169.254.169.254", (true, true)),
            ("64:ff9b::8.8.8.8", (false, false)),
            ("64:ff9b:1::8.8.8.8", (false, true)),
            ("2002:7f00:1::", (false, true)),
            ("2002:808:808::1", (false, false)),
            ("fe80::1", (false, true)),
            ("febf::1", (false, true)),
            ("fec0::1", (false, true)),
            ("fd00::1", (false, true)),
            ("fc00::1", (false, true)),
            ("fe00::1", (false, false)),
            ("fd00:ec2::254", (true, true)),
            ("ff02::fb", (true, false)),
        ];
        for (address, expected) in table {
            assert_eq!(nearness_of(address.parse().unwrap()), expected, "{address}");
        }
    }

    #[test]
    fn the_standard_library_agrees() {
        // Every network of 16 bits, with three addresses in it.
        for high in 0..=u16::MAX {
            for low in [0, 1, 0xffff] {
                let v4 = Ipv4Addr::from_bits(u32::from(high) << 16 | low);
                let (never, private) = nearness_of(v4.into());
                assert!(!(v4.is_loopback() || v4.is_private() || v4.is_link_local()) || private, "{v4}");
                assert!(!(v4.is_multicast() || v4.is_broadcast() || v4.is_unspecified()) || never, "{v4}");
            }
            let v6 = Ipv6Addr::from_bits(u128::from(high) << 112 | 1);
            let (never, private) = nearness_of(v6.into());
            // Site-local networks are of no use any more, and a tunnel leads to an IPv4 address.
            if high & 0xffc0 != 0xfec0 && high != 0x2002 {
                assert_eq!(private, v6.is_unicast_link_local() || v6.is_unique_local() || v6.is_loopback(), "{v6}");
                assert_eq!(never, v6.is_multicast(), "{v6}");
            }
        }
    }
}
