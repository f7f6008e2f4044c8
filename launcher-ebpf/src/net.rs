//! Network hooks: addresses and ports.

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, bpf_sock},
    helpers::bpf_map_lookup_elem,
    macros::map,
    maps::{Array, HashMap, LpmTrie},
    programs::SockAddrContext,
};
use common::{
    RuleSet,
    net::{self, Address, Lookup, Op, PortInterval, Protocol, Request, Table},
    record::{Hook, Key, NetSubject, Tally},
};

use crate::{
    record,
    rodata::{filled, judged},
};

/// The network section's rules but for hosts and ports.
#[unsafe(no_mangle)]
pub static NET_TABLE: Table = Table::DENY_ALL;

/// Prefixes, and the rules whose hosts include them. The launcher sets the size.
///
/// The launcher freezes the maps that hold policy. They aren't BPF_F_RDONLY_PROG: reading at a constant offset from an
/// array of several elements that is both makes the verifier fail with ENOTSUPP (`array_map_direct_value_addr`).
#[map]
static NET_HOSTS: LpmTrie<Address, RuleSet> = LpmTrie::with_max_entries(1, BPF_F_NO_PREALLOC);

/// The intervals of ports, one after the other. The launcher sets the size of the one element.
#[map]
static NET_PORTS: Array<PortInterval> = Array::with_max_entries(1, 0);

/// Denials by identity.
#[map]
static NET_TALLIES: HashMap<Key<NetSubject>, Tally> = HashMap::with_max_entries(4096, BPF_F_NO_PREALLOC);

/// The lookups of the network section in kernel maps.
pub struct KernelTables;

impl Lookup for KernelTables {
    #[inline(always)]
    fn by_host(&self, address: &Address) -> Option<&RuleSet> {
        // aya's key type is packed, which costs a store for each of its bytes; this one has the same layout.
        #[repr(C)]
        struct PrefixKey {
            length: u32,
            address: Address,
        }
        let key = PrefixKey { length: 128, address: *address };
        // SAFETY: a map's static is its address for the kernel, the key has the size that the map was declared with,
        // and what is found is a value of the map, which no program writes to.
        unsafe {
            let map = (&raw const NET_HOSTS).cast_mut().cast();
            bpf_map_lookup_elem(map, (&raw const key).cast()).cast::<RuleSet>().as_ref()
        }
    }

    #[inline(always)]
    fn by_port(&self, table: &Table, port: u16) -> Option<&RuleSet> {
        let intervals = NET_PORTS.get_ptr(0)?;
        // SAFETY: the launcher makes the element as large as the table says; the verifier holds each index to that.
        unsafe {
            let found = table.find_interval(port, |index| (*intervals.add(index as usize)).first);
            Some(&(*intervals.add(found as usize)).rules)
        }
    }
}

/// connect(2) to an IPv4 address.
///
/// Like every address hook, this ignores `user_family`: a program that checks it can be walked round with AF_UNSPEC.
#[inline(always)]
pub fn connect4(ctx: &SockAddrContext) -> i32 {
    // SAFETY: the verifier checks each access to the context.
    let (address, bound) = unsafe { ((*ctx.sock_addr).user_ip4, socket(ctx).map_or(0, |sock| (*sock).src_ip4)) };
    judge(ctx, Hook::Connect4, Address::v4(address), Address::v4(bound))
}

/// connect(2) to an IPv6 address, mapped ones included.
#[inline(always)]
pub fn connect6(ctx: &SockAddrContext) -> i32 {
    // SAFETY: as above. Volatile, since the context allows no access wider than a word.
    let (address, bound) = unsafe {
        let address = (&raw const (*ctx.sock_addr).user_ip6).cast::<u32>();
        let bound = socket(ctx).map_or([0; 4], |sock| {
            let source = (&raw const (*sock).src_ip6).cast::<u32>();
            core::array::from_fn(|i| source.add(i).read_volatile())
        });
        (core::array::from_fn(|i| address.add(i).read_volatile()), bound)
    };
    judge(ctx, Hook::Connect6, Address::v6(address), Address::v6(bound))
}

#[inline(always)]
fn judge(ctx: &SockAddrContext, hook: Hook, destination: Address, bound: Address) -> i32 {
    let address = net::effective_destination(destination, bound);
    // SAFETY: the verifier checks each access to the context.
    let (port, protocol) = unsafe { ((*ctx.sock_addr).user_port, (*ctx.sock_addr).protocol) };
    // The low 16 bits of user_port are the port in network byte order (include/uapi/linux/bpf.h).
    let port = u16::from_be(port as u16);
    let request = Request { op: Op::Connect, protocol: Protocol::from_ipproto(protocol), address, port };
    let Some(decision) = judged(|| net::decide(filled(&NET_TABLE), &KernelTables, &request)) else {
        return record::deny_unjudged(hook);
    };
    record::conclude(hook, decision, &NET_TALLIES, ctx, || {
        let subject = NetSubject { address, port, op: request.op as u8, padding: 0, protocol };
        record::key(hook, decision, ctx, subject)
    })
}

/// The socket of an address hook, if the kernel says which.
#[inline(always)]
fn socket(ctx: &SockAddrContext) -> Option<*const bpf_sock> {
    // SAFETY: the verifier checks the access; the union has the one member that matters here.
    let sock = unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk };
    (!sock.is_null()).then_some(sock.cast_const())
}
