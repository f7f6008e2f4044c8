"""Tries to reach Unix sockets. The first argument is a folder; the second names servers, separated by commas: for each NAME
there are the sockets NAME.stream, NAME.seqpacket and NAME.dgram in the folder, or in the abstract namespace if it is
@NAME. They are this process's own, unless the second argument is "-".

Each further argument is one attempt: "HOW SPELLING NAME". HOW says by what kind of socket and which system call, SPELLING how
the path is written; what is a link or a mount is called by the name of the other server, ALIAS, so that anybody who believes in
names is led astray. Prints "ATTEMPT: ok" for each, or the name of the error.
"""
import ctypes, errno, mmap, os, socket, struct, sys

libc = ctypes.CDLL(None, use_errno=True)
KINDS = {"stream": socket.SOCK_STREAM, "seqpacket": socket.SOCK_SEQPACKET, "dgram": socket.SOCK_DGRAM}
ALIAS = {"yes": "no", "no": "yes"}
MS_BIND = 4096


def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "system call")
    return result


def address_of(path):
    """A struct sockaddr_un, without a NUL at its end where there is no room for one."""
    raw = path if isinstance(path, bytes) else path.encode()
    assert len(raw) <= 108, raw
    return struct.pack("=H", socket.AF_UNIX) + raw + (b"" if raw[0] == 0 or len(raw) == 108 else b"\0")


def serve(name, kind):
    sock = socket.socket(socket.AF_UNIX, KINDS[kind])
    if name.startswith("@"):
        sock.bind(f"\0{name[1:]}.{kind}")
    else:
        fresh(f"{folder}/{name}.{kind}", sock.bind)
    if kind != "dgram":
        sock.listen(100)
    return sock


def fresh(file, make):
    """A file that is made anew by `make`."""
    try:
        os.unlink(file)
    except FileNotFoundError:
        pass
    make(file)
    return file


def bind_mount(source, target):
    if not os.path.exists(target):
        open(target, "w").close()
    checked(libc.mount(source.encode(), target.encode(), None, MS_BIND, None))
    return target


def spelled(spelling, name, kind):
    """The path of a server's socket, in one of many ways."""
    file, path = f"{name}.{kind}", f"{folder}/{name}.{kind}"
    alias = f"{folder}/{ALIAS.get(name, name)}.{kind}.{spelling}"
    if spelling == "abstract":
        return f"\0{file[1:]}"
    if spelling == "path":
        return path
    if spelling in ("relative", "chroot"):
        return file if spelling == "relative" else f"/{file}"
    if spelling == "dots":
        return f"{folder}/../{os.path.basename(folder)}/./{file}"
    if spelling == "symlink":
        return fresh(alias, lambda new: os.symlink(path, new))
    if spelling == "folderlink":
        return fresh(alias, lambda new: os.symlink(folder, new)) + f"/{file}"
    if spelling == "hardlink":
        return fresh(alias, lambda new: os.link(path, new))
    if spelling == "bindmount":
        return bind_mount(path, alias)
    if spelling == "folderfd":
        return f"/proc/self/fd/{os.open(folder, os.O_PATH)}/{file}"
    if spelling == "fd":
        return f"/proc/self/fd/{os.open(path, os.O_PATH)}"
    if spelling == "procroot":
        return f"/proc/{os.getpid()}/root{path}"
    if spelling == "long":
        # All 108 bytes that an address has.
        room = 108 - len(f"{folder}/{file}")
        return f"{folder}/{'./' * (room // 2)}{'/' * (room % 2)}{file}"
    raise ValueError(spelling)


class SendMessage(ctypes.Structure):
    """struct mmsghdr"""
    _fields_ = [("name", ctypes.c_void_p), ("namelen", ctypes.c_uint), ("iov", ctypes.c_void_p), ("iovlen", ctypes.c_size_t),
                ("control", ctypes.c_void_p), ("controllen", ctypes.c_size_t), ("flags", ctypes.c_int), ("len", ctypes.c_uint)]


def by_io_uring(sock, address):
    """connect(2), done by a ring (include/uapi/linux/io_uring.h)."""
    IO_URING_SETUP, IO_URING_ENTER, OP_CONNECT, GETEVENTS, SQES = 425, 426, 16, 1, 0x10000000
    params = ctypes.create_string_buffer(120)
    ring = checked(libc.syscall(IO_URING_SETUP, 4, params))
    entries = struct.unpack_from("=II", params.raw)
    # sq_off: head, tail, mask, entries, flags, dropped, array; cq_off: head, tail, mask, entries, overflow, cqes
    sq, cq = struct.unpack_from("=7I", params.raw, 40), struct.unpack_from("=6I", params.raw, 80)
    shared = mmap.mmap(ring, max(sq[6] + 4 * entries[0], cq[5] + 16 * entries[1]))
    sqes = mmap.mmap(ring, 64 * entries[0], offset=SQES)
    keep = ctypes.create_string_buffer(address, len(address))
    struct.pack_into("=BBHiQQ", sqes, 0, OP_CONNECT, 0, 0, sock.fileno(), len(address), ctypes.addressof(keep))
    struct.pack_into("=I", shared, sq[6], 0)
    struct.pack_into("=I", shared, sq[1], 1)
    checked(libc.syscall(IO_URING_ENTER, ring, 1, 1, GETEVENTS, None, 0))
    result = struct.unpack_from("=Qi", shared, cq[5])[1]
    os.close(ring)
    if result < 0:
        raise OSError(-result, "io_uring")


def attempt(how, spelling, name):
    kind = how.split("_")[0]
    if spelling == "pair":
        ours, theirs = socket.socketpair(socket.AF_UNIX, KINDS[kind])
        ours.send(b"x")
        return theirs.recv(1)
    path = spelled(spelling, name, kind)
    sock = socket.socket(socket.AF_UNIX, KINDS[kind])
    if spelling == "relative":
        os.chdir(folder)
    if spelling == "chroot":
        os.chroot(folder)
    address = address_of(path)
    if how == "dgram":
        checked(libc.sendto(sock.fileno(), b"x", 1, 0, address, len(address)))
    elif how == "dgram_sendmmsg":
        keep, data = ctypes.create_string_buffer(address, len(address)), ctypes.create_string_buffer(b"x")
        vector = struct.pack("=QQ", ctypes.addressof(data), 1)
        vector = ctypes.create_string_buffer(vector, len(vector))
        message = SendMessage(ctypes.addressof(keep), len(address), ctypes.addressof(vector), 1, None, 0, 0, 0)
        checked(libc.sendmmsg(sock.fileno(), ctypes.byref(message), 1, 0))
    elif how in ("stream_uring", "seqpacket_uring", "dgram_uring"):
        by_io_uring(sock, address)
    else:
        # stream, seqpacket, dgram_connect
        checked(libc.connect(sock.fileno(), address, len(address)))


folder = sys.argv[1]
servers = [serve(name, kind) for name in sys.argv[2].split(",") if name != "-" for kind in KINDS]
for word in sys.argv[3:]:
    # A process for each, since some change its root or folder. The servers' sockets stay this one's.
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            attempt(*word.split())
            print(f"{word}: ok")
        except OSError as error:
            print(f"{word}: {errno.errorcode[error.errno]}")
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(child, 0)
    for server in servers:
        # A datagram socket that nobody reads holds ten.
        try:
            if server.type == socket.SOCK_DGRAM:
                server.recv(1, socket.MSG_DONTWAIT)
        except BlockingIOError:
            pass
