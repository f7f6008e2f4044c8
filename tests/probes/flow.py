"""Reaches peers in the ways that the arguments name, each with a listener or a bound socket of its own, and prints for each
a line of JSON: what the flows must be that have its port, as {"way", "port", "flows": {direction: {…}}}."""
import ctypes, errno, fcntl, json, os, socket, struct, sys, termios, threading, time

IPPROTO_MPTCP, MSG_FASTOPEN, TCP_FASTOPEN, UDP_CORK, UDP_SEGMENT, UDP_GRO = 262, 0x20000000, 23, 1, 103, 104
SIOCOUTQ = termios.TIOCOUTQ
libc = ctypes.CDLL(None, use_errno=True)


def settle(*socks):
    """Waits until the peers have acknowledged all that was sent."""
    for sock in socks:
        while struct.unpack("i", fcntl.ioctl(sock, SIOCOUTQ, bytes(4)))[0]:
            time.sleep(0.001)


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def receive(sock, length):
    while length:
        got = len(sock.recv(min(length, 1 << 20)))
        assert got, "closed too early"
        length -= got


def send(one, other, length):
    """Sends from one end to the other, and waits until it is there and acknowledged."""
    sender = threading.Thread(target=one.sendall, args=(bytes(length),))
    sender.start()
    receive(other, length)
    sender.join()
    settle(one)


class Pair:
    """A listener and what is connected to it."""

    def __init__(self, host="127.0.0.1", to=None, family=socket.AF_INET, client=0, server=0):
        self.listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, server)
        self.listener.bind((host, 0))
        self.listener.listen()
        self.port, self.to, self.family, self.protocol = self.listener.getsockname()[1], to or host, family, client

    def connect(self):
        client = socket.socket(self.family, socket.SOCK_STREAM, self.protocol)
        client.connect((self.to, self.port))
        return client, self.listener.accept()[0]


def tcp(connections, sent, received, **more):
    flow = {"connections": connections, "open": 0, **more}
    return {
        "outgoing": {**flow, "bytes": {"sent": sent, "received": received}},
        "incoming": {**flow, "bytes": {"sent": received, "received": sent}},
    }


def closing(first, second):
    """The orderly end, begun by one side."""
    first.close()
    assert second.recv(1) == b""
    second.close()


def nothing():
    pair = Pair()
    closing(*pair.connect())
    return pair.port, tcp(1, 0, 0)


def nothing_server_first():
    pair = Pair()
    closing(*reversed(pair.connect()))
    return pair.port, tcp(1, 0, 0)


def one_byte(**kinds):
    pair = Pair(**kinds)
    client, server = pair.connect()
    send(client, server, 1)
    closing(client, server)
    return pair.port, tcp(1, 1, 0)


def bulk(**kinds):
    pair = Pair(**kinds)
    client, server = pair.connect()
    other = threading.Thread(target=send, args=(server, client, 5_000_001))
    other.start()
    send(client, server, 7_000_003)
    other.join()
    closing(client, server)
    return pair.port, tcp(1, 7_000_003, 5_000_001)


def half_closed():
    pair = Pair()
    client, server = pair.connect()
    send(client, server, 10)
    client.shutdown(socket.SHUT_WR)
    assert server.recv(1) == b""
    send(server, client, 3_000_000)
    closing(server, client)
    return pair.port, tcp(1, 10, 3_000_000)


def half_closed_both():
    pair = Pair()
    client, server = pair.connect()
    client.shutdown(socket.SHUT_WR)
    server.shutdown(socket.SHUT_WR)
    assert client.recv(1) == b"" and server.recv(1) == b""
    client.close(), server.close()
    return pair.port, tcp(1, 0, 0)


def half_closed_then_reset():
    pair = Pair()
    client, server = pair.connect()
    client.shutdown(socket.SHUT_WR)
    send(server, client, 100)
    reset(server)
    return pair.port, tcp(1, 0, 100)


def half_closed_then_closed():
    pair = Pair()
    client, server = pair.connect()
    client.shutdown(socket.SHUT_WR)
    send(server, client, 100)
    client.close()
    time.sleep(0.01)
    server.close()
    return pair.port, tcp(1, 0, 100)


def reset_by_client():
    pair = Pair()
    client, server = pair.connect()
    send(client, server, 10)
    send(server, client, 20)
    reset(client)
    return pair.port, tcp(1, 10, 20)


