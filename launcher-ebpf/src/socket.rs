//! Making sockets.

use aya_ebpf::{bindings::BPF_F_NO_PREALLOC, macros::map, maps::HashMap, programs::SockContext};
use common::{
    MAX_RULES,
    record::{Hook, Key, SocketSubject, Tally},
    socket::{self, Request, Rule, Rules, Table},
};

use crate::{
    own,
    record::{Current, Draft, Ledger},
    rodata::{filled, judged},
};

/// The sockets section but for its rules.
#[unsafe(no_mangle)]
pub static SOCKET_TABLE: Table = Table::DENY_ALL;

/// The rules of the sockets section.
#[unsafe(no_mangle)]
pub static SOCKET_RULES: Rules = [Rule::NONE; MAX_RULES];

/// Denials by identity.
#[map]
static SOCKET_TALLIES: HashMap<Key<SocketSubject>, Tally> = HashMap::with_max_entries(4096, BPF_F_NO_PREALLOC);

/// socket(2) for the families of the internet protocols, which are the only ones that the kernel asks about.
#[inline(always)]
pub fn create(ctx: &SockContext) -> i32 {
    // SAFETY: the verifier checks each access to the context.
    let (family, kind, protocol) = unsafe { ((*ctx.sock).family, (*ctx.sock).type_, (*ctx.sock).protocol) };
    let request = Request { family, kind, protocol, padding: 0 };
    // Before it is judged, since that ends in many ways, each of which the verifier would follow through this. A socket
    // that is denied goes away with its mark.
    if filled(&SOCKET_TABLE).mark != 0 {
        own::mark_new(ctx);
    }
    let decide = || Some(socket::decide(filled(&SOCKET_TABLE), filled(&SOCKET_RULES), &request));
    let mut draft = Draft::new(Hook::SockCreate, request);
    let key = draft.key();
    let Some(ledger) = Ledger::of(Hook::SockCreate) else { return 0 };
    let Some(decision) = judged(decide) else {
        return ledger.deny_unjudged();
    };
    ledger.conclude(decision, &SOCKET_TALLIES, key, |_| Current)
}
