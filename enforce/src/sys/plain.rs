//! Wire types as bytes.
#![allow(unsafe_code)]

use common::{
    Config, RuleSet,
    decision::Verdicts,
    device, flow, glob, name, net,
    record::{
        Counters, DeviceSubject, Key, NameSubject, NetSubject, SockoptSubject, SysctlSubject, Tally, UnixSubject,
        Unreported,
    },
    socket, sockopt, sysctl, unix,
};

/// Types that are nothing but integers: no padding, and valid whatever their bytes are.
///
/// # Safety
///
/// The implementor is `repr(C)`, consists of integers, and has no padding between or after them.
pub unsafe trait Plain: Copy + 'static {}

macro_rules! plain {
    ($($type:ty),+ $(,)?) => {
        // SAFETY: integers themselves, or wire types of `common`, which declare and assert their layout.
        $(unsafe impl Plain for $type {})+
    };
}

plain!(u8, u16, u32, u64, Config, RuleSet, Counters, Tally, Unreported);
plain!(Verdicts, net::Table, net::PortInterval, net::Address, device::Rule, sysctl::Table, glob::Node);
plain!(socket::Request, socket::Rule, socket::Table, sockopt::Rule, sockopt::Table);
plain!(name::Table, name::PacketLayout, NameSubject, NetSubject, DeviceSubject, SysctlSubject, SockoptSubject);
plain!(unix::Table, unix::AddressLayout, unix::PeerLayout, UnixSubject);
plain!(flow::Key, flow::Tally, flow::News);

// SAFETY: an array has no padding of its own.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}
// SAFETY: the key's own fields fill 8 bytes, to which every subject is aligned or which it needs less than.
unsafe impl<S: Plain> Plain for Key<S> {}

/// Values as they lie in memory.
#[must_use]
pub fn bytes_of<T: Plain>(values: &[T]) -> &[u8] {
    // SAFETY: the slice's memory is initialised throughout, since `T` has no padding, and u8 needs no alignment.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

/// The value that bytes hold, if there are as many as it has.
#[must_use]
pub fn from_bytes<T: Plain>(bytes: &[u8]) -> Option<T> {
    // SAFETY: there are enough bytes, any of them make a valid `T`, and the read is unaligned.
    (bytes.len() == size_of::<T>()).then(|| unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

/// A wire type as the key or value of an aya map.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Wire<T>(pub T);

// SAFETY: `Plain` promises what `Pod` asks for.
unsafe impl<T: Plain> aya::Pod for Wire<T> {}