def reset_by_server():
    pair = Pair()
    client, server = pair.connect()
    send(client, server, 10)
    send(server, client, 20)
    reset(server)
    return pair.port, tcp(1, 10, 20)


def unread():
    """What the process never reads has been received all the same; closing such a socket resets the connection."""
    pair = Pair()
    client, server = pair.connect()
    client.sendall(bytes(1000))
    settle(client)
    server.close()
    client.close()
    return pair.port, tcp(1, 1000, 0)


def queued(answer=False):
    """More than the peer takes is never acknowledged: what was queued behind a closed window, and the FIN after it."""
    pair = Pair()
    client, server = pair.connect()
    if answer:
        server.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
    client.setblocking(False)
    queued = 0
    try:
        while True:
            queued += client.send(bytes(1 << 16))
    except BlockingIOError:
        pass
    time.sleep(0.3)
    left = struct.unpack("i", fcntl.ioctl(client, SIOCOUTQ, bytes(4)))[0]
    assert left
    client.close()
    reset(server)
    return pair.port, tcp(1, queued - left, 0)


def self_connected():
    """A socket that connects to itself: both sides open and close at the same time."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    sock.connect(("127.0.0.1", port))
    send(sock, sock, 12345)
    sock.close()
    both = {"connections": 1, "open": 0, "bytes": {"sent": 12345, "received": 12345}}
    return port, {"outgoing": both}


def refused():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        with socket.socket() as client:
            assert client.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED
    return port, {}


def many():
    pair = Pair()
    for number in range(50):
        client, server = pair.connect()
        send(client, server, number)
        closing(*((client, server) if number % 2 else (server, client)))
    return pair.port, tcp(50, 49 * 25, 0)


def reconnected():
    """One socket that connects, is dissolved, fails to connect, and connects again."""
    pair, nobody = Pair(), socket.socket()
    nobody.bind(("127.0.0.1", 0))
    client, server = pair.connect()
    send(client, server, 10)
    unspecified = struct.pack("=H14x", socket.AF_UNSPEC)
    assert libc.connect(client.fileno(), unspecified, 16) == 0
    assert client.connect_ex(nobody.getsockname()) == errno.ECONNREFUSED
    client.connect(("127.0.0.1", pair.port))
    again = pair.listener.accept()[0]
    send(client, again, 5)
    closing(client, again)
    return pair.port, tcp(2, 15, 0)


def handed_on():
    """A connection that another process serves belongs to the one that listened."""
    pair = Pair()
    client = socket.create_connection(("127.0.0.1", pair.port))
    child = os.fork()
    if child == 0:
        server = pair.listener.accept()[0]
        server.sendall(b"hello")
        settle(server)
        server.close()
        os._exit(0)
    receive(client, 5)
    assert client.recv(1) == b""
    client.close()
    os.waitpid(child, 0)
    return pair.port, tcp(1, 0, 5, pid=os.getpid())


def fast_open():
    """The first connection gets the cookie; the second one's data comes with its SYN."""
    pair = Pair()
    pair.listener.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN, 10)
    for _ in range(2):
        client = socket.socket()
        client.sendto(bytes(100), MSG_FASTOPEN, ("127.0.0.1", pair.port))
        server = pair.listener.accept()[0]
        receive(server, 100)
        settle(client)
        taken = struct.unpack_from("B", client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8), 5)[0] & 32
        closing(client, server)
    assert taken, "the data did not come with the SYN"
    return pair.port, tcp(2, 200, 0)


def datagrams(sent, received, bytes_sent, bytes_received):
    counts = [{"sent": sent, "received": received}, {"sent": bytes_sent, "received": bytes_received}]
    flip = lambda count: {"sent": count["received"], "received": count["sent"]}
    return {
        "outgoing": {"datagrams": counts[0], "bytes": counts[1]},
        "incoming": {"datagrams": flip(counts[0]), "bytes": flip(counts[1])},
    }


# The servers of all ways: while one is open, no other gets its port, by which the flows are told apart.
SERVERS = []


def udp_sockets(host="127.0.0.1", family=None):
    kind = socket.AF_INET6 if ":" in host else socket.AF_INET
    server, client = socket.socket(kind, socket.SOCK_DGRAM), socket.socket(family or kind, socket.SOCK_DGRAM)
    server.bind((host, 0))
    SERVERS.append(server)
    return client, server, server.getsockname()[1]


