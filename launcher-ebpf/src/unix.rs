//! Unix sockets, by the address as it is spelled: the hooks of connect(2) and of sending a datagram to an address. (By
//! the peer itself: [`peer`].)
//!
//! The context of these hooks has no field for the address. It really is a `struct bpf_sock_addr_kern`, though, from which
//! `bpf_probe_read_kernel` reads it; where its fields are, the launcher says ([`UNIX_ADDRESS`]).

pub mod peer;

use aya_ebpf::{
    EbpfContext as _,
    bindings::BPF_F_NO_PREALLOC,
    helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_kernel_str},
    macros::map,
    maps::{Array, HashMap},
    programs::SockAddrContext,
};
use common::{
    Decision,
    decision::NAME_UNKNOWN,
    glob::{Node, State},
    record::{Hook, Key, Tally, UnixSubject},
    unix::{self, AddressLayout, Kind, Lookup, NAME_LEN, Name, Op, Peer, Table},
};

use crate::{
    record::{Current, Draft, Ledger},
    rodata::{filled, judged},
    verifier::opaque,
};

/// The unix section but for its names.
#[unsafe(no_mangle)]
pub static UNIX_TABLE: Table = Table::DENY_ALL;

/// Where the address is.
#[unsafe(no_mangle)]
pub static UNIX_ADDRESS: AddressLayout = AddressLayout::USUAL;

/// The automaton that recognises names: all its states, one after the other. The launcher sets the size of the one
/// element.
#[map]
static UNIX_STATES: Array<Node> = Array::with_max_entries(1, 0);

/// Denials by identity.
#[map]
pub(crate) static UNIX_TALLIES: HashMap<Key<UnixSubject>, Tally> = HashMap::with_max_entries(4096, BPF_F_NO_PREALLOC);

/// The lookups of the unix section in kernel maps.
struct KernelTables {
    states: *const Node,
    state_mask: u32,
}

impl Lookup for KernelTables {
    #[inline(always)]
    fn node(&self, number: State) -> &Node {
        // SAFETY: the launcher makes the element as large as the mask says, and the verifier holds the number to that.
        unsafe { &*self.states.add((u32::from(number) & self.state_mask) as usize) }
    }

    #[inline(always)]
    fn next(&self, number: State, byte: u32) -> State {
        // The compiler knows that it is a byte and would leave out the mask; the verifier of Linux 6.1 needs it.
        self.node(number).next[opaque(u64::from(byte)) as usize & 0xff]
    }
}

/// Judges a peer with the tables in kernel maps. `None` can't happen with complete tables.
#[inline(always)]
pub fn decide(peer: &Peer) -> Option<Decision> {
    let table = filled(&UNIX_TABLE);
    // A policy that doesn't look at names has no states, and never looks at them.
    let states = if table.steps != 0 { UNIX_STATES.get_ptr(0)? } else { core::ptr::null() };
    Some(unix::decide(table, &KernelTables { states, state_mask: table.state_mask }, peer))
}

/// The key of a denial, to be filled in: it is too large to be moved about on the stack. Nothing that is not known yet
/// is a path.
#[inline(always)]
pub(crate) fn blank(hook: Hook, op: Op) -> Draft<UnixSubject> {
    let subject = UnixSubject { op: op as u32, kind: Kind::PATH.index() as u16, length: 0, name: [0; NAME_LEN] };
    Draft::new(hook, subject)
}

/// Judges a peer, unless launcher and programs don't belong together.
#[inline(always)]
pub(crate) fn decide_on(kind: Kind, length: u32, name: &Name, own: u32) -> Option<Decision> {
    judged(|| decide(&Peer { kind, length, name, own }))
}

/// connect(2) to an address.
#[inline(always)]
pub fn connect(ctx: &SockAddrContext) -> i32 {
    judge(ctx, Hook::ConnectUnix, Op::Connect)
}

