"""Asking the nameserver NS for names. Goes before other probes."""
import errno, os, socket, struct, sys

NS = (os.environ["NS"], 53)
FAMILY = socket.AF_INET6 if ":" in NS[0] else socket.AF_INET
PATIENCE = 5


def encoded(name):
    return b"".join(bytes([len(label)]) + label for label in name.encode().split(b".")) + b"\0"


def query(name, kind=1, id=0x1234, flags=0x100, questions=1, more=b"", additional=0, klass=1):
    header = struct.pack(">HHHHHH", id, flags, questions, 0, 0, additional)
    return header + (name if isinstance(name, bytes) else encoded(name)) + struct.pack(">HH", kind, klass) + more


def udp():
    sock = socket.socket(FAMILY, socket.SOCK_DGRAM)
    sock.settimeout(PATIENCE)
    return sock


def connected():
    sock = udp()
    sock.connect(NS)
    return sock


def ask(name, kind=1):
    kind = int(kind)
    sock = connected()
    sock.send(query(name, kind))
    return sock.recv(65536)
