//! Connections that only rules with `"tls"` allow: other servers may have the same address.
//!
//! - connect(2) notes with the socket which rules allow it, if only such do ([`hold`]).
//! - The first bytes that leave it are a ClientHello with a name that one of these rules has, or nothing does ([`judge`]). What is dropped
//!   counts as not sent, so that the kernel tries again, with what the program has added meanwhile.
//! - Until then, the kernel gives up soon ([`happened`]).

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_RTO_CB, BPF_SOCK_OPS_RTO_CB_FLAG,
        BPF_SOCK_OPS_RTT_CB, BPF_SOCK_OPS_RTT_CB_FLAG, bpf_sock, bpf_sock_ops,
    },
    helpers::generated::{bpf_getsockopt, bpf_probe_read_kernel, bpf_setsockopt, bpf_sock_ops_cb_flags_set},
    programs::{SkBuffContext, SockOpsContext},
};
use common::{
    decision::{NO_SERVER_NAME, OTHER_SERVER},
    name::{
        Held, PacketLayout,
        hello::{Beginning, beginning},
        state,
    },
    net::{self, Lookup, Op, Request},
    record::Hook,
    socket::protocol,
};

use super::{
    CREATE, NAME_TABLE,
    bytes::Payload,
    held,
    query::{NONE, deny},
    rules_of_name, socket,
};
use crate::{
    net::NET_TABLE,
    packet::plain::{self, Ends, Segment, flag},
    rodata::filled,
};

/// Where the kernel says of a packet whose memory it is in.
#[unsafe(no_mangle)]
pub static NAME_PACKET: PacketLayout = PacketLayout::UNKNOWN;

/// For how many milliseconds the kernel tries to send what is dropped.
const PATIENCE: u32 = 500;

/// `SOL_TCP` (include/linux/socket.h) and an option of it (include/uapi/linux/tcp.h).
const SOL_TCP: i32 = 6;
const TCP_USER_TIMEOUT: i32 = 18;

/// Notes with a socket which rules allow a request of it, if only rules on TLS do; and that it may send anything, if others do. False if
/// that can't be noted.
#[inline(always)]
pub fn hold(socket: Option<*const bpf_sock>, lookup: &impl Lookup, request: &Request, allowed: bool) -> bool {
    let table = filled(&NAME_TABLE);
    if !table.asks_for_tls() || request.op == Op::BIND {
        return true;
    }
    let Some(socket) = socket.map(<*const bpf_sock>::cast_mut) else { return false };
    let only = if allowed { net::allowed_only_by(filled(&NET_TABLE), lookup, request, &table.tls) } else { None };
    // This connect(2) may fail. Then the socket has no connection, and the next connect(2) is noted anew.
    // SAFETY: the verifier knows the socket, which the kernel has locked. Nothing of an earlier connection of it is still to be sent.
    unsafe {
        let Some(rules) = only else {
            if let Some(held) = held(socket, 0) {
                held.state = state::OPEN;
            }
            return true;
        };
        let Some(held) = held(socket, CREATE) else { return false };
        (held.rules, held.begun, held.seen, held.state) = (rules, 0, 0, state::WAITING);
    }
    true
}

/// Whether a TCP socket has not said yet which server its connection is for, and must.
///
/// # Safety
///
/// The verifier must know the socket.
#[inline(always)]
pub unsafe fn is_held(socket: *mut bpf_sock) -> bool {
    // SAFETY: the caller's promise.
    filled(&NAME_TABLE).asks_for_tls() && unsafe { held(socket, 0) }.is_some_and(|held| held.state != state::OPEN)
}

/// A packet of a socket that is held. As [`super::query::judge`] has it.
#[inline(never)]
pub fn judge(skb: *mut __sk_buff) -> i32 {
    let ctx = &SkBuffContext::new(skb);
    // SAFETY: the verifier knows the socket, which the kernel has locked.
    let Some(held) = socket(ctx).and_then(|socket| unsafe { held(socket, 0) }) else { return 0 };
    let Some(Ends { header, flags, .. }) = plain::ends(ctx, protocol::TCP, true) else { return 0 };
    let Segment { start, size, sequence, urgent } = plain::segment(ctx, header, flags);
    if flags & flag::SYN != 0 {
        (held.first, held.begun) = (sequence, 1);
    }
    if size == 0 {
        return NONE;
    }
    if held.state != state::WAITING {
        // The kernel tries again. It is said once.
        return 0;
    }
    held.key.pid = 0;
    held.key.rule = NO_SERVER_NAME;
    if held.begun != 0 && held.first == sequence && urgent == 0 && !may_change(skb) {
        let before = held.seen;
        match read(skb, held, start, size) {
            Found::ALLOWED => {
                held.state = state::OPEN;
                return NONE;
            }
            // The rest may come, unless this is what there was before.
            Found::SHORT if size > before => {
                held.seen = size;
                return 0;
            }
            _ => {}
        }
    }
    held.key.hook = Hook::Egress as u8;
    (held.key.subject.kind, held.key.subject.connects) = (0, 1);
    if deny(skb, &mut held.key) == 0 {
        held.state = state::REFUSED;
        return 0;
    }
    held.state = state::OPEN;
    NONE
}

