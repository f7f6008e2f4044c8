//! TCP connections: from the socket's callbacks, without a look at a packet.
//!
//! The kernel's own counters are exact but for control bits, which have a sequence number, too: `bytes_acked` includes
//! the own SYN of a socket that connected (`tcp_ack` in `tcp_rcv_synsent_state_process`) and the own FIN once it is
//! acknowledged, `bytes_received` includes the peer's FIN once it is in order (`tcp_rcv_nxt_update` up to the segment's
//! `end_seq`). Most states tell which of them that are; where one doesn't, segments with a FIN are looked at.

use aya_ebpf::{
    bindings::{
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_HDR_OPT_LEN_CB, BPF_SOCK_OPS_PARSE_ALL_HDR_OPT_CB_FLAG,
        BPF_SOCK_OPS_PARSE_HDR_OPT_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB,
        BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG, bpf_sock_ops,
    },
    helpers::generated::bpf_sock_ops_cb_flags_set,
};
use common::{
    flow::{INCOMING, Key, OUTGOING, Socket, TCP, Tally},
    net::Address,
};

use super::{find, find_or_begin, lose, now, touch};
use crate::{
    net::words,
    own::Event,
    record::add,
    verifier::{is, opaque},
};

// States, include/net/tcp_states.h.
const FIN_WAIT1: u32 = 4;
const FIN_WAIT2: u32 = 5;
const CLOSE: u32 = 7;
const CLOSE_WAIT: u32 = 8;
const LAST_ACK: u32 = 9;
const CLOSING: u32 = 11;

/// `AF_INET`, include/linux/socket.h.
const AF_INET: u32 = 2;
/// The FIN bit of a TCP header's flags.
const FIN: u32 = 1;
/// The callbacks about a connection from its beginning. Segments are shown only outside the fast path, on which none has a
/// FIN.
const FROM_THE_BEGINNING: u32 = BPF_SOCK_OPS_STATE_CB_FLAG | BPF_SOCK_OPS_PARSE_ALL_HDR_OPT_CB_FLAG;

/// The callbacks that are about connections.
pub const CALLBACKS: u32 = 1 << BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB
    | 1 << BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB
    | 1 << BPF_SOCK_OPS_STATE_CB
    | 1 << BPF_SOCK_OPS_PARSE_HDR_OPT_CB
    | 1 << BPF_SOCK_OPS_HDR_OPT_LEN_CB;

/// Something has happened to a connection.
#[inline(always)]
pub fn happened(event: &mut Event) {
    let Event { ops, op, known, .. } = event;
    match *op {
        BPF_SOCK_OPS_PARSE_HDR_OPT_CB => came(*ops, known),
        BPF_SOCK_OPS_HDR_OPT_LEN_CB => {
            // SAFETY: the verifier checks each access to the context.
            if unsafe { (&raw const (**ops).skb_tcp_flags).read_volatile() } & FIN != 0 {
                known.fin_sent = 1;
            }
        }
        _ => began_or_changed(*ops, known, *op),
    }
}

/// Something has happened to a socket that nothing can be known of.
#[inline(always)]
pub fn missed(op: u32) {
    if op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB || op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB {
        lose(1);
    }
}

/// The identity of a connection's flow.
#[inline(always)]
fn key(ops: *const bpf_sock_ops, known: &Socket) -> Key {
    // SAFETY: the verifier checks each access to the context.
    let (v4, v6, peer, own, family) = unsafe {
        // The peer's port is in network byte order, the own one isn't (include/uapi/linux/bpf.h).
        (
            (&raw const (*ops).remote_ip4).read_volatile(),
            words(&raw const (*ops).remote_ip6),
            u32::from_be((&raw const (*ops).remote_port).read_volatile()),
            (&raw const (*ops).local_port).read_volatile(),
            (&raw const (*ops).family).read_volatile(),
        )
    };
    // No branch, after which the verifier would follow both families and both directions by themselves.
    let is_v4 = is(family, AF_INET);
    let address = Address::v6(v6).or_v4(v4, is_v4);
    let incoming = 1 ^ known.connects;
    let port = peer ^ (peer ^ own) & 0_u32.wrapping_sub(incoming.into());
    Key {
        address,
        pid: known.owner.pid,
        port: port as u16,
        direction: OUTGOING + (INCOMING - OUTGOING) * incoming,
        protocol: TCP,
    }
}

