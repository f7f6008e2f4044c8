//! The getsockopt and setsockopt hooks.

use aya_ebpf::{bindings::BPF_F_NO_PREALLOC, macros::map, maps::HashMap, programs::SockoptContext};
use common::{
    Decision, MAX_RULES,
    decision::{GROUP_REPORT, OWN_ROUTE, UNSEEN_COPY},
    net::{self, Op},
    packet::OPTION_WORDS,
    record::{Hook, Key, SockoptSubject, Tally},
    ruleset::WORDS,
    socket::kind,
    sockopt::{self, Request, Rule, Rules, Table, access, group::Membership, route},
};

use crate::{
    net::{KernelTables, NET_TABLE, subject_of},
    own,
    record::{Current, Draft, Ledger},
    rodata::{audit, filled, judged},
    verifier::is,
};

/// No buffer that programs see is smaller, in bytes: it is a page.
const BUFFER: u32 = 4096;

/// The sockopts section but for its rules.
#[unsafe(no_mangle)]
pub static SOCKOPT_TABLE: Table = Table::DENY_ALL;

/// The rules of the sockopts section.
#[unsafe(no_mangle)]
pub static SOCKOPT_RULES: Rules = [Rule::NONE; MAX_RULES];

/// Denials by identity.
#[map]
static SOCKOPT_TALLIES: HashMap<Key<SockoptSubject>, Tally> = HashMap::with_max_entries(4096, BPF_F_NO_PREALLOC);

/// getsockopt(2), after the kernel has done it: the caller's buffer is filled whatever is decided here.
#[inline(always)]
pub fn getsockopt(ctx: &SockoptContext) -> i32 {
    // What the kernel has found is none of the log's business.
    let verdict = judge(ctx, Hook::Getsockopt, access::GET, |_| [0; 2]);
    if verdict == 0 {
        // Where the kernel has failed, its error would win over the denial's EPERM (`bpf_prog_run_array_cg`).
        // SAFETY: the verifier checks each access to the context. Volatile: it is the kernel who reads it.
        unsafe { (&raw mut (*ctx.sockopt).retval).write_volatile(0) };
    }
    verdict
}

/// setsockopt(2), before the kernel does it.
#[inline(always)]
pub fn setsockopt(ctx: &SockoptContext) -> i32 {
    judge(ctx, Hook::Setsockopt, access::SET, first_bytes)
}

/// Judges a request with the tables in read-only data.
#[inline(always)]
pub fn decide(request: &Request) -> Decision {
    sockopt::decide(filled(&SOCKOPT_TABLE), filled(&SOCKOPT_RULES), request)
}

#[inline(always)]
fn judge(ctx: &SockoptContext, hook: Hook, access: u32, value: impl FnOnce(&SockoptContext) -> [u64; 2]) -> i32 {
    // SAFETY: the verifier checks each access to the context.
    let (level, option, length) = unsafe { ((*ctx.sockopt).level, (*ctx.sockopt).optname, (*ctx.sockopt).optlen) };
    let request = Request { level, option, access };
    let (joins, membership) = joins(&request);
    let keeps_routes = filled(&SOCKOPT_TABLE).keep_routes != 0 && access == access::SET;
    let options = if keeps_routes { route::is_options4((level, option), is) } else { 0 };
    let ineffective = if audit() == 0 { sockopt::has_no_effect(filled(&SOCKOPT_TABLE), &request, is) } else { 0 };
    // A length of 0 makes the kernel go on with the caller's own buffer, so that what is allowed goes on as if there were
    // no program. With any other it takes the value from the buffer that programs see: at most a page (of a longer
    // value, older kernels take nothing, and newer ones the caller's buffer), and zeros where getsockopt(2) returns more than 0. (`__cgroup_bpf_run_filter_setsockopt` and
    // `__cgroup_bpf_run_filter_getsockopt`, kernel/bpf/cgroup.c.) It doesn't matter for what is denied. The program of
    // a guard on an ancestor cgroup sees this 0 as the length.
    // What is judged by its value stays in that buffer, so that it can't change any more. With a length of -1 the kernel does nothing,
    // and says that it did.
    // SAFETY: as above. Volatile: it is the kernel who reads it.
    unsafe {
        (&raw mut (*ctx.sockopt).optlen)
            .write_volatile(length & (joins | options).cast_signed() | ineffective.cast_signed());
    };
    let mut draft = Draft::new(hook, SockoptSubject { level, option, access, length, value: [0; 2] });
    let key = draft.key();
    let Some(ledger) = Ledger::of(hook) else { return 0 };
    let decision = judged(|| {
        if joins != 0 && !may_join(ctx, &membership, length.cast_unsigned())? {
            return Some(Decision::fail_closed(GROUP_REPORT));
        }
        if keeps_routes {
            // Only IPv4's options are read: of the others, the length says it all.
            let (length, words) = (length.cast_unsigned(), first_options(ctx, options));
            // SAFETY: the verifier checks the access, and knows the socket.
            let stream = is(unsafe { (*(*ctx.sockopt).__bindgen_anon_1.sk).type_ }, kind::STREAM);
            if route::is_given((level, option), length, stream, &words, is) != 0 {
                return Some(Decision::fail_closed(OWN_ROUTE));
            }
        }
        if sockopt::may_free_source(filled(&SOCKOPT_TABLE), &request) {
            // SAFETY: as above.
            unsafe { own::note_told_source((*ctx.sockopt).__bindgen_anon_1.sk.cast()) };
        }
        let decision = decide(&request);
        // Before the kernel does it: so whatever is broadcast comes of a socket of which that is known.
        let notes = sockopt::may_broadcast(filled(&SOCKOPT_TABLE), &request) && (decision.allow || audit() != 0);
        // SAFETY: as above.
        let kept = !notes || unsafe { own::note_broadcast((*ctx.sockopt).__bindgen_anon_1.sk.cast()) };
        Some(if kept || !decision.allow { decision } else { Decision::fail_closed(UNSEEN_COPY) })
    });
    let Some(decision) = decision else {
        return ledger.deny_unjudged();
    };
    ledger.conclude(decision, &SOCKOPT_TALLIES, key, |subject| {
        subject.value = value(ctx);
        Current
    })
}

