//! The names of socket options and their levels, as the manual pages have them: socket(7), ip(7), ipv6(7), tcp(7),
//! udp(7), raw(7), packet(7), netlink(7), and the kernel's documentation for the others.

/// A level and its options.
struct KnownLevel {
    /// The level's number.
    number: i32,
    /// The level's names; it is printed as the first one.
    names: &'static [&'static str],
    /// The level's options. Where several have one number, it is printed as the first one.
    options: &'static [(&'static str, i32)],
}

/// Names of constants, with their values.
macro_rules! names {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), libc::$name)),*] };
    ($($name:ident),+ ; $($more:ident = $number:literal),+ $(,)?) => {
        &[$((stringify!($name), libc::$name)),+ , $((stringify!($more), $number)),+]
    };
}

/// What is not in the libc crate has its number here (include/uapi/linux/socket.h, in.h, tcp.h, icmpv6.h, mptcp.h …).
const LEVELS: &[KnownLevel] = &[
    KnownLevel {
        number: libc::SOL_SOCKET,
        names: &["SOL_SOCKET"],
        options: names![
            SO_DEBUG, SO_REUSEADDR, SO_TYPE, SO_ERROR, SO_DONTROUTE, SO_BROADCAST, SO_SNDBUF, SO_RCVBUF, SO_KEEPALIVE,
            SO_OOBINLINE, SO_NO_CHECK, SO_PRIORITY, SO_LINGER, SO_BSDCOMPAT, SO_REUSEPORT, SO_PASSCRED, SO_PEERCRED,
            SO_RCVLOWAT, SO_SNDLOWAT, SO_RCVTIMEO, SO_SNDTIMEO, SO_SECURITY_AUTHENTICATION,
            SO_SECURITY_ENCRYPTION_TRANSPORT, SO_SECURITY_ENCRYPTION_NETWORK, SO_BINDTODEVICE, SO_ATTACH_FILTER,
            SO_GET_FILTER, SO_DETACH_FILTER, SO_DETACH_BPF, SO_PEERNAME, SO_TIMESTAMP, SO_ACCEPTCONN, SO_PEERSEC,
            SO_SNDBUFFORCE, SO_RCVBUFFORCE, SO_PASSSEC, SO_TIMESTAMPNS, SO_MARK, SO_TIMESTAMPING, SO_PROTOCOL,
            SO_DOMAIN, SO_RXQ_OVFL, SO_WIFI_STATUS, SO_PEEK_OFF, SO_NOFCS, SO_LOCK_FILTER, SO_SELECT_ERR_QUEUE,
            SO_BUSY_POLL, SO_MAX_PACING_RATE, SO_BPF_EXTENSIONS, SO_INCOMING_CPU, SO_ATTACH_BPF,
            SO_ATTACH_REUSEPORT_CBPF, SO_ATTACH_REUSEPORT_EBPF, SO_CNX_ADVICE, SO_MEMINFO, SO_INCOMING_NAPI_ID,
            SO_COOKIE, SO_PEERGROUPS, SO_ZEROCOPY, SO_TXTIME, SO_BINDTOIFINDEX, SO_TIMESTAMP_NEW, SO_TIMESTAMPNS_NEW,
            SO_TIMESTAMPING_NEW, SO_RCVTIMEO_NEW, SO_SNDTIMEO_NEW, SO_DETACH_REUSEPORT_BPF, SO_PREFER_BUSY_POLL,
            SO_BUSY_POLL_BUDGET, SO_NETNS_COOKIE, SO_BUF_LOCK, SO_RESERVE_MEM, SO_TXREHASH, SO_RCVMARK, SO_PASSPIDFD,
            SO_PEERPIDFD;
            SO_RCVPRIORITY = 82, SO_PASSRIGHTS = 83
        ],
    },
    KnownLevel {
        number: libc::IPPROTO_IP,
        names: &["IPPROTO_IP", "SOL_IP"],
        options: names![
            IP_TOS, IP_TTL, IP_HDRINCL, IP_OPTIONS, IP_ROUTER_ALERT, IP_RECVOPTS, IP_RETOPTS, IP_PKTINFO,
            IP_PKTOPTIONS, IP_MTU_DISCOVER, IP_RECVERR, IP_RECVTTL, IP_RECVTOS, IP_MTU, IP_FREEBIND, IP_IPSEC_POLICY,
            IP_XFRM_POLICY, IP_PASSSEC, IP_TRANSPARENT, IP_RECVORIGDSTADDR, IP_ORIGDSTADDR, IP_MINTTL, IP_NODEFRAG,
            IP_CHECKSUM, IP_BIND_ADDRESS_NO_PORT, IP_RECVFRAGSIZE, IP_MULTICAST_IF, IP_MULTICAST_TTL,
            IP_MULTICAST_LOOP, IP_ADD_MEMBERSHIP, IP_DROP_MEMBERSHIP, IP_UNBLOCK_SOURCE, IP_BLOCK_SOURCE,
            IP_ADD_SOURCE_MEMBERSHIP, IP_DROP_SOURCE_MEMBERSHIP, IP_MSFILTER, MCAST_JOIN_GROUP, MCAST_BLOCK_SOURCE,
            MCAST_UNBLOCK_SOURCE, MCAST_LEAVE_GROUP, MCAST_JOIN_SOURCE_GROUP, MCAST_LEAVE_SOURCE_GROUP,
            MCAST_MSFILTER, IP_MULTICAST_ALL, IP_UNICAST_IF, SO_ORIGINAL_DST;
            IP_RECVRETOPTS = 7, IP_RECVERR_RFC4884 = 26, IP_LOCAL_PORT_RANGE = 51, IP_PROTOCOL = 52
        ],
    },
    KnownLevel {
        number: libc::IPPROTO_IPV6,
        names: &["IPPROTO_IPV6", "SOL_IPV6"],
        options: names![
            IPV6_ADDRFORM, IPV6_2292PKTINFO, IPV6_2292HOPOPTS, IPV6_2292DSTOPTS, IPV6_2292RTHDR, IPV6_2292PKTOPTIONS,
            IPV6_CHECKSUM, IPV6_2292HOPLIMIT, IPV6_NEXTHOP, IPV6_AUTHHDR, IPV6_FLOWINFO, IPV6_UNICAST_HOPS,
            IPV6_MULTICAST_IF, IPV6_MULTICAST_HOPS, IPV6_MULTICAST_LOOP, IPV6_ADD_MEMBERSHIP,
            IPV6_DROP_MEMBERSHIP, IPV6_ROUTER_ALERT, IPV6_MTU_DISCOVER, IPV6_MTU, IPV6_RECVERR,
            IPV6_V6ONLY, IPV6_JOIN_ANYCAST, IPV6_LEAVE_ANYCAST, IPV6_MULTICAST_ALL, IPV6_ROUTER_ALERT_ISOLATE,
            IPV6_FLOWLABEL_MGR, IPV6_FLOWINFO_SEND, IPV6_IPSEC_POLICY, IPV6_XFRM_POLICY, IPV6_HDRINCL,
            MCAST_JOIN_GROUP, MCAST_BLOCK_SOURCE, MCAST_UNBLOCK_SOURCE, MCAST_LEAVE_GROUP, MCAST_JOIN_SOURCE_GROUP,
            MCAST_LEAVE_SOURCE_GROUP, MCAST_MSFILTER, IPV6_RECVPKTINFO, IPV6_PKTINFO, IPV6_RECVHOPLIMIT,
            IPV6_HOPLIMIT, IPV6_RECVHOPOPTS, IPV6_HOPOPTS, IPV6_RTHDRDSTOPTS, IPV6_RECVRTHDR, IPV6_RTHDR,
            IPV6_RECVDSTOPTS, IPV6_DSTOPTS, IPV6_RECVPATHMTU, IPV6_PATHMTU, IPV6_DONTFRAG, IPV6_RECVTCLASS,
            IPV6_TCLASS, IPV6_AUTOFLOWLABEL, IPV6_ADDR_PREFERENCES, IPV6_MINHOPCOUNT, IPV6_RECVORIGDSTADDR,
            IPV6_ORIGDSTADDR, IPV6_TRANSPARENT, IPV6_UNICAST_IF, IPV6_RECVFRAGSIZE, IPV6_FREEBIND;
            IPV6_JOIN_GROUP = 20, IPV6_LEAVE_GROUP = 21, IPV6_RECVERR_RFC4884 = 31, IPV6_USE_MIN_MTU = 63,
            IP6T_SO_ORIGINAL_DST = 80
        ],
    },
    KnownLevel {
        number: libc::IPPROTO_TCP,
        names: &["IPPROTO_TCP", "SOL_TCP"],
        options: names![
            TCP_NODELAY, TCP_MAXSEG, TCP_CORK, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, TCP_SYNCNT, TCP_LINGER2,
            TCP_DEFER_ACCEPT, TCP_WINDOW_CLAMP, TCP_INFO, TCP_QUICKACK, TCP_CONGESTION, TCP_MD5SIG,
            TCP_THIN_LINEAR_TIMEOUTS, TCP_THIN_DUPACK, TCP_USER_TIMEOUT, TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ,
            TCP_REPAIR_OPTIONS, TCP_FASTOPEN, TCP_TIMESTAMP, TCP_NOTSENT_LOWAT, TCP_CC_INFO, TCP_SAVE_SYN,
            TCP_SAVED_SYN, TCP_REPAIR_WINDOW, TCP_FASTOPEN_CONNECT, TCP_ULP, TCP_MD5SIG_EXT, TCP_FASTOPEN_KEY,
            TCP_FASTOPEN_NO_COOKIE, TCP_ZEROCOPY_RECEIVE, TCP_INQ;
            TCP_TX_DELAY = 37, TCP_AO_ADD_KEY = 38, TCP_AO_DEL_KEY = 39, TCP_AO_INFO = 40, TCP_AO_GET_KEYS = 41,
            TCP_AO_REPAIR = 42, TCP_IS_MPTCP = 43, TCP_RTO_MAX_MS = 44, TCP_RTO_MIN_US = 45, TCP_DELACK_MAX_US = 46
        ],
    },
    KnownLevel {
        number: libc::IPPROTO_UDP,
        names: &["IPPROTO_UDP", "SOL_UDP"],
        options: names![UDP_CORK, UDP_ENCAP, UDP_NO_CHECK6_TX, UDP_NO_CHECK6_RX, UDP_SEGMENT, UDP_GRO],
    },
    KnownLevel {
        number: libc::IPPROTO_ICMPV6,
        names: &["IPPROTO_ICMPV6", "SOL_ICMPV6"],
        options: &[("ICMP6_FILTER", 1)],
    },
    KnownLevel {
        number: libc::IPPROTO_UDPLITE,
        names: &["IPPROTO_UDPLITE", "SOL_UDPLITE"],
        options: &[("UDPLITE_SEND_CSCOV", 10), ("UDPLITE_RECV_CSCOV", 11)],
    },
    KnownLevel { number: libc::IPPROTO_SCTP, names: &["IPPROTO_SCTP", "SOL_SCTP"], options: &[] },
    KnownLevel { number: libc::SOL_RAW, names: &["SOL_RAW", "IPPROTO_RAW"], options: &[("ICMP_FILTER", 1)] },
    KnownLevel {
        number: libc::SOL_PACKET,
        names: &["SOL_PACKET"],
        options: names![
            PACKET_ADD_MEMBERSHIP,
            PACKET_DROP_MEMBERSHIP,
            PACKET_RECV_OUTPUT,
            PACKET_RX_RING,
            PACKET_STATISTICS,
            PACKET_COPY_THRESH,
            PACKET_AUXDATA,
            PACKET_ORIGDEV,
            PACKET_VERSION,
            PACKET_HDRLEN,
            PACKET_RESERVE,
            PACKET_TX_RING,
            PACKET_LOSS,
            PACKET_VNET_HDR,
            PACKET_TX_TIMESTAMP,
            PACKET_TIMESTAMP,
            PACKET_FANOUT,
            PACKET_TX_HAS_OFF,
            PACKET_QDISC_BYPASS,
            PACKET_ROLLOVER_STATS,
            PACKET_FANOUT_DATA,
            PACKET_IGNORE_OUTGOING,
            PACKET_VNET_HDR_SZ
        ],
    },
    KnownLevel {
        number: libc::SOL_NETLINK,
        names: &["SOL_NETLINK"],
        options: names![
            NETLINK_ADD_MEMBERSHIP,
            NETLINK_DROP_MEMBERSHIP,
            NETLINK_PKTINFO,
            NETLINK_BROADCAST_ERROR,
            NETLINK_NO_ENOBUFS,
            NETLINK_RX_RING,
            NETLINK_TX_RING,
            NETLINK_LISTEN_ALL_NSID,
            NETLINK_LIST_MEMBERSHIPS,
            NETLINK_CAP_ACK,
            NETLINK_EXT_ACK,
            NETLINK_GET_STRICT_CHK
        ],
    },
    KnownLevel {
        number: libc::SOL_ALG,
        names: &["SOL_ALG"],
        options: names![ALG_SET_KEY, ALG_SET_AEAD_AUTHSIZE, ALG_SET_DRBG_ENTROPY, ALG_SET_KEY_BY_KEY_SERIAL],
    },
    KnownLevel {
        number: libc::SOL_TLS,
        names: &["SOL_TLS"],
        options: names![TLS_TX, TLS_RX, TLS_TX_ZEROCOPY_RO, TLS_RX_EXPECT_NO_PAD],
    },
    KnownLevel {
        number: libc::SOL_XDP,
        names: &["SOL_XDP"],
        options: names![
            XDP_MMAP_OFFSETS,
            XDP_RX_RING,
            XDP_TX_RING,
            XDP_UMEM_REG,
            XDP_UMEM_FILL_RING,
            XDP_UMEM_COMPLETION_RING,
            XDP_STATISTICS,
            XDP_OPTIONS
        ],
    },
    KnownLevel {
        number: 284,
        names: &["SOL_MPTCP"],
        options: &[("MPTCP_INFO", 1), ("MPTCP_TCPINFO", 2), ("MPTCP_SUBFLOW_ADDRS", 3), ("MPTCP_FULL_INFO", 4)],
    },
];

