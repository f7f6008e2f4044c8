"""Tries to look into another process, or to get hold of what it has: "PID". Prints one line for each way that worked."""
import ctypes, os, sys

PTRACE_ATTACH, PTRACE_SEIZE, PTRACE_DETACH, WALL = 16, 0x4206, 17, 0x40000000
SYS_PIDFD_OPEN, SYS_PIDFD_GETFD, SYS_KCMP, SYS_PROCESS_VM_READV = 434, 438, 312, 310
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
pid = int(sys.argv[1])


class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


def attach():
    if libc.ptrace(PTRACE_ATTACH, pid, None, None) == 0:
        os.waitpid(pid, WALL)
        libc.ptrace(PTRACE_DETACH, pid, None, None)
        return True


def get_descriptor():
    process = libc.syscall(SYS_PIDFD_OPEN, pid, 0)
    return libc.syscall(SYS_PIDFD_GETFD, process, 1, 0) >= 0


def read_memory():
    with open(f"/proc/{pid}/maps") as maps:
        start = int(maps.readline().split("-")[0], 16)
    buffer = ctypes.create_string_buffer(8)
    local, remote = Vector(ctypes.addressof(buffer), 8), Vector(start, 8)
    return libc.syscall(SYS_PROCESS_VM_READV, pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0) > 0


def opens(name, flags=os.O_RDONLY):
    os.close(os.open(f"/proc/{pid}/{name}", flags))
    return True


WAYS = {
    "attach": attach,
    "descriptor": get_descriptor,
    "memory": read_memory,
    "mem": lambda: opens("mem", os.O_RDWR),
    "environ": lambda: opens("environ"),
    "maps": lambda: bool(open(f"/proc/{pid}/maps").read()),
    "fd": lambda: bool(os.listdir(f"/proc/{pid}/fd")),
    "exe": lambda: bool(os.readlink(f"/proc/{pid}/exe")),
    "root": lambda: bool(os.listdir(f"/proc/{pid}/root")),
    "kcmp": lambda: libc.syscall(SYS_KCMP, pid, os.getpid(), 1, 0, 0) >= 0,
    # Last: it is traced until this program ends.
    "seize": lambda: libc.ptrace(PTRACE_SEIZE, pid, None, None) == 0,
}
for way, works in WAYS.items():
    try:
        if works():
            print(way, flush=True)
    except OSError:
        pass
