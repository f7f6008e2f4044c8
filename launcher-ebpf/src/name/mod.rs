//! Host names: what the sandbox asks nameservers, and what it is answered.
//!
//! - A socket that is connected to a nameserver, or sends to one, is marked ([`asks`]): what a program asks for tells that for certain, while a
//!   packet's destination may have been changed (NAT).
//! - What leaves a marked socket must be one query for a name that a rule has ([`query`]); by TCP ([`stream`]), each packet has whole ones.
//! - Of the answer, the addresses are learnt, before the program gets it ([`answer`]). From then on they count like addresses of the rules that
//!   have the name.
//!
//! - A connection that only rules with `"tls"` allow says by TLS first of all which server it is for, or it sends nothing ([`tls`]).
//!
//! Nobody inside can forge an answer: nothing leaves a socket from the address and port of a nameserver.

pub mod answer;
mod bytes;
pub mod query;
mod stream;
pub mod tls;

use core::{mem::offset_of, ptr};

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, BPF_SK_STORAGE_GET_F_CREATE, bpf_sock},
    helpers::{
        bpf_map_lookup_elem,
        generated::{bpf_sk_fullsock, bpf_sk_storage_get},
    },
    macros::map,
    maps::{HashMap, LpmTrie},
    programs::SkBuffContext,
};
use common::{
    Decision, RuleSet,
    decision::UNSEEN_COPY,
    name::{Asked, Held, PORT, Table, Text, state},
    net::{Address, Op, Protocol},
    record::{Key, NameSubject, NetSubject, Tally},
    socket::{self, protocol},
};

use crate::{
    net::{NET_TABLE, NET_TALLIES, protocol_of, words},
    own::{self, SocketStorage},
    record::{Current, Ledger},
    rodata::{audit, filled},
    verifier::{is, opaque},
};

/// What the policy says of names, but for these.
#[unsafe(no_mangle)]
pub static NAME_TABLE: Table = Table::NOTHING;

/// Names, back to front, and the rules that have them. The launcher sets the size, also that of the keys.
#[map]
static NAMES: LpmTrie<Text, RuleSet> = LpmTrie::with_max_entries(1, BPF_F_NO_PREALLOC);

/// The addresses that answers had for names, and the rules that have these.
#[map]
static NAME_LEARNED: HashMap<Address, [u64; 4]> = HashMap::with_max_entries(16384, BPF_F_NO_PREALLOC);

/// Refused queries by identity.
#[map]
static NAME_TALLIES: HashMap<Key<NameSubject>, Tally> = HashMap::with_max_entries(4096, BPF_F_NO_PREALLOC);

/// What each socket has asked that may ask.
#[map]
static ASKED: SocketStorage = SocketStorage::of::<Asked>(0);

/// What there is to know of each TCP socket of which what it sends is looked at.
#[map]
static HELD: SocketStorage = SocketStorage::of::<Held>(0);

/// Makes a socket's value in a map, of zeros, if there is none. (The other flag is 0.)
const CREATE: u64 = BPF_SK_STORAGE_GET_F_CREATE as u64;

/// What a UDP socket has asked, if it may ask.
///
/// # Safety
///
/// The verifier must know the socket.
#[inline(always)]
unsafe fn asked(socket: *mut bpf_sock, flags: u64) -> Option<&'static mut Asked> {
    // SAFETY: a map's static is its address for the kernel; the value lives as long as its socket, and zeros, of which the kernel makes
    // it, are a valid one. Threads that send at the same time can lose each other's queries in it, of which the answers are not learnt then.
    unsafe { bpf_sk_storage_get(ASKED.0.get().cast(), socket.cast(), ptr::null_mut(), flags).cast::<Asked>().as_mut() }
}

/// What there is to know of a TCP socket of which what it sends is looked at.
///
/// # Safety
///
/// The verifier must know the socket.
#[inline(always)]
unsafe fn held(socket: *mut bpf_sock, flags: u64) -> Option<&'static mut Held> {
    // SAFETY: as above. Anybody who changes it, but for the numbers of queries, has the socket's lock.
    unsafe { bpf_sk_storage_get(HELD.0.get().cast(), socket.cast(), ptr::null_mut(), flags).cast::<Held>().as_mut() }
}

/// Whether a TCP socket is connected to a nameserver. Which one that is can't change under way.
///
/// # Safety
///
/// The verifier must know the socket.
#[inline(always)]
unsafe fn is_to_nameserver(socket: *mut bpf_sock) -> bool {
    // SAFETY: the caller's promise.
    unsafe { (*socket).dst_port == PORT.to_be() && is_nameserver(peer(socket)) != 0 }
}

/// The address that a socket is connected to.
///
/// # Safety
///
/// The verifier must know the socket.
#[inline(always)]
unsafe fn peer(socket: *mut bpf_sock) -> Address {
    // SAFETY: the caller's promise.
    unsafe {
        let v6 = Address::v6(words(&raw const (*socket).dst_ip6));
        v6.or_v4((*socket).dst_ip4, is((*socket).family, socket::INET))
    }
}

