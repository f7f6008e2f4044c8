"""Asks the kernel which programs are attached to a cgroup. Prints "HOOK ID TAG" for each."""
import ctypes, os, struct, sys

libc = ctypes.CDLL(None, use_errno=True)
BPF, PROG_GET_FD_BY_ID, PROG_QUERY = 321 if os.uname().machine == "x86_64" else 280, 13, 16
HOOKS = {"connect4": 10, "connect6": 11, "bind4": 8, "bind6": 9, "sendmsg4": 14, "sendmsg6": 15, "ingress": 0,
         "egress": 1, "sock_create": 2, "sock_ops": 3, "device": 6, "sysctl": 18, "getsockopt": 21, "setsockopt": 22}


def bpf(command, attributes):
    buffer = ctypes.create_string_buffer(attributes.ljust(64, b"\0"))
    result = libc.syscall(BPF, command, buffer, len(buffer))
    if result < 0:
        raise OSError(ctypes.get_errno(), "bpf")
    return result, buffer.raw


cgroup = os.open(sys.argv[1], os.O_RDONLY)
for hook, attach_type in HOOKS.items():
    ids = (ctypes.c_uint32 * 16)()
    _, answer = bpf(PROG_QUERY, struct.pack("=IIIIQI", cgroup, attach_type, 0, 0, ctypes.addressof(ids), len(ids)))
    for number in ids[: struct.unpack_from("=I", answer, 24)[0]]:
        program, _ = bpf(PROG_GET_FD_BY_ID, struct.pack("=I", number))
        info = dict(line.split(":\t") for line in open(f"/proc/self/fdinfo/{program}").read().splitlines())
        print(hook, number, info["prog_tag"])
