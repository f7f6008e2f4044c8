"""What scenarios about the sandbox's own sockets share."""
import array, collections, ctypes, errno, os, socket, struct, sys, threading, time

OUTSIDE = int(os.environ.get("OUTSIDE", 0))
PROTOCOLS = {"mptcp": 262}
OPTIONS = {
    "reuseaddr": (socket.SOL_SOCKET, socket.SO_REUSEADDR, 1),
    "reuseport": (socket.SOL_SOCKET, socket.SO_REUSEPORT, 1),
    "broadcast": (socket.SOL_SOCKET, socket.SO_BROADCAST, 1),
    "lo": (socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo"),
    "device": (socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"v0"),
    "freebind": (socket.IPPROTO_IP, 15, 1),
    "transparent": (socket.IPPROTO_IP, 19, 1),
    "dual": (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0),
}


def make(kind, options=()):
    """A socket, e.g. of kind tcp4, mptcp6, udp4 or udp_to6."""
    family = socket.AF_INET6 if kind.endswith("6") else socket.AF_INET
    udp = kind.startswith("udp")
    sock = socket.socket(family, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM, PROTOCOLS.get(kind[:-1], 0))
    for option in options:
        if option == "first":
            choose_first(sock)
        else:
            sock.setsockopt(*OPTIONS[option])
    sock.settimeout(1)
    return sock


def choose_first(sock):
    """Has a program choose among the sockets of a SO_REUSEPORT group: always the first."""
    SO_ATTACH_REUSEPORT_CBPF, RETURN = 51, struct.pack("=HBBI", 6, 0, 0, 0)
    code = ctypes.create_string_buffer(RETURN)
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, struct.pack("HxxxxxxP", 1, ctypes.addressof(code)))


def bound(kind, address, port=0, options=()):
    """One that is bound, and listens if it can."""
    sock = make(kind, options)
    sock.bind((address, port))
    if sock.type == socket.SOCK_STREAM:
        sock.listen(100)
    sock.settimeout(None)
    return sock


def answer(sock, text, file=None):
    """Answers everybody, in a thread. Notes in a file what it hears."""

    def loop():
        while True:
            try:
                if sock.type == socket.SOCK_DGRAM:
                    heard, peer = sock.recvfrom(100)
                    reply = lambda: sock.sendto(text, peer)
                else:
                    client, _ = sock.accept()
                    heard, reply = b"connection", lambda: (client.sendall(text), client.close())
                if file:
                    with open(file, "ab") as notes:
                        notes.write(heard + b"\n")
                reply()
            except OSError:
                if sock.fileno() < 0:
                    return

    threading.Thread(target=loop, daemon=True).start()
    return sock


def serve(kind, address, port=0, options=(), text=b"in"):
    """Answers everybody at an address. Returns the socket and the port."""
    sock = answer(bound(kind, address, port, options), text)
    return sock, sock.getsockname()[1]


def ask(kind, address, port, options=(), source=None):
    """What is answered at an address, or the name of the error."""
    sock = make(kind, options)
    try:
        if source:
            sock.bind(source)
        if kind.startswith("udp_to"):
            sock.sendto(b"question", (address, port))
        else:
            sock.connect((address, port))
            if kind.startswith("udp"):
                sock.send(b"question")
        text = sock.recv(100).decode()
        if sock.type == socket.SOCK_STREAM:
            sock.recv(1)  # the server closes first
        return text
    except TimeoutError:
        return "timeout"
    except OSError as error:
        return errno.errorcode[error.errno]
    finally:
        sock.close()