/// A connection begins (with fast open, the peer's side does before the handshake is over), or its state is about to
/// change. What was transferred is counted when the process closes it, since it may outlast the process, and when it has
/// ended.
///
/// Whether it begins is asked twice: the verifier would follow what is common to both by itself for each.
#[inline(always)]
fn began_or_changed(ops: *mut bpf_sock_ops, known: &mut Socket, op: u32) {
    // SAFETY: the verifier checks each access to the context.
    let (old, new) = unsafe {
        let args = (&raw const (*ops).__bindgen_anon_1.args).cast::<u32>();
        (args.read_volatile(), args.add(1).read_volatile())
    };
    if is(op, BPF_SOCK_OPS_STATE_CB) == 0 {
        if known.established != 0 {
            return;
        }
    } else if known.established == 0 || is_in(new, 1 << FIN_WAIT1 | 1 << LAST_ACK | 1 << CLOSE) == 0 {
        return;
    }
    let now = now();
    let key = key(ops, known);
    if is(op, BPF_SOCK_OPS_STATE_CB) == 0 {
        match find_or_begin(&key, known.owner, now) {
            Some(tally) => began(ops, known, op, tally, now),
            None => lose(1),
        }
    } else if let Some(tally) = find(&key) {
        changed(ops, known, old, new, tally, now);
    }
}

#[inline(always)]
fn began(ops: *mut bpf_sock_ops, known: &mut Socket, op: u32, tally: &Tally, now: u64) {
    add(&tally.begun, 1);
    touch(tally, now);
    known.established = now;
    known.bytes_sent = 0;
    known.bytes_received = 0;
    known.fin_seen = 0;
    known.fin_sent = 0;
    // SAFETY: the verifier checks each access to the context.
    let acked = unsafe { (&raw const (*ops).bytes_acked).read_volatile() };
    // When both sides connect to each other, the kernel calls that passive, and the SYN has just been counted.
    known.syn_counted = u8::from(op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB || acked != 0);
    ask_for(ops, FROM_THE_BEGINNING);
}

/// 1 if a state is in that set, else 0.
#[inline(always)]
fn is_in(state: u32, set: u32) -> u32 {
    opaque(u64::from(set) >> (state & 31)) as u32 & 1
}

/// Asks for further callbacks about a socket, besides those that programs of ancestor cgroups have asked for.
#[inline(always)]
fn ask_for(ops: *mut bpf_sock_ops, flags: u32) {
    // SAFETY: the verifier checks the access to the context.
    unsafe {
        let others = (&raw const (*ops).bpf_sock_ops_cb_flags).read_volatile();
        bpf_sock_ops_cb_flags_set(ops, (others | flags).cast_signed());
    }
}

/// A segment has come that is not on the fast path.
#[inline(always)]
fn came(ops: *const bpf_sock_ops, known: &mut Socket) {
    // SAFETY: the verifier checks each access to the context, and to the segment by what is compared.
    unsafe {
        if (&raw const (*ops).skb_tcp_flags).read_volatile() & FIN == 0 {
            return;
        }
        let header = (&raw const (*ops).__bindgen_anon_3.skb_data).read_volatile().cast::<u8>();
        let end = (&raw const (*ops).__bindgen_anon_4.skb_data_end).read_volatile().cast::<u8>();
        if header.add(20) > end {
            return;
        }
        let sequence = u32::from_be(header.add(4).cast::<u32>().read_unaligned());
        let header_length = u32::from(header.add(12).read() >> 4) * 4;
        let length = (&raw const (*ops).skb_len).read_volatile();
        known.fin_end = sequence.wrapping_add(length).wrapping_sub(header_length).wrapping_add(1);
        known.fin_seen = 1;
    }
}

#[inline(always)]
fn changed(ops: *mut bpf_sock_ops, known: &mut Socket, old: u32, new: u32, tally: &Tally, now: u64) {
    // SAFETY: as above.
    let (acked, received, una, nxt, expected) = unsafe {
        (
            (&raw const (*ops).bytes_acked).read_volatile(),
            (&raw const (*ops).bytes_received).read_volatile(),
            (&raw const (*ops).snd_una).read_volatile(),
            (&raw const (*ops).snd_nxt).read_volatile(),
            (&raw const (*ops).rcv_nxt).read_volatile(),
        )
    };
    // In FIN_WAIT2, the end of what was received is the peer's FIN, or something else.
    let ends_with_fin = u32::from(known.fin_seen) & is(known.fin_end, expected);
    let fin_received =
        is_in(old, 1 << CLOSE_WAIT | 1 << LAST_ACK | 1 << CLOSING) | is_in(old, 1 << FIN_WAIT2) & ends_with_fin;
    // In LAST_ACK and CLOSING, the end of what was acknowledged is the own FIN, or something else.
    let acked_fin = u32::from(known.fin_sent) & is(una, nxt);
    let fin_acked = is_in(old, 1 << FIN_WAIT2) | is_in(old, 1 << LAST_ACK | 1 << CLOSING) & acked_fin;
    let sent = acked.wrapping_sub(u64::from(known.syn_counted)).wrapping_sub(u64::from(fin_acked));
    let received = received.wrapping_sub(u64::from(fin_received));
    add(&tally.bytes_sent, sent.wrapping_sub(known.bytes_sent));
    add(&tally.bytes_received, received.wrapping_sub(known.bytes_received));
    known.bytes_sent = sent;
    known.bytes_received = received;
    touch(tally, now);
    if new == CLOSE {
        add(&tally.duration, now.wrapping_sub(known.established));
        add(&tally.ended, 1);
        known.established = 0;
    } else {
        ask_for(ops, BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
    }
}
