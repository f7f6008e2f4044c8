"""Tries to send datagrams by sockets that aren't connected. Each argument is one attempt: "HOW ADDRESS PORT". Prints
"ATTEMPT: ok LENGTH" for each, or the name of the error. HOW is a way to do it and the socket's family, e.g. sendto4.
"""
import ctypes, errno, socket, struct, sys

libc = ctypes.CDLL(None, use_errno=True)
UDP_SEGMENT, MSG_MORE = 103, 0x8000


class Message(ctypes.Structure):
    """struct msghdr, and behind it the count of struct mmsghdr."""

    _fields_ = [
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("parts", ctypes.c_void_p),
        ("part_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_size_t),
        ("sent", ctypes.c_size_t),
    ]


def sockaddr(family, address, port):
    if ":" not in address:
        return struct.pack("=H", family) + struct.pack(">H", port) + socket.inet_aton(address) + bytes(8)
    packed = socket.inet_pton(socket.AF_INET6, address)
    return struct.pack("=H", family) + struct.pack(">HI", port, 0) + packed + bytes(4)


def attempt(how, address, port):
    kind, family = how[:-1], socket.AF_INET6 if how.endswith("6") else socket.AF_INET
    peer = (address, int(port))
    sock = socket.socket(family, socket.SOCK_DGRAM)
    if kind == "sendto":
        return sock.sendto(b"hello", peer)
    if kind == "sendmsg":
        return sock.sendmsg([b"hel", b"lo"], [], 0, peer)
    if kind == "cork":
        sock.sendto(b"hel", MSG_MORE, peer)
        return 3 + sock.send(b"lo")
    if kind == "segment":
        sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1)
        return sock.sendto(b"hello", peer)
    if kind == "segment_message":
        return sock.sendmsg([b"hello"], [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=H", 1))], 0, peer)
    if kind == "zerocopy":
        sock.setsockopt(socket.SOL_SOCKET, 60, 1)
        return sock.sendto(b"hello", 0x4000000, peer)
    if kind == "elsewhere":
        # Connected to another peer, which may be.
        sock.connect((address, int(port) + 1))
        return sock.sendto(b"hello", peer)
    written = {"as_unspec": socket.AF_UNSPEC, "as_inet": socket.AF_INET}.get(kind, family)
    name = ctypes.create_string_buffer(sockaddr(written, *peer))
    length = len(name) - 1
    if kind in ("as_unspec", "as_inet"):
        sent = libc.sendto(sock.fileno(), b"hello", 5, 0, name, length)
    elif kind == "uring_zc":
        text = ctypes.create_string_buffer(b"hello")
        return uring(
            URING_SEND_ZC, sock.fileno(), ctypes.addressof(text), 5, ctypes.addressof(name), address_length=length
        )
    else:
        text = ctypes.create_string_buffer(b"hello")
        part = (ctypes.c_size_t * 2)(ctypes.addressof(text), 5)
        messages = (Message * 2)(*[(ctypes.addressof(name), length, ctypes.addressof(part), 1, None, 0, 0, 0)] * 2)
        if kind == "uring":
            return uring(URING_SENDMSG, sock.fileno(), ctypes.addressof(messages), 1)
        sent = libc.sendmmsg(sock.fileno(), messages, 2, 0)
    if sent < 0:
        raise OSError(ctypes.get_errno(), "send")
    return sent


for word in sys.argv[1:]:
    try:
        print(f"{word}: ok {attempt(*word.split())}")
    except OSError as error:
        print(f"{word}: {errno.errorcode.get(error.errno, error)}")
