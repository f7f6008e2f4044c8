"""Tries to bind sockets. Each argument is one attempt: "HOW ADDRESS PORT". Prints "ATTEMPT: ok" for each, or the name of
the error. HOW is a way to do it and the socket's family, e.g. tcp4 or udp6; behind that, "as_unspec" and the like.
"""
import ctypes, errno, socket, struct, sys

IPPROTO_MPTCP, IP_FREEBIND, IP_TRANSPARENT, IP_BIND_ADDRESS_NO_PORT, IP_LOCAL_PORT_RANGE = 262, 15, 19, 24, 51
libc = ctypes.CDLL(None, use_errno=True)
PROTOCOLS = {"mptcp": IPPROTO_MPTCP}


def sockaddr(family, address, port, written):
    """The bytes of an address, with `written` as its family."""
    if family == socket.AF_INET:
        return struct.pack("=H", written) + struct.pack(">H", port) + socket.inet_aton(address) + bytes(8)
    packed = socket.inet_pton(family, address)
    return struct.pack("=H", written) + struct.pack(">HI", port, 0) + packed + bytes(4)


def attempt(how, address, port):
    kind, family = how[:-1], socket.AF_INET6 if how.endswith("6") else socket.AF_INET
    udp = kind.startswith("udp")
    sock = socket.socket(family, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM, PROTOCOLS.get(kind, 0))
    if kind == "reuseport":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    elif kind == "dual":
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    elif kind == "only":
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    elif kind == "freebind":
        sock.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
    elif kind == "transparent":
        sock.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)
    elif kind == "late":
        sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    elif kind == "again":
        # A UDP socket can be bound once more when it has been dissolved.
        sock = socket.socket(family, socket.SOCK_DGRAM)
        sock.connect((address, 9))
        libc.connect(sock.fileno(), struct.pack("=H", socket.AF_UNSPEC) + bytes(14), 16)
    elif kind == "range":
        # Only the one port is left for the kernel to choose. Listening makes it choose.
        sock.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, int(port) << 16 | int(port))
        sock.listen()
        return
    if kind in ("tcp_as_unspec", "udp_as_unspec", "uring"):
        bytes_ = sockaddr(family, address, int(port), family if kind == "uring" else socket.AF_UNSPEC)
        if kind == "uring":
            buffer = ctypes.create_string_buffer(bytes_, len(bytes_))
            uring(URING_BIND, sock.fileno(), ctypes.addressof(buffer), 0, second=len(bytes_))
        elif libc.bind(sock.fileno(), bytes_, len(bytes_)) != 0:
            raise OSError(ctypes.get_errno(), "bind")
    else:
        sock.bind((address, int(port)))


for word in sys.argv[1:]:
    try:
        attempt(*word.split())
        print(f"{word}: ok")
    except OSError as error:
        print(f"{word}: {errno.errorcode.get(error.errno, error)}")
