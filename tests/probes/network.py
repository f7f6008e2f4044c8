"""Tries to reach peers. Each argument is one attempt: "HOW ADDRESS PORT [BOUND]". Prints "ATTEMPT: ok PEER" for each, or
the name of the error. HOW is a kind of socket and its family, e.g. tcp4 or udp6; BOUND is an address to bind to first.

listen:ADDRESS:PORT before all attempts listens there meanwhile (in this process, whatever its network namespace).
"""
import ctypes, errno, socket, struct, sys

libc = ctypes.CDLL(None, use_errno=True)
IPPROTO_MPTCP, MSG_FASTOPEN, TCP_FASTOPEN_CONNECT = 262, 0x20000000, 30


def raw_connect(sock, sockaddr):
    """connect(2) with these very bytes."""
    if libc.connect(sock.fileno(), sockaddr, len(sockaddr)) != 0:
        raise OSError(ctypes.get_errno(), "connect")


def sockaddr_in(family, address, port):
    return struct.pack("=H", family) + struct.pack(">H", port) + socket.inet_aton(address) + bytes(8)


def attempt(how, address, port, bound=None):
    kind, family = how[:-1], socket.AF_INET6 if how.endswith("6") else socket.AF_INET
    protocol = IPPROTO_MPTCP if kind == "mptcp" else 0
    udp = kind.startswith("udp")
    sock = socket.socket(family, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM, protocol)
    sock.settimeout(10)
    scope = (0, 1) if address.startswith(("fe80", "ff02")) else ()
    peer = (address, int(port)) + scope
    if bound:
        sock.bind((bound, 0))
    if kind in ("uring", "uring_udp"):
        # An address of the socket's own family, and io_uring's own system calls.
        if family == socket.AF_INET:
            sockaddr = sockaddr_in(family, address, int(port))
        else:
            packed = socket.inet_pton(family, address)
            sockaddr = struct.pack("=H", family) + struct.pack(">HI", int(port), 0) + packed + bytes(4)
        sock = socket.socket(family, socket.SOCK_DGRAM) if kind == "uring_udp" else sock
        buffer = ctypes.create_string_buffer(sockaddr, len(sockaddr))
        uring(URING_CONNECT, sock.fileno(), ctypes.addressof(buffer), 0, second=len(sockaddr))
    elif kind == "fastopen":
        sock.sendto(b"x", MSG_FASTOPEN, peer)
    elif kind == "fastopen_connect":
        # The connection begins with the first data; whether it may is asked before.
        sock.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
        sock.connect(peer)
        sock.send(b"x")
    elif kind in ("tcp_again", "udp_again"):
        # A connected socket is dissolved with AF_UNSPEC, the address being the forbidden one; then it connects anew.
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            sock.connect(listener.getsockname())
            raw_connect(sock, sockaddr_in(socket.AF_UNSPEC, address, int(port)))
            raw_connect(sock, sockaddr_in(socket.AF_INET, address, int(port)))
    elif kind == "udp_as_inet":
        # An AF_INET6 socket takes an AF_INET address, too.
        raw_connect(sock, sockaddr_in(socket.AF_INET, address, int(port)))
    elif kind == "tcp_nonblocking":
        sock.setblocking(False)
        error = sock.connect_ex(peer)
        if error not in (0, errno.EINPROGRESS):
            raise OSError(error, "connect")
        sock.settimeout(10)
        sock.send(b"x")
    else:
        sock.connect(peer)
    return sock.getpeername()[0].split("%")[0]


listeners = []
for word in sys.argv[1:]:
    if word.startswith("listen:"):
        address, port = word.removeprefix("listen:").rsplit(":", 1)
        listeners.append(socket.create_server((address, int(port)), family=socket.AF_INET6 if ":" in address else socket.AF_INET))
        continue
    try:
        print(f"{word}: ok {attempt(*word.split())}")
    except OSError as error:
        print(f"{word}: {errno.errorcode.get(error.errno, error)}")