/// Sending a datagram to an address.
#[inline(always)]
pub fn sendmsg(ctx: &SockAddrContext) -> i32 {
    judge(ctx, Hook::SendmsgUnix, Op::Send)
}

#[inline(always)]
fn judge(ctx: &SockAddrContext, hook: Hook, op: Op) -> i32 {
    let Some(ledger) = Ledger::of(hook) else { return 0 };
    let mut draft = blank(hook, op);
    let key = draft.key();
    // What has one verdict whatever it is need not be looked at unless it is denied.
    let by_kind = filled(&UNIX_TABLE).by_kind != 0;
    let decision = if !by_kind {
        decide_on(Kind::PATH, 0, &key.subject.name, 0)
    } else if read_address(ctx, &mut key.subject) {
        let UnixSubject { kind, length, name, .. } = &key.subject;
        decide_on(Kind::from_number(u32::from(*kind)), u32::from(*length), name, 0)
    } else {
        Some(Decision::fail_closed(NAME_UNKNOWN))
    };
    let Some(decision) = decision else {
        return ledger.deny_unjudged();
    };
    ledger.conclude(decision, &UNIX_TALLIES, key, |subject| {
        if !by_kind {
            read_address(ctx, subject);
        }
        Current
    })
}

/// `AF_UNIX`, include/linux/socket.h
const AF_UNIX: u16 = 1;

/// Where the path is in a `struct sockaddr_un` (include/uapi/linux/un.h), and how long it can be.
pub(crate) const SUN_PATH: usize = 2;
const UNIX_PATH_MAX: u32 = 108;

/// How many bytes of an address are its name, from the address's length. None where that is no length of an address with a
/// name.
#[inline(always)]
pub(crate) fn name_length(address_length: u32) -> Option<u32> {
    let length = address_length.wrapping_sub(SUN_PATH as u32);
    if length > UNIX_PATH_MAX {
        return None;
    }
    // The compiler would make one comparison of these two, after which Linux 6.12's verifier knows no bounds.
    let length = opaque(u64::from(length)) as u32;
    (length != 0).then_some(length)
}

/// Reads the address that a hook is asked about. False if it can't be found where it should be.
#[inline(always)]
fn read_address(ctx: &SockAddrContext, subject: &mut UnixSubject) -> bool {
    let layout = filled(&UNIX_ADDRESS);
    let context: *const u8 = ctx.as_ptr().cast_const().cast();
    let (mut address, mut length, mut head) = (0_u64, 0_u32, [0_u8; 4]);
    // SAFETY: bpf_probe_read_kernel writes no more than is said to where it is told, and reads from anywhere: what can't
    // be read is an error. The verifier knows that a name and a NUL fit.
    unsafe {
        let read = |to: *mut u8, size, from| bpf_probe_read_kernel(to.cast(), size, from) == 0;
        // One check of all three: for each, the verifier would follow what comes after it once more.
        let found = read((&raw mut address).cast(), 8, context.add(layout.address as usize).cast())
            & read((&raw mut length).cast(), 4, context.add(layout.length as usize).cast())
            & read(head.as_mut_ptr(), 4, address as *const _);
        if !found || u16::from_ne_bytes([head[0], head[1]]) != AF_UNIX {
            return false;
        }
        let Some(length) = name_length(length) else { return false };
        let (name, path) = (subject.name.as_mut_ptr(), (address as usize + SUN_PATH) as *const _);
        if head[SUN_PATH] == 0 {
            subject.kind = Kind::ABSTRACT.index() as u16;
            subject.length = length as u16;
            let copied = read(name, length, path);
            *name = b'@';
            return copied;
        }
        // To the NUL that ends a path, or to the address's end: what is behind is the caller's waste.
        let copied = bpf_probe_read_kernel_str(name.cast(), length + 1, path);
        subject.kind = Kind::PATH.index() as u16;
        subject.length = (copied - 1).cast_unsigned() as u16;
        copied > 0
    }
}
