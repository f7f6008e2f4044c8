"""Tries to get out: each argument names one of the ways below, and is printed with "ok" or the error's name."""
import ctypes
import errno
import fcntl
import os
import pty
import signal as signals
import socket
import stat
import struct
import sys
import tempfile

libc = ctypes.CDLL(None, use_errno=True)
OUTSIDE = int(os.environ["OUTSIDE"])
# x86-64
BPF, KEYCTL, IO_URING_SETUP, CLONE3, PROCESS_VM_READV, PIDFD_OPEN, PIDFD_GETFD = 321, 250, 425, 435, 310, 434, 438
CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000


def call(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result


def syscall(*arguments):
    return call(libc.syscall(*map(lambda argument: ctypes.c_long(argument) if isinstance(argument, int) else argument, arguments)))


def new_user_namespace():
    pid = os.fork()
    if pid == 0:
        os._exit(0 if libc.unshare(CLONE_NEWUSER) == 0 else ctypes.get_errno())
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        raise OSError(status, "")


def clone3():
    # Too small, which the kernel says if it is asked.
    try:
        syscall(CLONE3, ctypes.create_string_buffer(8), 8)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise


def mount():
    with tempfile.TemporaryDirectory() as folder:
        call(libc.mount(b"none", folder.encode(), b"tmpfs", 0, None))
        call(libc.umount2(folder.encode(), 0))


def bpf_map():
    attributes = struct.pack("IIII", 2, 4, 4, 1).ljust(128, b"\0")
    os.close(syscall(BPF, 0, attributes, len(attributes)))


def io_uring():
    os.close(syscall(IO_URING_SETUP, 1, ctypes.create_string_buffer(120)))


def keyring():
    syscall(KEYCTL, 0, -2, 1)


def typing():
    main, terminal = pty.openpty()
    fcntl.ioctl(terminal, 0x5412, b"x")


def signal():
    # It does nothing to who isn't stopped; signal 0 is no signal.
    os.kill(OUTSIDE, signals.SIGCONT)


def signal_to_guard():
    os.kill(os.getppid(), signals.SIGCONT)


def abstract_socket():
    socket.socket(socket.AF_UNIX).connect("\0" + os.environ["ABSTRACT"])


def path_socket():
    socket.socket(socket.AF_UNIX).connect(os.environ["SOCKET"])


def root_of_another():
    os.readlink(f"/proc/{OUTSIDE}/root")


def memory_of_another():
    open(f"/proc/{OUTSIDE}/mem", "rb")


def reading_another():
    buffer = ctypes.create_string_buffer(1)
    here = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 1)
    there = (ctypes.c_void_p * 2)(int(os.environ["ADDRESS"]), 1)
    syscall(PROCESS_VM_READV, OUTSIDE, here, 1, there, 1, 0)


def descriptor_of_another():
    os.close(syscall(PIDFD_GETFD, syscall(PIDFD_OPEN, OUTSIDE, 0), 0, 0))


def shared_memory():
    call(libc.shmget(int(os.environ["KEY"]), 0, 0))


def kernel_file():
    open(os.environ["KERNEL_FILE"], "r+b", buffering=0).close()


def tunable():
    name = "/proc/sys/net/ipv4/ip_default_ttl"
    value = open(name).read()
    with open(name, "w") as file:
        file.write(value)


def device_node():
    with tempfile.TemporaryDirectory() as folder:
        os.mknod(f"{folder}/node", stat.S_IFCHR | 0o600, os.makedev(1, 3))


def own_cgroup():
    [line] = [line for line in open("/proc/self/cgroup") if line.startswith("0::")]
    return os.environ["CGROUP2"] + line[3:].strip()


def other_cgroup():
    # To where it is, or to where guard-run is, as it sees it.
    with open(own_cgroup() + "/cgroup.procs", "w") as file:
        file.write(str(os.getpid()))


def child_cgroup():
    os.mkdir(own_cgroup() + "/child")
    os.rmdir(own_cgroup() + "/child")


def packet():
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW)


def old_packet():
    socket.socket(socket.AF_INET, 10)


def netlink_audit():
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9)


def netlink_route():
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)


def chown():
    with tempfile.NamedTemporaryFile() as file:
        os.chown(file.name, 1, 1)


def low_port():
    socket.socket().bind(("127.0.0.1", 0))
    socket.socket().bind(("127.77.3.4", 80))


for name in sys.argv[1:]:
    try:
        globals()[name]()
        print(f"{name}: ok")
    except OSError as error:
        print(f"{name}: {errno.errorcode[error.errno]}")
