//! What is read of messages, compared with what others read: hickory-proto of DNS, rustls of TLS.

use std::{io, net::IpAddr, sync::Arc};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query as Asked, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, AAAA, CNAME, MX, NULL, TXT},
    },
};
use proptest::{collection::vec, prelude::*, sample::select};
use rustls::{ClientConfig, ClientConnection, RootCertStore, server::Acceptor};

use super::{
    ROOM,
    hello::{self, Beginning},
    message::{Answer, Learner, Query, addresses, answer, query},
    tests::{Slice, readable},
};
use crate::net::Address;

/// What a query asks for: id, name and type.
fn read_query(bytes: &[u8]) -> Option<(u16, String, u16)> {
    let (slice, mut text) = (Slice(bytes), [0xff; ROOM]);
    query(&slice, slice.size(), &mut text).map(|Query { id, kind, length }| (id, readable(&text, length), kind))
}

struct All(Vec<u128>);

impl Learner for All {
    fn learn(&mut self, address: Address) {
        self.0.push(address.to_bits());
    }
}

/// What an answer says: id, name and addresses.
fn read_answer(bytes: &[u8]) -> Option<(u16, String, Vec<u128>)> {
    let (slice, mut text) = (Slice(bytes), [0xff; ROOM]);
    let found: Answer = answer(&slice, slice.size(), &mut text)?;
    let mut all = All(Vec::new());
    addresses(&slice, &found, slice.size(), &mut all);
    Some((found.id, readable(&text, found.length), all.0))
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// A name as hickory-proto has it, if it is one of a host.
fn host(name: &Name) -> Option<String> {
    let is_host = |byte: &u8| byte.is_ascii_alphanumeric() || [b'-', b'_'].contains(byte);
    let labels: Vec<&[u8]> = name.iter().collect();
    if labels.is_empty() || !labels.iter().copied().flatten().all(is_host) {
        return None;
    }
    Some(
        labels.iter().map(|label| String::from_utf8(label.to_ascii_lowercase()).unwrap()).collect::<Vec<_>>().join("."),
    )
}

/// What hickory-proto makes of a query, if it is one for a host and nothing else.
fn expected_query(bytes: &[u8]) -> Option<(u16, String, u16)> {
    let message = Message::from_vec(bytes).ok()?;
    let [asked] = message.queries() else { return None };
    let records = message.answers().len() + message.name_servers().len() + message.additionals().len();
    let plain = message.message_type() == MessageType::Query && message.op_code() == OpCode::Query && records == 0;
    let internet = asked.query_class() == DNSClass::IN;
    if plain && internet { Some((message.id(), host(asked.name())?, asked.query_type().into())) } else { None }
}

/// What hickory-proto makes of an answer: `None` if it can't read it, `Some(None)` if it answers no question for a host.
#[allow(clippy::option_option)]
fn expected_answer(bytes: &[u8]) -> Option<Option<(u16, String, Vec<u128>)>> {
    let message = Message::from_vec(bytes).ok()?;
    let is_answer = message.message_type() == MessageType::Response && message.op_code() == OpCode::Query;
    // Of the outcome, an additional record can hold a part that is not in the header.
    let well = bytes[3].trailing_zeros() >= 4;
    let [asked] = message.queries() else { return Some(None) };
    let (true, true, DNSClass::IN, Some(name)) = (is_answer, well, asked.query_class(), host(asked.name())) else {
        return Some(None);
    };
    let addresses = message.answers().iter().filter(|record| record.dns_class() == DNSClass::IN);
    let addresses = addresses.filter_map(|record| match record.data() {
        RData::A(A(v4)) => Some(bits((*v4).into())),
        RData::AAAA(AAAA(v6)) => Some(bits((*v6).into())),
        _ => None,
    });
    Some(Some((message.id(), name, addresses.collect())))
}

fn name() -> impl Strategy<Value = Name> {
    let label = vec(select(b"abcXYZ019-_".as_slice()), 1..12);
    vec(label, 1..6).prop_map(|labels| Name::from_labels(labels).unwrap())
}

fn data() -> impl Strategy<Value = RData> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(|octets| RData::A(A(octets.into()))),
        any::<[u8; 16]>().prop_map(|octets| RData::AAAA(AAAA(octets.into()))),
        name().prop_map(|name| RData::CNAME(CNAME(name))),
        name().prop_map(|name| RData::MX(MX::new(10, name))),
        "[ -~]{0,300}".prop_map(|text| {
            RData::TXT(TXT::new(text.as_bytes().chunks(255).map(|c| String::from_utf8(c.to_vec()).unwrap()).collect()))
        }),
        vec(any::<u8>(), 1..40)
            .prop_map(|bytes| RData::Unknown { code: RecordType::Unknown(4711), rdata: NULL::with(bytes) }),
    ]
}

