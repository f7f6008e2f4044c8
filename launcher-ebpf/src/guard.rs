//! The programs that guard a cgroup, one per hook: each hands its context to its noun's module.
#![no_std]
#![no_main]
#![allow(missing_docs)] // aya's macros make functions of their own that have none

use aya_ebpf::{
    macros::{
        cgroup_device, cgroup_skb, cgroup_sock, cgroup_sock_addr, cgroup_sockopt, cgroup_sysctl, lsm_cgroup, sock_ops,
    },
    programs::{
        DeviceContext, LsmContext, SkBuffContext, SockAddrContext, SockContext, SockOpsContext, SockoptContext,
        SysctlContext,
    },
};
#[cfg(feature = "names")]
use launcher_ebpf::name;
use launcher_ebpf::{device, flow, net, own::Event, packet, socket, sockopt, sysctl, unix, verifier::opaque};

/// `BPF_CGROUP_INET4_CONNECT`
#[cgroup_sock_addr(connect4)]
pub fn guard_connect4(ctx: SockAddrContext) -> i32 {
    net::connect4(&ctx)
}

/// `BPF_CGROUP_INET6_CONNECT`
#[cgroup_sock_addr(connect6)]
pub fn guard_connect6(ctx: SockAddrContext) -> i32 {
    net::connect6(&ctx)
}

/// `BPF_CGROUP_INET4_BIND`
#[cgroup_sock_addr(bind4)]
pub fn guard_bind4(ctx: SockAddrContext) -> i32 {
    net::bind4(&ctx)
}

/// `BPF_CGROUP_INET6_BIND`
#[cgroup_sock_addr(bind6)]
pub fn guard_bind6(ctx: SockAddrContext) -> i32 {
    net::bind6(&ctx)
}

/// `BPF_CGROUP_UDP4_SENDMSG`
#[cgroup_sock_addr(sendmsg4)]
pub fn guard_sendmsg4(ctx: SockAddrContext) -> i32 {
    net::sendmsg4(&ctx)
}

/// `BPF_CGROUP_UDP6_SENDMSG`
#[cgroup_sock_addr(sendmsg6)]
pub fn guard_sendmsg6(ctx: SockAddrContext) -> i32 {
    net::sendmsg6(&ctx)
}

/// A verdict to which all ways are one again, before the verifier goes on with what is behind it.
#[inline(always)]
fn joined(verdict: i32) -> i32 {
    opaque(u64::from(verdict.cast_unsigned())) as i32
}

/// `BPF_CGROUP_INET_INGRESS`
#[cgroup_skb(ingress)]
pub fn guard_ingress(ctx: SkBuffContext) -> i32 {
    #[cfg(feature = "names")]
    if let Some(verdict) = name::answer::read(&ctx) {
        count_received(&ctx);
        return verdict;
    }
    ingress(&ctx)
}

/// A function of its own, since the stack has no room for this beside what is done before.
#[cfg(feature = "names")]
#[inline(never)]
fn count_received(ctx: &SkBuffContext) {
    flow::received(ctx);
}

#[cfg_attr(feature = "names", inline(never))]
#[cfg_attr(not(feature = "names"), inline(always))]
fn ingress(ctx: &SkBuffContext) -> i32 {
    let verdict = joined(packet::ingress(ctx));
    if verdict != 0 {
        flow::received(ctx);
    }
    verdict
}

/// `BPF_CGROUP_INET_EGRESS`
#[cgroup_skb(egress)]
pub fn guard_egress(ctx: SkBuffContext) -> i32 {
    #[cfg(feature = "names")]
    if let Some(verdict) = name::query::judge(&ctx) {
        if verdict != 0 {
            count_sent(&ctx);
        }
        return verdict;
    }
    egress(&ctx)
}

/// A function of its own, since the stack has no room for this beside what is done before.
#[cfg(feature = "names")]
#[inline(never)]
fn count_sent(ctx: &SkBuffContext) {
    flow::sent(ctx);
}

#[cfg_attr(feature = "names", inline(never))]
#[cfg_attr(not(feature = "names"), inline(always))]
fn egress(ctx: &SkBuffContext) -> i32 {
    let verdict = joined(packet::egress(ctx));
    if verdict != 0 {
        flow::sent(ctx);
    }
    verdict
}

/// `BPF_CGROUP_INET_EGRESS`, where it is all the same what leaves, as long as it goes where it was judged to.
#[cgroup_skb(egress)]
pub fn guard_leaving(ctx: SkBuffContext) -> i32 {
    #[cfg(feature = "names")]
    if let Some(verdict) = name::query::judge(&ctx) {
        return verdict;
    }
    leaving(&ctx)
}

#[cfg_attr(feature = "names", inline(never))]
#[cfg_attr(not(feature = "names"), inline(always))]
fn leaving(ctx: &SkBuffContext) -> i32 {
    packet::way::leaving(ctx)
}

/// `BPF_CGROUP_INET_SOCK_CREATE`
#[cgroup_sock(sock_create)]
pub fn guard_socket(ctx: SockContext) -> i32 {
    socket::create(&ctx)
}

/// `BPF_CGROUP_SOCK_OPS`: can refuse nothing.
#[sock_ops]
pub fn guard_sock_ops(ctx: SockOpsContext) -> u32 {
    #[cfg(feature = "names")]
    name::tls::happened(&ctx);
    if let Some(mut event) = Event::of(&ctx) {
        if event.begins() {
            net::listen(&mut event);
        } else if flow::wanted() {
            flow::happened(&mut event);
        }
    }
    1
}

/// `BPF_CGROUP_GETSOCKOPT`
#[cgroup_sockopt(getsockopt)]
pub fn guard_getopt(ctx: SockoptContext) -> i32 {
    sockopt::getsockopt(&ctx)
}

/// `BPF_CGROUP_SETSOCKOPT`
#[cgroup_sockopt(setsockopt)]
pub fn guard_setopt(ctx: SockoptContext) -> i32 {
    sockopt::setsockopt(&ctx)
}

/// `BPF_CGROUP_UNIX_CONNECT`, for which aya has no macro; the launcher tells the kernel where it is attached.
#[cgroup_sock_addr(connect4)]
pub fn guard_unix_conn(ctx: SockAddrContext) -> i32 {
    unix::connect(&ctx)
}

/// `BPF_CGROUP_UNIX_SENDMSG`, likewise.
#[cgroup_sock_addr(sendmsg4)]
pub fn guard_unix_send(ctx: SockAddrContext) -> i32 {
    unix::sendmsg(&ctx)
}

/// `BPF_LSM_CGROUP`
#[lsm_cgroup(hook = "unix_stream_connect")]
pub fn guard_unix_lsmc(ctx: LsmContext) -> i32 {
    unix::peer::stream_connect(&ctx)
}

/// `BPF_LSM_CGROUP`
#[lsm_cgroup(hook = "unix_may_send")]
pub fn guard_unix_lsms(ctx: LsmContext) -> i32 {
    unix::peer::may_send(&ctx)
}

/// `BPF_CGROUP_DEVICE`
#[cgroup_device]
pub fn guard_device(ctx: DeviceContext) -> i32 {
    device::device(&ctx)
}

/// Allows everything: by it, the kernel tells whether there still is anything that the others guard (`enforce::load::CacheEntry`).
#[cgroup_sysctl]
pub fn guard_sentinel(_: SysctlContext) -> i32 {
    1
}

/// `BPF_CGROUP_SYSCTL`
#[cgroup_sysctl]
pub fn guard_sysctl(ctx: SysctlContext) -> i32 {
    sysctl::sysctl(&ctx)
}