/// connect(2) to a nameserver, or a datagram to one: `None` if that is none, or judged like any other peer; else what the hook returns.
///
/// This question comes before the rules on addresses: one that allows all of loopback does not mean a nameserver there.
#[inline(always)]
pub fn asks(ledger: Ledger, key: &mut Key<NetSubject>, op: Op, socket: Option<*const bpf_sock>) -> Option<i32> {
    let NetSubject { address, port, protocol: number, .. } = key.subject;
    if op == Op::BIND || port != PORT || is_nameserver(address) == 0 {
        return None;
    }
    if u32::from(number) != protocol::UDP && protocol_of(number.into()) != Protocol::TCP {
        return None;
    }
    let Some(socket) = socket.map(<*const bpf_sock>::cast_mut) else { return Some(ledger.deny_unjudged()) };
    if u32::from(number) == protocol::UDP {
        // SAFETY: the verifier knows the socket.
        let Some(asked) = (unsafe { asked(socket, CREATE) }) else { return Some(ledger.deny_unjudged()) };
        // A nameserver is a peer, too: with another one, the kernel may put together the address of one and the port of the other.
        // SAFETY: as above.
        let refused = filled(&NET_TABLE).tells_peers_apart()
            && unsafe { own::note_peer(socket.cast(), op, address, port, 0) } != 0;
        if refused {
            if audit() != 0 {
                asked.asks = 1;
            }
            return Some(ledger.conclude(Decision::fail_closed(UNSEEN_COPY), &NET_TALLIES, key, |_| Current));
        }
        // It says that the socket may ask, not that it has asked. It is never cleared: another thread's query may be on its way.
        asked.asks = 1;
    } else {
        // Whom the socket really is connected to is looked at with each packet: this connect(2) may fail.
        // SAFETY: as above; the kernel calls this with the socket locked.
        let Some(held) = (unsafe { held(socket, CREATE) }) else { return Some(ledger.deny_unjudged()) };
        (held.state, held.seen, held.answered) = (state::ASKS, 0, 0);
    }
    Some(ledger.conclude(Decision::NOT_CONCERNED, &NET_TALLIES, key, |_| Current))
}

/// All ones if a nameserver has this address, else 0. Known from then on: the compiler would keep what it is put together of, for which
/// there is no memory.
#[inline(always)]
fn is_nameserver(address: Address) -> u32 {
    opaque(filled(&NAME_TABLE).is_nameserver(address, is).into()) as u32
}

/// The rules with names that have this address.
#[inline(always)]
pub fn rules_of_address(address: &Address) -> Option<&'static RuleSet> {
    // SAFETY: a map's static is its address for the kernel, the key has the size that the map was declared with, and nothing is
    // deleted while a program may run. Bits are only ever added.
    unsafe {
        let map = (&raw const NAME_LEARNED).cast_mut().cast();
        bpf_map_lookup_elem(map, (&raw const *address).cast()).cast::<RuleSet>().as_ref()
    }
}

/// The socket of a packet, if it is a whole one.
#[inline(always)]
fn socket(ctx: &SkBuffContext) -> Option<*mut bpf_sock> {
    // SAFETY: the verifier checks each access to the context and to what it finds there.
    unsafe {
        let socket = (*ctx.skb.skb).__bindgen_anon_2.sk;
        if socket.is_null() {
            return None;
        }
        let socket = bpf_sk_fullsock(socket);
        (!socket.is_null()).then_some(socket)
    }
}

/// A name as the key of [`NAMES`].
#[repr(C)]
struct NameKey {
    /// How many bits of it are looked at.
    bits: u32,
    text: Text,
}

/// The rules that have the name of a record. The process in it is overwritten.
#[inline(always)]
fn rules_of_name(key: &mut Key<NameSubject>) -> Option<&'static RuleSet> {
    // What precedes the name is the process, which isn't known yet: it makes room for the number of bits.
    const PLACE: usize = offset_of!(Key<NameSubject>, pid);
    const { assert!(PLACE + offset_of!(NameKey, text) == offset_of!(Key<NameSubject>, subject.text)) };
    key.pid = filled(&NAME_TABLE).bits;
    // SAFETY: these are the parts of such a key, one behind the other.
    unsafe { rules_of((&raw const *key).byte_add(PLACE).cast()) }
}

/// The rules that have a name.
///
/// # Safety
///
/// There must be a name.
#[inline(always)]
unsafe fn rules_of(key: *const NameKey) -> Option<&'static RuleSet> {
    // SAFETY: a map's static is its address for the kernel; the keys that the launcher makes are no longer than this one; and what is
    // found is a value of the map, which the launcher has frozen.
    unsafe { bpf_map_lookup_elem((&raw const NAMES).cast_mut().cast(), key.cast()).cast::<RuleSet>().as_ref() }
}