/// What a request says about groups, and all ones if it joins one of those that not everybody may join; else 0.
#[inline(always)]
fn joins(request: &Request) -> (u32, Membership) {
    let versions = if request.access == access::SET { filled(&SOCKOPT_TABLE).keep_groups } else { 0 };
    let membership = Membership::of(request.level, request.option, versions, is);
    (if versions != 0 { membership.joins } else { 0 }, membership)
}

/// Whether a group may be joined: since nobody hears of it, or datagrams may be sent to it.
#[inline(always)]
fn may_join(ctx: &SockoptContext, membership: &Membership, length: u32) -> Option<bool> {
    let table = filled(&NET_TABLE);
    // Of a longer value than the buffer holds, the kernel takes the caller's own memory, which may change (`__cgroup_bpf_run_filter_setsockopt`).
    if length > BUFFER {
        return Some(false);
    }
    let value = first_words(ctx);
    if membership.is_on_loopback(&value, length, is) != 0 {
        return Some(true);
    }
    // Word by word: to compare them as a whole would be a call.
    let no_rules = (0..WORDS).all(|index| table.groups.word(index) == 0);
    if no_rules || membership.is_plain == 0 || membership.is_ambiguous(&value, is) != 0 {
        return Some(false);
    }
    let group = membership.group(&value);
    let mut draft = Draft::new(Hook::Setsockopt, subject_of(Op::SEND, group, 0, 0));
    net::decide_group(table, &KernelTables::of(draft.key()), &group).map(|decision| decision.allow)
}

/// The first 32 bytes of the value; zeros where there are none. `struct ipv6_mreq` ends in the middle of the second half.
#[inline(always)]
fn first_words(ctx: &SockoptContext) -> [u32; 8] {
    let [first, second] = first_bytes(ctx);
    // SAFETY: the verifier checks each access to the context, and that no byte is read which it does not know to be below the end.
    let (e, [f, g, h]) = unsafe {
        let start = (*ctx.sockopt).__bindgen_anon_2.optval.cast::<u32>();
        let end = (*ctx.sockopt).__bindgen_anon_3.optval_end.cast::<u32>();
        let word = |index| start.add(index).read_volatile();
        let e = if start.wrapping_add(5) > end { 0 } else { word(4) };
        (e, if start.wrapping_add(8) > end { [0; 3] } else { [word(5), word(6), word(7)] })
    };
    let [[a, b], [c, d]] = [first, second].map(|word| [word as u32, (word >> 32) as u32]);
    [a, b, c, d, e, f, g, h]
}

/// The first 40 bytes of the value; zeros where there are none, and if `wanted` is 0. Up to three bytes at the end are not read: no route begins
/// there, since one has at least seven bytes (`__ip_options_compile`, net/ipv4/ip_options.c).
#[inline(always)]
fn first_options(ctx: &SockoptContext, wanted: u32) -> [u64; OPTION_WORDS] {
    let mut words = [0; OPTION_WORDS];
    if wanted == 0 {
        return words;
    }
    // SAFETY: the verifier checks each access to the context, and that no byte is read which it does not know to be below the end.
    unsafe {
        let start = (*ctx.sockopt).__bindgen_anon_2.optval;
        let end = (*ctx.sockopt).__bindgen_anon_3.optval_end;
        for (index, word) in words.iter_mut().enumerate() {
            let at = start.byte_add(8 * index);
            if at.byte_add(8) <= end {
                *word = at.cast::<u64>().read_volatile();
            } else if at.byte_add(4) <= end {
                *word = at.cast::<u32>().read_volatile().into();
            }
        }
    }
    words
}

/// The first 16 bytes of the value. The kernel's buffer has at least that many, those behind the value being zeros.
#[inline(always)]
fn first_bytes(ctx: &SockoptContext) -> [u64; 2] {
    // SAFETY: the verifier checks each access to the context, and that no byte is read which it does not know to be
    // below the end.
    unsafe {
        let start = (*ctx.sockopt).__bindgen_anon_2.optval.cast::<u64>();
        let end = (*ctx.sockopt).__bindgen_anon_3.optval_end.cast::<u64>();
        if start.wrapping_add(2) > end {
            return [0; 2];
        }
        [start.read_volatile(), start.add(1).read_volatile()]
    }
}