/// What was found of a beginning.
struct Found;

impl Found {
    const ALLOWED: u32 = 0;
    const SHORT: u32 = 1;
    const OTHER: u32 = 2;
}

/// Reads what a connection begins with, one of [`Found`]. Of a name that is not allowed, the record says its length and the reason.
#[inline(never)]
fn read(skb: *mut __sk_buff, held: &mut Held, start: u32, size: u32) -> u32 {
    let ctx = &SkBuffContext::new(skb);
    let (payload, _) = Payload::at(ctx, start);
    match beginning(&payload, size, &mut held.key.subject.text) {
        Beginning::Named(length) => {
            let rules = rules_of_name(&mut held.key);
            let both = |index: usize| rules.map_or(0, |rules| rules.word(index)) & held.rules[index];
            if both(0) | both(1) | both(2) | both(3) != 0 {
                return Found::ALLOWED;
            }
            (held.key.rule, held.key.pid) = (OTHER_SERVER, length);
            Found::OTHER
        }
        Beginning::Short => Found::SHORT,
        Beginning::Other => Found::OTHER,
    }
}

/// Whether a packet is in memory that a program can still change (`SKBFL_*`, include/linux/skbuff.h): its own, or a file's.
#[inline(never)]
pub fn may_change(skb: *mut __sk_buff) -> bool {
    const SHARED: u8 = 0x1f;
    let PacketLayout { head, end, flags, .. } = *filled(&NAME_PACKET);
    let (mut start, mut offset, mut shared) = (0_u64, 0_u32, u8::MAX);
    let at = |place: u64, offset: u32| place.wrapping_add(offset.into()) as *const c_void;
    // SAFETY: what a program of this kind is given is the packet itself. Each writes as many bytes as there are, and reads from
    // anywhere; on failure it writes zeros, and says so.
    let failed = unsafe {
        bpf_probe_read_kernel((&raw mut start).cast(), 8, at(skb as u64, head))
            | bpf_probe_read_kernel((&raw mut offset).cast(), 4, at(skb as u64, end))
            | bpf_probe_read_kernel((&raw mut shared).cast(), 1, at(start.wrapping_add(offset.into()), flags))
    };
    failed != 0 || shared & SHARED != 0
}

/// Something has happened to a TCP socket: it is connected, something of it was acknowledged, or wasn't for too long.
#[inline(always)]
pub fn happened(ctx: &SockOpsContext) {
    const CALLBACKS: u32 = BPF_SOCK_OPS_RTT_CB_FLAG | BPF_SOCK_OPS_RTO_CB_FLAG;
    let ops = ctx.ops;
    // SAFETY: the verifier checks each access to the context, which is volatile, since it allows none wider than a field.
    let (op, socket) =
        unsafe { ((&raw const (*ops).op).read_volatile(), (&raw const (*ops).__bindgen_anon_2.sk).read_volatile()) };
    let begins = op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB;
    if !begins && op != BPF_SOCK_OPS_RTT_CB && op != BPF_SOCK_OPS_RTO_CB || socket.is_null() {
        return;
    }
    // SAFETY: it is the context's own socket, which the kernel has locked.
    let Some(held) = (unsafe { held(socket, 0) }) else { return };
    let flags = callbacks(ops);
    if begins && held.state != state::OPEN {
        // What others have asked for remains.
        held.callbacks = CALLBACKS & !flags;
        held.patience = patience(ops);
        set_patience(ops, PATIENCE);
        ask_for(ops, flags | CALLBACKS);
    } else if !begins && (held.state == state::OPEN || held.state == state::ASKS) {
        // Unless the program has changed it meanwhile.
        if patience(ops) == PATIENCE {
            set_patience(ops, held.patience);
        }
        ask_for(ops, flags & !held.callbacks);
        held.callbacks = 0;
    }
}

#[inline(always)]
fn callbacks(ops: *mut bpf_sock_ops) -> u32 {
    // SAFETY: the verifier checks the access to the context.
    unsafe { (&raw const (*ops).bpf_sock_ops_cb_flags).read_volatile() }
}

#[inline(always)]
fn ask_for(ops: *mut bpf_sock_ops, flags: u32) {
    // SAFETY: the context is one of this kind.
    unsafe { bpf_sock_ops_cb_flags_set(ops, flags.cast_signed()) };
}

/// For how many milliseconds what was sent may be without an answer; 0 for as long as is usual.
#[inline(always)]
fn patience(ops: *mut bpf_sock_ops) -> u32 {
    let mut value = 0_u32;
    // SAFETY: the buffer has four bytes.
    unsafe { bpf_getsockopt(ops.cast(), SOL_TCP, TCP_USER_TIMEOUT, (&raw mut value).cast(), 4) };
    value
}

#[inline(always)]
fn set_patience(ops: *mut bpf_sock_ops, mut value: u32) {
    // SAFETY: as above.
    unsafe { bpf_setsockopt(ops.cast(), SOL_TCP, TCP_USER_TIMEOUT, (&raw mut value).cast(), 4) };
}