fn record() -> impl Strategy<Value = Record> {
    (name(), data(), any::<u32>(), prop_oneof![9 => Just(DNSClass::IN), 1 => Just(DNSClass::CH)]).prop_map(
        |(name, data, ttl, class)| {
            let mut record = Record::from_rdata(name, ttl >> 1, data);
            record.set_dns_class(class);
            record
        },
    )
}

fn question() -> impl Strategy<Value = Asked> {
    const KINDS: [RecordType; 5] =
        [RecordType::A, RecordType::AAAA, RecordType::HTTPS, RecordType::TXT, RecordType::Unknown(1234)];
    (name(), select(KINDS.as_slice())).prop_map(|(name, kind)| Asked::query(name, kind))
}

fn query_message() -> impl Strategy<Value = Vec<u8>> {
    (any::<u16>(), question(), any::<bool>()).prop_map(|(id, question, edns)| {
        let mut message = Message::new();
        message.set_id(id).set_recursion_desired(true).add_query(question);
        if edns {
            message.set_edns(Edns::new());
        }
        message.to_vec().unwrap()
    })
}

fn answer_message() -> impl Strategy<Value = Vec<u8>> {
    let sections = (vec(record(), 0..8), vec(record(), 0..2), vec(record(), 0..2));
    (any::<u16>(), question(), sections, any::<bool>()).prop_map(|(id, question, (answers, authority, more), edns)| {
        let mut message = Message::new();
        message.set_id(id).set_message_type(MessageType::Response).add_query(question);
        message.set_response_code(ResponseCode::NoError);
        message.insert_answers(answers);
        message.insert_name_servers(authority);
        message.insert_additionals(more);
        if edns {
            message.set_edns(Edns::new());
        }
        message.to_vec().unwrap()
    })
}

/// What happens to a message on its way: bytes change, some are inserted or left out, and the end is cut off.
#[derive(Clone, Debug)]
enum Change {
    Set(usize, u8),
    Flip(usize, u8),
    Insert(usize, u8),
    Remove(usize),
    Cut(usize),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let place = || prop_oneof![0_usize..32, 0_usize..600];
    let change = prop_oneof![
        (place(), prop_oneof![any::<u8>(), select([0, 1, 3, 63, 64, 0xc0, 0xc0, 12, b'.'].as_slice())])
            .prop_map(|(place, byte)| Change::Set(place, byte)),
        (place(), 0_u8..8).prop_map(|(place, bit)| Change::Flip(place, bit)),
        (place(), any::<u8>()).prop_map(|(place, byte)| Change::Insert(place, byte)),
        place().prop_map(Change::Remove),
        place().prop_map(Change::Cut),
    ];
    vec(change, 0..4)
}

fn changed(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes {
        let length = bytes.len().max(1);
        match *change {
            Change::Set(place, byte) => bytes.iter_mut().skip(place % length).take(1).for_each(|old| *old = byte),
            Change::Flip(place, bit) => bytes.iter_mut().skip(place % length).take(1).for_each(|old| *old ^= 1 << bit),
            Change::Insert(place, byte) => bytes.insert(place % length.min(bytes.len() + 1), byte),
            Change::Remove(place) if !bytes.is_empty() => drop(bytes.remove(place % length)),
            Change::Remove(_) => {}
            Change::Cut(place) => bytes.truncate(place),
        }
    }
    bytes
}

