//! TCP connections: from the socket's callbacks, without a look at a packet.
//!
//! The kernel's own counters are exact but for control bits, which have a sequence number, too: `bytes_acked` includes
//! the own SYN of a socket that connected (`tcp_ack` in `tcp_rcv_synsent_state_process`) and the own FIN once it is
//! acknowledged, `bytes_received` includes the peer's FIN once it is in order (`tcp_rcv_nxt_update` up to the segment's
//! `end_seq`). Most states tell which of them that are; where one doesn't, segments with a FIN are looked at.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_HDR_OPT_LEN_CB, BPF_SOCK_OPS_PARSE_ALL_HDR_OPT_CB_FLAG,
        BPF_SOCK_OPS_PARSE_HDR_OPT_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB,
        BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_SOCK_OPS_TCP_LISTEN_CB,
        BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG, bpf_sock_ops,
    },
    helpers::generated::bpf_sock_ops_cb_flags_set,
    programs::SockOpsContext,
};
use common::{
    flow::{INCOMING, Key, OUTGOING, Socket, TCP},
    net::Address,
};

use super::{find, find_or_begin, lose, now, touch, wanted};
use crate::{own, record::add};

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

/// Something has happened to a TCP socket.
#[inline(always)]
pub fn sock_ops(ctx: &SockOpsContext) {
    if !wanted() {
        return;
    }
    let ops = ctx.ops;
    // SAFETY: the verifier checks each access to the context. Volatile here and below, since the context allows no
    // access wider than a field.
    let (op, sk): (u32, *mut c_void) = unsafe {
        ((&raw const (*ops).op).read_volatile(), (&raw const (*ops).__bindgen_anon_2.sk).read_volatile().cast())
    };
    if sk.is_null() {
        return;
    }
    let known = match op {
        BPF_SOCK_OPS_TCP_CONNECT_CB
        | BPF_SOCK_OPS_TCP_LISTEN_CB
        | BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB
        | BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB
        | BPF_SOCK_OPS_STATE_CB
        | BPF_SOCK_OPS_PARSE_HDR_OPT_CB
        // SAFETY: it is the context's own socket.
        | BPF_SOCK_OPS_HDR_OPT_LEN_CB => unsafe { own::known(sk) },
        _ => return,
    };
    let Some(known) = known else {
        if op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB || op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB {
            lose(1);
        }
        return;
    };
    // SAFETY: the kernel calls this with the socket locked, and keeps the value as long as the socket.
    let known = unsafe { &mut *known };
    match op {
        BPF_SOCK_OPS_TCP_CONNECT_CB | BPF_SOCK_OPS_TCP_LISTEN_CB => {
            known.connects = u8::from(op == BPF_SOCK_OPS_TCP_CONNECT_CB);
        }
        BPF_SOCK_OPS_STATE_CB => changed(ops, known),
        BPF_SOCK_OPS_PARSE_HDR_OPT_CB => came(ops, known),
        BPF_SOCK_OPS_HDR_OPT_LEN_CB => {
            // SAFETY: as above.
            if unsafe { (&raw const (*ops).skb_tcp_flags).read_volatile() } & FIN != 0 {
                known.fin_sent = 1;
            }
        }
        _ => established(ops, known, op),
    }
}

/// The identity of a connection's flow.
#[inline(always)]
fn key(ops: *const bpf_sock_ops, known: &Socket) -> Key {
    // SAFETY: the verifier checks each access to the context.
    unsafe {
        // All is read before anything is chosen: of two reads, one of which is made, the compiler would make one at an
        // address that the verifier doesn't know.
        let v4 = (&raw const (*ops).remote_ip4).read_volatile();
        let words = (&raw const (*ops).remote_ip6).cast::<u32>();
        let v6 = core::array::from_fn(|i| words.add(i).read_volatile());
        // The peer's port is in network byte order, the own one isn't (include/uapi/linux/bpf.h).
        let peer = u32::from_be((&raw const (*ops).remote_port).read_volatile());
        let own = (&raw const (*ops).local_port).read_volatile();
        let is_v4 = (&raw const (*ops).family).read_volatile() == AF_INET;
        let address = if is_v4 { Address::v4(v4) } else { Address::v6(v6) };
        let (direction, port) = if known.connects != 0 { (OUTGOING, peer) } else { (INCOMING, own) };
        Key { address, pid: known.owner.pid, port: port as u16, direction, protocol: TCP }
    }
}

/// A connection begins. (With fast open, the peer's side does before the handshake is over.)
#[inline(always)]
fn established(ops: *mut bpf_sock_ops, known: &mut Socket, op: u32) {
    if known.established != 0 {
        return;
    }
    let now = now();
    let Some(tally) = find_or_begin(&key(ops, known), known.owner, now) else {
        return lose(1);
    };
    add(&tally.begun, 1);
    touch(tally, now);
    known.established = now;
    known.bytes_sent = 0;
    known.bytes_received = 0;
    known.fin_seen = 0;
    known.fin_sent = 0;
    // SAFETY: the verifier checks each access to the context.
    unsafe {
        // When both sides connect to each other, the kernel calls that passive, and the SYN has just been counted.
        let acked = (&raw const (*ops).bytes_acked).read_volatile();
        known.syn_counted = u8::from(op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB || acked != 0);
    }
    ask_for(ops, FROM_THE_BEGINNING);
}

/// Asks for further callbacks about a socket, besides those that programs of cgroups further up have asked for.
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

/// A connection's state is about to change. What was transferred is counted when the process closes it, since it may
/// outlast the process, and when it has ended.
#[inline(always)]
fn changed(ops: *mut bpf_sock_ops, known: &mut Socket) {
    // SAFETY: the verifier checks each access to the context.
    let (old, new) = unsafe {
        let args = (&raw const (*ops).__bindgen_anon_1.args).cast::<u32>();
        (args.read_volatile(), args.add(1).read_volatile())
    };
    if known.established == 0 || new != FIN_WAIT1 && new != LAST_ACK && new != CLOSE {
        return;
    }
    let Some(tally) = find(&key(ops, known)) else { return };
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
    let fin_received = match old {
        CLOSE_WAIT | LAST_ACK | CLOSING => true,
        // Its end is the peer's FIN, or something else.
        FIN_WAIT2 => known.fin_seen != 0 && known.fin_end == expected,
        _ => false,
    };
    let fin_acked = match old {
        FIN_WAIT2 => true,
        // Their end is the acknowledgement of the own FIN, or something else.
        LAST_ACK | CLOSING => known.fin_sent != 0 && una == nxt,
        _ => false,
    };
    let sent = acked.wrapping_sub(u64::from(known.syn_counted)).wrapping_sub(u64::from(fin_acked));
    let received = received.wrapping_sub(u64::from(fin_received));
    add(&tally.bytes_sent, sent.wrapping_sub(known.bytes_sent));
    add(&tally.bytes_received, received.wrapping_sub(known.bytes_received));
    known.bytes_sent = sent;
    known.bytes_received = received;
    let now = now();
    touch(tally, now);
    if new == CLOSE {
        add(&tally.duration, now.wrapping_sub(known.established));
        add(&tally.ended, 1);
        known.established = 0;
    } else {
        ask_for(ops, BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
    }
}
