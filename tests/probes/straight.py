"""Tries to have the kernel go elsewhere than where a hook looks. This program listens on all addresses of this host, by TCP and
UDP, at the port that is the first argument. Each other argument is one attempt:

"HOW DESTINATION WITH" sends to DESTINATION by HOW, a way and a family (fast6: by the first packet), and prints "ATTEMPT: ADDRESS", the address at which it
arrived, or the last byte of the hardware address to which it has left by the device "outer"; "nowhere" if it has not soon, or
the name of the error. WITH says by what means:

bound ADDRESS         the socket is bound to it
device NAME           it is bound to a device (SO_BINDTODEVICE)
unicast NAME          it sends by a device (IP_UNICAST_IF)
source ADDRESS        a control message names the address to send from (IP_PKTINFO)
route TYPE ADDRESS    a routing header of this type names it as the first segment, with none left; message_route: in a control
                      message
options HEX           the socket has these IP options
header, message_header  an IPv6 option header that says nothing (IPV6_DSTOPTS), of the socket or in a control message
after ADDRESS         it was connected to this address before, or tried to be
named ADDRESS         by raw4 and included4, raw sockets: the packet's own IP header names it (IPPROTO_RAW, IP_HDRINCL)
marked                a control message says something else of a datagram (IP_TOS, IPV6_TCLASS)
"""
import ctypes, errno, select, socket, struct, sys, time

IP_HDRINCL, IP_OPTIONS, IP_PKTINFO, IP_UNICAST_IF = 3, 4, 8, 50
IPV6_RECVPKTINFO, IPV6_PKTINFO, IPV6_RTHDR, IPV6_DSTOPTS, IPV6_UNICAST_IF = 49, 50, 57, 59, 76
PORT = int(sys.argv[1])
ETH_ALL, MSG_FASTOPEN = 3, 0x20000000
PADDING = bytes([0, 0, 1, 4, 0, 0, 0, 0])


def listeners():
    tcp = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    udp.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
    for sock in (tcp, udp):
        sock.bind(("::", PORT))
    tcp.listen(16)
    # What leaves by one end of the pair comes out of the other.
    frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_ALL))
    frames.bind(("inner", ETH_ALL))
    return tcp, udp, frames


def plain(address):
    return address.removeprefix("::ffff:")


def arrived(tcp, udp, frames):
    until = time.monotonic() + 0.3
    while (left := until - time.monotonic()) > 0:
        ready, _, _ = select.select([tcp, udp, frames], [], [], left)
        if tcp in ready:
            return plain(tcp.accept()[0].getsockname()[0])
        if udp in ready:
            (_, _, info), = udp.recvmsg(100, 100)[1]
            return plain(socket.inet_ntop(socket.AF_INET6, info[:16]))
        if frames in ready:
            frame = frames.recv(200)
            # Not what the kernel says by itself (ARP, multicast).
            if frame[:5] == bytes([2, 0, 0, 0, 0]):
                return f"wire {frame[5]:x}"
    return "nowhere"


def routing(kind, segment):
    address = socket.inet_pton(socket.AF_INET6, segment)
    if kind == 4:  # next header, length, type, segments left, last entry, flags, tag
        return bytes([0, 2, 4, 0, 0, 0, 0, 0]) + address
    return bytes([0, 2, kind, 1 if kind == 2 else 0, 0, 0, 0, 0]) + address


def attempt(how, destination, means="", *words):
    kind, v6 = how[:-1], how.endswith("6")
    if means == "named":
        sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW if kind == "raw" else socket.IPPROTO_ICMP)
        if kind == "included":
            sock.setsockopt(socket.IPPROTO_IP, IP_HDRINCL, 1)
        datagram = struct.pack("!4H", 9, PORT, 13, 0) + b"hello"
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(datagram), 0, 0, 64, socket.IPPROTO_UDP, 0)
        sock.sendto(header + socket.inet_aton("10.9.0.1") + socket.inet_aton(words[0]) + datagram, (destination, 0))
        return
    family = socket.AF_INET6 if v6 else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM if kind in ("tcp", "fast") else socket.SOCK_DGRAM)
    sock.settimeout(0.3)
    if means != "after":  # what may broadcast has no second peer
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    ipv6, ancillary = socket.IPPROTO_IPV6, []
    if means == "bound":
        sock.bind((words[0], 0))
    elif means == "device":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, words[0].encode())
    elif means == "unicast":
        number = struct.pack("!I", socket.if_nametoindex(words[0]))
        sock.setsockopt(socket.IPPROTO_IP, IP_UNICAST_IF, number)
    elif means == "source":
        ancillary = [(socket.IPPROTO_IP, IP_PKTINFO, bytes(4) + socket.inet_aton(words[0]) + bytes(4))]
    elif means == "route":
        sock.setsockopt(ipv6, IPV6_RTHDR, routing(int(words[0]), words[1]))
    elif means == "message_route":
        ancillary = [(ipv6, IPV6_RTHDR, routing(int(words[0]), words[1]))]
    elif means == "header":
        sock.setsockopt(ipv6, IPV6_DSTOPTS, PADDING)
    elif means == "message_header":
        ancillary = [(ipv6, IPV6_DSTOPTS, PADDING)]
    elif means == "after":
        try:
            sock.connect((words[0], 9))
        except OSError:
            pass
        ctypes.CDLL(None).connect(sock.fileno(), bytes(16), 16)  # AF_UNSPEC
    elif means == "options":
        sock.setsockopt(socket.IPPROTO_IP, IP_OPTIONS, bytes.fromhex(words[0]))
    elif means == "marked":
        ancillary = [(ipv6, 67, struct.pack("i", 8))] if v6 else [(socket.IPPROTO_IP, 1, struct.pack("i", 8))]
    to = (destination, PORT)
    if kind == "tcp":
        sock.connect(to)
    elif kind == "fast":
        sock.sendto(b"hello", MSG_FASTOPEN, to)
    elif kind == "udp":
        sock.connect(to)
        sock.sendmsg([b"hello"], ancillary)
    else:
        sock.sendmsg([b"hello"], ancillary, 0, to)


def main():
    ears = listeners()
    for line in sys.argv[2:]:
        try:
            attempt(*line.split())
            result = arrived(*ears)
        except TimeoutError:
            result = arrived(*ears)
        except OSError as error:
            result = errno.errorcode.get(error.errno, str(error))
            # A refusal must not be the error of something that has left all the same.
            there = arrived(*ears)
            result = result if there == "nowhere" else f"{result}, and {there}"
        print(f"{line}: {result}", flush=True)


main()
