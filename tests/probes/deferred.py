"""UDP sockets whose connect(2) the policy denies. Arguments: the ports of four servers that answer: one that the policy denies and one that it allows by IPv4,
the same by IPv6. Prints for each way what came of it.
"""
import ctypes, errno, os, socket, struct, sys, tempfile

LIBC = ctypes.CDLL(None, use_errno=True)
UDP_CORK, UDP_SEGMENT, IPV6_ADDRFORM = 1, 103, 1
DENIED, ALLOWED, DENIED6, ALLOWED6 = [
    (address, int(port)) for address, port in zip(("127.0.0.2", "127.0.0.1", "::1", "::1"), sys.argv[1:])
]


def mapped(peer):
    return ("::ffff:" + peer[0], peer[1])


def make(family=socket.AF_INET, peer=None):
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.settimeout(10)
    if peer:
        sock.connect(peer)
    return sock


def raw_connect(sock, family, address="0.0.0.0", port=0):
    sockaddr = struct.pack("=H", family) + struct.pack(">H", port) + socket.inet_aton(address) + bytes(8)
    if LIBC.connect(sock.fileno(), sockaddr, len(sockaddr)) != 0:
        raise OSError(ctypes.get_errno(), "connect")


def from_pipe(sock):
    reader, writer = os.pipe()
    os.write(writer, b"x")
    os.splice(reader, sock.fileno(), 1)


def from_file(sock):
    with tempfile.TemporaryFile() as file:
        file.write(b"x")
        file.flush()
        os.sendfile(sock.fileno(), file.fileno(), 0, 1)


def more(sock):
    sock.send(b"x", socket.MSG_MORE)
    sock.send(b"y")


def corked(sock):
    sock.setsockopt(socket.IPPROTO_UDP, UDP_CORK, 1)
    sock.send(b"x")
    # The kernel does not say what becomes of what it sends now.
    sock.setsockopt(socket.IPPROTO_UDP, UDP_CORK, 0)


def segments(sock):
    sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1)
    sock.send(b"x")


def with_message(sock):
    sock.sendmsg([b"x"], [(socket.IPPROTO_IP, socket.IP_TTL, struct.pack("i", 5))])


def with_message6(sock):
    sock.sendmsg([b"x"], [(socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT, struct.pack("i", 5))])


def in_two(sock, *others):
    """What is kept back goes where the socket is connected to by the end."""
    sock.send(b"x", socket.MSG_MORE)
    for other in others:
        sock.connect(other) if other else raw_connect(sock, socket.AF_UNSPEC)
    sock.send(b"y")


def written(sock):
    os.write(sock.fileno(), b"x")


def by_other_family():
    sock = make(socket.AF_INET6)
    raw_connect(sock, socket.AF_INET, *DENIED)
    sock.send(b"x")


def turned():
    sock = make(socket.AF_INET6, mapped(DENIED))
    sock.setsockopt(socket.IPPROTO_IPV6, IPV6_ADDRFORM, struct.pack("i", socket.AF_INET))
    sock.send(b"x")


def after(*peers, named=None):
    sock = make()
    for peer in peers:
        sock.connect(peer)
        if peer == ALLOWED:
            sock.send(b"x")
    if named:
        sock.sendto(b"x", named)
    sock.send(b"x")


def shared():
    sock = make(peer=DENIED)
    child = os.fork()
    if child == 0:
        try:
            sock.send(b"x")
        except PermissionError:
            os._exit(errno.EPERM)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.wait()[1])
    if status:
        raise OSError(status, "in the child")


# What is heard at the denied server without the guard, once each.
WAYS = {
    "send": lambda: make(peer=DENIED).send(b"x"),
    "write": lambda: written(make(peer=DENIED)),
    "splice": lambda: from_pipe(make(peer=DENIED)),
    "sendfile": lambda: from_file(make(peer=DENIED)),
    "message": lambda: with_message(make(peer=DENIED)),
    "more": lambda: more(make(peer=DENIED)),
    "cork": lambda: corked(make(peer=DENIED)),
    "segments": lambda: segments(make(peer=DENIED)),
    "confirm": lambda: make(peer=DENIED).send(b"x", 0x800),
    "child": shared,
    "twice": lambda: after(DENIED, DENIED),
    "after-allowed": lambda: after(ALLOWED, DENIED),
    "after-named": lambda: after(DENIED, named=ALLOWED),
    "kept-back": lambda: in_two(make(peer=ALLOWED), DENIED),
    "mapped": lambda: make(socket.AF_INET6, mapped(DENIED)).send(b"x"),
    "mapped-message": lambda: with_message(make(socket.AF_INET6, mapped(DENIED))),
    "mapped-inet": by_other_family,
    "mapped-turned": turned,
    "mapped-kept-back": lambda: in_two(make(socket.AF_INET6, mapped(ALLOWED)), mapped(DENIED)),
    "mapped-kept-back-crossed": lambda: in_two(make(socket.AF_INET6, mapped(ALLOWED)), mapped(DENIED), None, ALLOWED6),
    "send6": lambda: make(socket.AF_INET6, DENIED6).send(b"x"),
    "message6": lambda: with_message6(make(socket.AF_INET6, DENIED6)),
    "more6": lambda: more(make(socket.AF_INET6, DENIED6)),
}


def dissolved():
    sock = make(peer=DENIED)
    raw_connect(sock, socket.AF_UNSPEC)
    sock.connect(ALLOWED)
    return sock


def again():
    sock = make(peer=DENIED)
    sock.connect(ALLOWED)
    return sock


def back():
    sock = make(peer=ALLOWED)
    sock.connect(DENIED)
    raw_connect(sock, socket.AF_UNSPEC)
    sock.connect(ALLOWED)
    return sock


def failed():
    """The kernel refuses the second one for a reason of its own, and the socket stays connected."""
    sock = make(socket.AF_INET6)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.connect(ALLOWED6)
    try:
        sock.connect(mapped(DENIED))
    except OSError:
        pass
    return sock


def again6():
    sock = make(socket.AF_INET6, DENIED6)
    sock.connect(ALLOWED6)
    return sock


def answer(sock):
    sock.send(b"x")
    return sock.recv(10)


# What goes to an allowed server without the guard.
AFTERWARDS = {
    "dissolved": lambda: answer(dissolved()),
    "again": lambda: answer(again()),
    "back": lambda: answer(back()),
    "failed": lambda: answer(failed()),
    "again6": lambda: answer(again6()),
    "named": lambda: str(make(peer=DENIED).sendto(b"xy", ALLOWED)),
}

# What reaches nobody.
USES = {
    "own-address": lambda: make(peer=DENIED).getsockname()[0],
    "own-address6": lambda: make(socket.AF_INET6, DENIED6).getsockname()[0],
}


def outcome(act):
    try:
        return act() or "ok"
    except OSError as error:
        return errno.errorcode.get(error.errno, error)


if __name__ == "__main__":
    for name, act in {"ways": WAYS, "afterwards": AFTERWARDS, "uses": USES}[sys.argv[5]].items():
        result = outcome(act)
        print(f"{name}: {'ok' if result == 1 else result}")
