//! The getsockopt and setsockopt hooks.

use aya_ebpf::{bindings::BPF_F_NO_PREALLOC, macros::map, maps::HashMap, programs::SockoptContext};
use common::{
    Decision, MAX_RULES,
    record::{Hook, Key, SockoptSubject, Tally},
    sockopt::{self, Request, Rule, Rules, Table, access},
};

use crate::{
    record::{Current, Draft, Ledger},
    rodata::{filled, judged},
};

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
    // A length of 0 makes the kernel go on with the caller's own buffer, so that what is allowed goes on as if there were
    // no program. With any other it takes the value from the buffer that programs see: at most a page (EFAULT if the value
    // is longer), and zeros where getsockopt(2) returns more than 0. (`__cgroup_bpf_run_filter_setsockopt` and
    // `__cgroup_bpf_run_filter_getsockopt`, kernel/bpf/cgroup.c.) It doesn't matter for what is denied. The program of
    // a guard further up sees this 0 as the length.
    // SAFETY: as above. Volatile: it is the kernel who reads it.
    unsafe { (&raw mut (*ctx.sockopt).optlen).write_volatile(0) };
    let request = Request { level, option, access };
    let mut draft = Draft::new(hook, SockoptSubject { level, option, access, length, value: [0; 2] });
    let key = draft.key();
    let Some(ledger) = Ledger::of(hook) else { return 0 };
    let Some(decision) = judged(|| Some(decide(&request))) else {
        return ledger.deny_unjudged();
    };
    ledger.conclude(decision, &SOCKOPT_TALLIES, key, |subject| {
        subject.value = value(ctx);
        Current
    })
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