/// A query without what it says of its sender.
fn without_edns(bytes: &[u8]) -> Vec<u8> {
    let name = bytes[12..].iter().scan(0, |left, byte| {
        let ends = *left == 0 && *byte == 0;
        *left = if *left == 0 { *byte } else { *left - 1 };
        Some(ends)
    });
    let end = 12 + name.take_while(|ends| !ends).count() + 5;
    let mut bytes = bytes[..end].to_vec();
    bytes[10..12].fill(0);
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn queries_are_read_as_they_are_written(bytes in query_message()) {
        let expected = expected_query(&bytes);
        prop_assert!(expected.is_some());
        prop_assert_eq!(read_query(&bytes), expected);
        prop_assert_eq!(read_answer(&bytes), None);
    }

    #[test]
    fn a_query_that_is_let_through_is_one_for_all(bytes in query_message(), changes in changes()) {
        let bytes = changed(bytes, &changes);
        if let Some(found) = read_query(&bytes) {
            // What a sender understands is not looked at by what is let through, and may make no sense.
            prop_assert_eq!(expected_query(&without_edns(&bytes)), Some(found));
        }
    }

    #[test]
    fn answers_are_read_as_they_are_written(bytes in answer_message()) {
        let expected = expected_answer(&bytes).unwrap();
        prop_assert!(expected.is_some());
        prop_assert_eq!(read_answer(&bytes), expected);
        prop_assert_eq!(read_query(&bytes), None);
    }

    #[test]
    fn what_is_learnt_is_what_others_read(bytes in answer_message(), changes in changes()) {
        let bytes = changed(bytes, &changes);
        let found = read_answer(&bytes);
        if let Some(expected) = expected_answer(&bytes) {
            let compressed = bytes.get(12).is_some_and(|_| found.is_none()) && expected.is_some();
            // A question with a compressed name is none for us: there is nothing before it that it could refer to.
            prop_assert!(found == expected || compressed && names_elsewhere(&bytes), "{found:?} {expected:?}");
        }
    }

    #[test]
    fn any_bytes_can_be_read(bytes in vec(any::<u8>(), 0..700)) {
        read_query(&bytes);
        read_answer(&bytes);
        read_hello(&bytes);
    }

    #[test]
    fn names_of_servers_are_read_as_they_are_written(name in "[a-zA-Z0-9]([a-z0-9-]{0,20}[a-z0-9])?(\\.[a-z]{1,9}){0,4}\\.[a-z]{2,6}",
                                                     protocols in vec(vec(any::<u8>(), 1..40), 0..20)) {
        let bytes = client_hello(&name, protocols);
        prop_assert_eq!(read_hello(&bytes), Some(name.to_lowercase()));
        prop_assert_eq!(expected_hello(&bytes), Some(Some(name.to_lowercase())));
    }

    #[test]
    fn the_name_that_is_let_through_is_the_one_that_a_server_reads(
        name in "[a-z]{1,9}\\.[a-z]{2,6}", changes in changes(), more in vec(any::<u8>(), 0..9),
    ) {
        let mut bytes = changed(client_hello(&name, Vec::new()), &changes);
        bytes.extend(more);
        if let (Some(found), Some(expected)) = (read_hello(&bytes), expected_hello(&bytes)) {
            prop_assert_eq!(Some(found), expected);
        }
    }
}

/// Whether the name of a question refers to another place.
fn names_elsewhere(bytes: &[u8]) -> bool {
    let mut place = 12;
    while let Some(length) = bytes.get(place) {
        match length {
            0 => return false,
            0xc0.. => return true,
            length => place += usize::from(*length) + 1,
        }
    }
    false
}

fn client_hello(name: &str, protocols: Vec<Vec<u8>>) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    config.alpn_protocols = protocols;
    let mut connection = ClientConnection::new(Arc::new(config), name.to_owned().try_into().unwrap()).unwrap();
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).unwrap();
    bytes
}

fn read_hello(bytes: &[u8]) -> Option<String> {
    let mut text = [0xff; ROOM];
    hello::server_name(&Slice(bytes), &mut text).map(|length| readable(&text, length))
}

#[test]
fn what_is_cut_off_may_still_become_a_hello() {
    let (whole, mut text) = (client_hello("api.example.org", Vec::new()), [0; ROOM]);
    let mut beginning = |bytes: &[u8]| {
        let slice = Slice(bytes);
        hello::beginning(&slice, slice.size(), &mut text)
    };
    assert_eq!(beginning(&whole), Beginning::Named(15));
    // As soon as the name is there, it is read; of what is shorter, more may come. It may be the last of all extensions.
    let named = (0..=whole.len()).find(|end| beginning(&whole[..*end]) == Beginning::Named(15)).unwrap();
    for end in 0..whole.len() {
        let expected = if end < named { Beginning::Short } else { Beginning::Named(15) };
        assert_eq!(beginning(&whole[..end]), expected, "{end}");
    }
    let mut other = whole.clone();
    other[5] = 2;
    for bytes in [other.as_slice(), b"GET / HTTP/1.1\r\n\r\n", &[22, 3, 1, 0xff, 0xff, 1, 0, 0]] {
        assert_eq!(beginning(bytes), Beginning::Other);
    }
}

/// The name that rustls reads: `None` if it can't read the whole message, `Some(None)` if it has no name.
#[allow(clippy::option_option)]
fn expected_hello(bytes: &[u8]) -> Option<Option<String>> {
    let mut acceptor = Acceptor::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        match acceptor.read_tls(&mut rest) {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
    let accepted: io::Result<_> = acceptor.accept().map_err(|(error, _)| io::Error::other(error));
    let accepted = accepted.ok()??;
    Some(accepted.client_hello().server_name().map(str::to_lowercase))
}
