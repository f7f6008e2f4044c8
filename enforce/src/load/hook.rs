//! What the kernel has to be told of each hook, and which kernels have it.

use aya_obj::generated::{bpf_attach_type, bpf_prog_type};
use common::record::Hook;

/// A hook, as bpf(2) knows it.
pub struct HookSpec {
    /// The program that is attached there. The kernel shows 15 characters of a name.
    pub program: &'static str,
    /// The program's type.
    pub kind: bpf_prog_type,
    /// Where such a program is attached.
    pub attach_type: bpf_attach_type,
    /// The smallest Linux known to have the hook.
    pub since: &'static str,
}

/// What the kernel has to be told of a hook. The versions are those of the commits that brought the attach types
/// (include/uapi/linux/bpf.h).
#[must_use]
pub const fn spec(hook: Hook) -> HookSpec {
    use bpf_attach_type as attach;
    use bpf_prog_type as prog;
    let (program, kind, attach_type, since) = match hook {
        Hook::Connect4 => {
            ("guard_connect4", prog::BPF_PROG_TYPE_CGROUP_SOCK_ADDR, attach::BPF_CGROUP_INET4_CONNECT, "4.17")
        }
        Hook::Connect6 => {
            ("guard_connect6", prog::BPF_PROG_TYPE_CGROUP_SOCK_ADDR, attach::BPF_CGROUP_INET6_CONNECT, "4.17")
        }
        Hook::Bind4 => ("guard_bind4", prog::BPF_PROG_TYPE_CGROUP_SOCK_ADDR, attach::BPF_CGROUP_INET4_BIND, "4.17"),
        Hook::Bind6 => ("guard_bind6", prog::BPF_PROG_TYPE_CGROUP_SOCK_ADDR, attach::BPF_CGROUP_INET6_BIND, "4.17"),
        Hook::Sendmsg4 => {
            ("guard_sendmsg4", prog::BPF_PROG_TYPE_CGROUP_SOCK_ADDR, attach::BPF_CGROUP_UDP4_SENDMSG, "4.18")
        }
        Hook::Sendmsg6 => {
            ("guard_sendmsg6", prog::BPF_PROG_TYPE_CGROUP_SOCK_ADDR, attach::BPF_CGROUP_UDP6_SENDMSG, "4.18")
        }
        Hook::Ingress => ("guard_ingress", prog::BPF_PROG_TYPE_CGROUP_SKB, attach::BPF_CGROUP_INET_INGRESS, "4.10"),
        Hook::Egress => ("guard_egress", prog::BPF_PROG_TYPE_CGROUP_SKB, attach::BPF_CGROUP_INET_EGRESS, "4.10"),
        Hook::SockCreate => {
            ("guard_socket", prog::BPF_PROG_TYPE_CGROUP_SOCK, attach::BPF_CGROUP_INET_SOCK_CREATE, "4.10")
        }
        Hook::SockOps => ("guard_sock_ops", prog::BPF_PROG_TYPE_SOCK_OPS, attach::BPF_CGROUP_SOCK_OPS, "4.13"),
        Hook::Getsockopt => ("guard_getopt", prog::BPF_PROG_TYPE_CGROUP_SOCKOPT, attach::BPF_CGROUP_GETSOCKOPT, "5.3"),
        Hook::Setsockopt => ("guard_setopt", prog::BPF_PROG_TYPE_CGROUP_SOCKOPT, attach::BPF_CGROUP_SETSOCKOPT, "5.3"),
        Hook::ConnectUnix => {
            ("guard_unix_conn", prog::BPF_PROG_TYPE_CGROUP_SOCK_ADDR, attach::BPF_CGROUP_UNIX_CONNECT, "6.7")
        }
        Hook::SendmsgUnix => {
            ("guard_unix_send", prog::BPF_PROG_TYPE_CGROUP_SOCK_ADDR, attach::BPF_CGROUP_UNIX_SENDMSG, "6.7")
        }
        Hook::UnixStreamConnect => ("guard_unix_lsmc", prog::BPF_PROG_TYPE_LSM, attach::BPF_LSM_CGROUP, "6.0"),
        Hook::UnixMaySend => ("guard_unix_lsms", prog::BPF_PROG_TYPE_LSM, attach::BPF_LSM_CGROUP, "6.0"),
        Hook::Device => ("guard_device", prog::BPF_PROG_TYPE_CGROUP_DEVICE, attach::BPF_CGROUP_DEVICE, "4.15"),
        Hook::Sysctl => ("guard_sysctl", prog::BPF_PROG_TYPE_CGROUP_SYSCTL, attach::BPF_CGROUP_SYSCTL, "5.2"),
    };
    HookSpec { program, kind, attach_type, since }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_shows_whole_names() {
        for hook in Hook::ALL {
            assert!(spec(hook).program.len() < 16, "{}", hook.name());
        }
    }
}
