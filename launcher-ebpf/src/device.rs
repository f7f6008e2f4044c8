//! The device hook.

use aya_ebpf::{bindings::BPF_F_NO_PREALLOC, macros::map, maps::HashMap, programs::DeviceContext};
use common::{
    MAX_RULES,
    decision::Verdicts,
    device::{self, Request, Rule, Rules},
    record::{DeviceSubject, Hook, Key, Tally},
};

use crate::{
    record::{Current, Draft, Ledger},
    rodata::{filled, judged},
};

/// What the rules of the devices section say.
#[unsafe(no_mangle)]
pub static DEVICE_VERDICTS: Verdicts = Verdicts::DENY_ALL;

/// The rules of the devices section.
#[unsafe(no_mangle)]
pub static DEVICE_RULES: Rules = [Rule::NONE; MAX_RULES];

/// Denials by identity.
#[map]
static DEVICE_TALLIES: HashMap<Key<DeviceSubject>, Tally> = HashMap::with_max_entries(4096, BPF_F_NO_PREALLOC);

/// open(2), mknod(2) and all else that needs a device node's permission.
#[inline(always)]
pub fn device(ctx: &DeviceContext) -> i32 {
    // SAFETY: the verifier checks each access to the context.
    let (access_type, major, minor) = unsafe { ((*ctx.device).access_type, (*ctx.device).major, (*ctx.device).minor) };
    // (access << 16) | type, include/uapi/linux/bpf.h
    let request = Request { kind: access_type & 0xffff, access: access_type >> 16, major, minor };
    let decide = || Some(device::decide(filled(&DEVICE_VERDICTS), filled(&DEVICE_RULES), &request));
    let mut draft = Draft::new(Hook::Device, request);
    let key = draft.key();
    let Some(ledger) = Ledger::of(Hook::Device) else { return 0 };
    let Some(decision) = judged(decide) else {
        return ledger.deny_unjudged();
    };
    ledger.conclude(decision, &DEVICE_TALLIES, key, |_| Current)
}
