"""Tries to make sockets, and to send packets by them. Each argument is one attempt:

"socket FAMILY TYPE PROTOCOL", with numbers, prints "ATTEMPT: ok".
"HOW ADDRESS PORT" sends and prints "ATTEMPT: ok" with what has arrived at a receiver there: HOW is a way to do it and the
family, e.g. ping4, or forged_udp6 for a raw socket that sends a UDP header of its own.

Failures print the name of the error.
"""
import errno, os, socket, struct, sys

IP_OPTIONS, IPV6_HOPOPTS, IPV6_DSTOPTS = 4, 54, 59
PADDING = bytes([0, 0, 1, 4, 0, 0, 0, 0])  # an extension header of eight bytes that says nothing


def header(kind, port):
    """What comes behind the IP header, without a checksum where that may be."""
    if kind == "tcp":
        return struct.pack(">HHIIBBHHH", 7, port, 0, 0, 0x50, 2, 0, 0, 0)
    return struct.pack(">HHHH", 7, port, 13, 0) + b"hello"


def header4(address, protocol, payload, options=b"", fragment=0, version=4):
    length = 20 + len(options) + len(payload)
    first = version << 4 | 5 + len(options) // 4
    fixed = struct.pack(">BBHHHBBH", first, 0, length, 1, fragment, 64, protocol, 0)
    return fixed + socket.inet_aton("127.0.0.1") + socket.inet_aton(address) + options + payload


def as_version6(packet):
    """What the kernel sends as IPv4, and looks like IPv6's UDP to fd00::7."""
    packet = bytearray(packet)
    packet[0], packet[6], packet[24:40] = 0x65, 17, socket.inet_pton(socket.AF_INET6, "fd00::7")
    return bytes(packet)


def send(how, address, port):
    kind, v6 = how[:-1], how.endswith("6")
    family = socket.AF_INET6 if v6 else socket.AF_INET
    if kind in ("ping", "ping_connected"):
        sock = socket.socket(family, socket.SOCK_DGRAM, socket.IPPROTO_ICMPV6 if v6 else socket.IPPROTO_ICMP)
        echo = struct.pack(">BBHHH", 128 if v6 else 8, 0, 0, 0, 1)
        if kind == "ping":
            sock.sendto(echo, (address, 0))
        else:
            sock.connect((address, 0))
            sock.send(echo)
        sock.settimeout(1)
        return f"reply {sock.recv(100)[0]}"
    elif kind.startswith("forged_"):
        # Where rules tell hosts apart, raw sockets are for no datagrams, and have no routes of their own.
        sock = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_TCP)
        options = {
            "forged_options": (0, IP_OPTIONS, bytes([148, 4, 0, 0])),
            "forged_hop": (41, IPV6_HOPOPTS, PADDING),
            "forged_dst": (41, IPV6_DSTOPTS, PADDING),
        }
        if kind in options:
            sock.setsockopt(*options[kind])
        # For IPv6, the kernel has to fill in the checksum.
        if v6:
            sock.setsockopt(41, 7, 16)
        sock.sendto(header("tcp", port), (address, 0))
    else:
        sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        payload = header("udp", port)
        packet = {
            "hdrincl": lambda: header4(address, 17, payload),
            "hdrincl_tcp": lambda: header4(address, 6, header("tcp", port)),
            "hdrincl_options": lambda: header4(address, 17, payload, bytes([148, 4, 0, 0])),
            "hdrincl_lsrr": lambda: header4(address, 17, payload, bytes([1, 131, 3, 4])),
            "hdrincl_more": lambda: header4(address, 17, payload[:8], fragment=0x2000),
            "hdrincl_later": lambda: header4(address, 17, payload, fragment=1),
            "hdrincl_short": lambda: header4(address, 17, payload[:3]),
            "hdrincl_version": lambda: as_version6(header4(address, 17, bytes(40))),
        }[kind]()
        # Where it says that it goes is not where the call says.
        sock.sendto(packet, (address, 0))
    return None


def receiver(how, address, port):
    family = socket.AF_INET6 if how.endswith("6") else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind((address, port))
    sock.setblocking(False)
    return sock


def attempt(how, address, port):
    port = int(port)
    ears = None if how.startswith("ping") else receiver(how, address, port)
    said = send(how, address, port)
    if said or ears is None:
        return said or ""
    try:
        return f"arrived {ears.recv(100).decode()}"
    except BlockingIOError:
        return "sent"


for word in sys.argv[1:]:
    try:
        if word.startswith("socket "):
            socket.socket(*map(int, word.split()[1:]))
            print(f"{word}: ok")
        else:
            print(f"{word}: ok {attempt(*word.split())}")
    except OSError as error:
        print(f"{word}: {errno.errorcode.get(error.errno, error)}")