/// The names of all levels.
pub fn level_names() -> impl Iterator<Item = &'static str> {
    LEVELS.iter().flat_map(|level| level.names).copied()
}

/// The names of all options, the same one for each level that has it.
pub fn option_names() -> impl Iterator<Item = &'static str> {
    LEVELS.iter().flat_map(|level| level.options).map(|(name, _)| *name)
}

/// The number of a level.
#[must_use]
pub fn level_number(name: &str) -> Option<i32> {
    LEVELS.iter().find(|level| level.names.contains(&name)).map(|level| level.number)
}

/// The name of a level.
#[must_use]
pub fn level_name(number: i32) -> Option<&'static str> {
    LEVELS.iter().find(|level| level.number == number).map(|level| level.names[0])
}

/// The levels that have an option of that name, each with its number there.
#[must_use]
pub fn levels_of(name: &str) -> Vec<(i32, i32)> {
    let options = LEVELS.iter().flat_map(|level| level.options.iter().map(|option| (level.number, option)));
    options.filter(|(_, (known, _))| *known == name).map(|(level, (_, number))| (level, *number)).collect()
}

/// The name of an option.
#[must_use]
pub fn option_name(level: i32, number: i32) -> Option<&'static str> {
    let level = LEVELS.iter().find(|known| known.number == level)?;
    level.options.iter().find(|(_, known)| *known == number).map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_name_has_one_number_at_a_level_and_a_level_one_entry() {
        let mut names = HashSet::new();
        for KnownLevel { number: level, names: level_names, options } in LEVELS {
            assert!(level_names.iter().all(|name| names.insert((0, *name))), "{level_names:?}");
            assert_eq!(LEVELS.iter().filter(|other| other.number == *level).count(), 1);
            for (name, number) in *options {
                assert!(names.insert((*level, *name)), "{name}");
                // What is printed is what is meant when it is read again.
                let printed = option_name(*level, *number).unwrap();
                assert!(levels_of(printed).contains(&(*level, *number)), "{name}");
            }
        }
    }

    #[test]
    fn numbers_are_those_of_the_kernel() {
        // One of each, from the kernel's headers.
        let table = [
            ("SO_REUSEADDR", 1, 2),
            ("IP_LOCAL_PORT_RANGE", 0, 51),
            ("IPV6_V6ONLY", 41, 26),
            ("TCP_CONGESTION", 6, 13),
            ("UDP_SEGMENT", 17, 103),
            ("ICMP6_FILTER", 58, 1),
            ("ICMP_FILTER", 255, 1),
            ("PACKET_FANOUT", 263, 18),
            ("NETLINK_LIST_MEMBERSHIPS", 270, 9),
            ("ALG_SET_KEY", 279, 1),
            ("TLS_TX", 282, 1),
            ("XDP_UMEM_REG", 283, 4),
            ("MPTCP_INFO", 284, 1),
        ];
        for (name, level, number) in table {
            assert_eq!(levels_of(name), [(level, number)], "{name}");
        }
        assert_eq!(levels_of("MCAST_JOIN_GROUP"), [(0, 42), (41, 42)]);
        assert_eq!(levels_of("SO_NONE"), []);
    }
}