def exchange(client, server, port, host="127.0.0.1", connected=False):
    if connected:
        client.connect((host, port))
    for length in (5, 0, 60_000):
        client.send(bytes(length)) if connected else client.sendto(bytes(length), (host, port))
        data, peer = server.recvfrom(1 << 16)
        assert len(data) == length
    server.sendto(bytes(7), peer)
    assert len(client.recv(1 << 16)) == 7
    return port, datagrams(3, 1, 60_005, 7)


def udp():
    return exchange(*udp_sockets())


def udp_connected():
    return exchange(*udp_sockets(), connected=True)


def udp6():
    return exchange(*udp_sockets("::1"), host="::1")


def udp_mapped():
    client, server, port = udp_sockets(family=socket.AF_INET6)
    return exchange(client, server, port, host="::ffff:127.0.0.1")


def udp_options():
    client, server, port = udp_sockets()
    for sock in (client, server):
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, b"\1\1\1\1")
    return exchange(client, server, port)


def udp6_extensions():
    client, server, port = udp_sockets("::1")
    for sock in (client, server):
        for option in (socket.IPV6_HOPOPTS, socket.IPV6_DSTOPTS):
            sock.setsockopt(socket.IPPROTO_IPV6, option, bytes([0, 0, 1, 4, 0, 0, 0, 0]))
    return exchange(client, server, port, host="::1")


def udp_corked():
    client, server, port = udp_sockets()
    client.connect(("127.0.0.1", port))
    client.setsockopt(socket.IPPROTO_UDP, UDP_CORK, 1)
    client.send(b"one"), client.send(b"two")
    client.setsockopt(socket.IPPROTO_UDP, UDP_CORK, 0)
    client.send(b"more", socket.MSG_MORE), client.send(b"data")
    assert (server.recv(100), server.recv(100)) == (b"onetwo", b"moredata")
    return port, datagrams(2, 0, 14, 0)


def udp_segmented(together=False, host="127.0.0.1"):
    client, server, port = udp_sockets(host)
    if together:
        server.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
    client.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 100)
    client.sendto(bytes(950), (host, port))
    receive(server, 950)
    return port, datagrams(10, 0, 950, 0)


def udp_multicast():
    """A datagram to a group that this host is in leaves and is looped back, but was sent once."""
    group, interface = "239.1.2.3", socket.inet_aton("10.9.0.1")
    client, server, port = udp_sockets(group)
    server.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group) + interface)
    client.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, interface)
    for _ in range(10):
        client.sendto(bytes(7), (group, port))
        assert len(server.recv(10)) == 7
    return port, datagrams(10, 0, 70, 0)


def udp_refused():
    """Nobody is there, but the datagrams are sent."""
    client, server, port = udp_sockets()
    server.close()
    client.connect(("127.0.0.1", port))
    client.send(b"x")
    assert client.connect_ex(("127.0.0.1", port)) in (0, errno.ECONNREFUSED)
    return port, {"outgoing": {"datagrams": {"sent": 1, "received": 0}, "bytes": {"sent": 1, "received": 0}}}


WAYS = {
    "queued_answer": lambda: queued(True),
    "one_byte6": lambda: one_byte(host="::1", family=socket.AF_INET6),
    "one_byte_mapped": lambda: one_byte(to="::ffff:127.0.0.1", family=socket.AF_INET6),
    "one_byte_dual_stack": lambda: one_byte(host="::", to="127.0.0.1"),
    "bulk6": lambda: bulk(host="::1", family=socket.AF_INET6),
    "mptcp": lambda: one_byte(client=IPPROTO_MPTCP, server=IPPROTO_MPTCP),
    "mptcp_client": lambda: bulk(client=IPPROTO_MPTCP),
    "mptcp_server": lambda: bulk(server=IPPROTO_MPTCP),
    "udp_segmented_together": lambda: udp_segmented(True),
    "udp6_segmented": lambda: udp_segmented(False, "::1"),
}
for name in sys.argv[1:]:
    port, flows = WAYS.get(name, globals().get(name))()
    for flow in flows.values():
        flow.setdefault("pid", os.getpid())
    print(json.dumps({"way": name, "port": port, "flows": flows}), flush=True)
