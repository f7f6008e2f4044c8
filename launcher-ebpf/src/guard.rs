//! The programs that guard a cgroup, one per hook: each hands its context to its noun's module.
#![no_std]
#![no_main]
#![allow(missing_docs)] // aya's macros make functions of their own that have none

use aya_ebpf::{
    macros::{cgroup_device, cgroup_skb, cgroup_sock, cgroup_sock_addr, cgroup_sysctl, sock_ops},
    programs::{DeviceContext, SkBuffContext, SockAddrContext, SockContext, SockOpsContext, SysctlContext},
};
use launcher_ebpf::{device, flow, net, sysctl};

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

/// `BPF_CGROUP_DEVICE`
#[cgroup_device]
pub fn guard_device(ctx: DeviceContext) -> i32 {
    device::device(&ctx)
}

/// `BPF_CGROUP_SYSCTL`
#[cgroup_sysctl]
pub fn guard_sysctl(ctx: SysctlContext) -> i32 {
    sysctl::sysctl(&ctx)
}

/// `BPF_CGROUP_INET_INGRESS`
#[cgroup_skb(ingress)]
pub fn guard_ingress(ctx: SkBuffContext) -> i32 {
    flow::received(&ctx);
    1
}

/// `BPF_CGROUP_INET_EGRESS`
#[cgroup_skb(egress)]
pub fn guard_egress(ctx: SkBuffContext) -> i32 {
    flow::sent(&ctx);
    1
}

/// `BPF_CGROUP_INET_SOCK_CREATE`
#[cgroup_sock(sock_create)]
pub fn guard_socket(ctx: SockContext) -> i32 {
    flow::created(&ctx);
    1
}

/// `BPF_CGROUP_SOCK_OPS`
#[sock_ops]
pub fn guard_sock_ops(ctx: SockOpsContext) -> u32 {
    flow::sock_ops(&ctx);
    1
}
