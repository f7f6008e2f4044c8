"""A nameserver that knows a few names, for as long as a command runs. Arguments: its address, and the command."""
import ctypes, os, signal, socket, struct, sys, threading

PR_SET_PDEATHSIG = 1

LONG = 1000
# How long an answer by UDP may be.
LARGE = 60000
# Of these, an answer by UDP says only that there is more than it says.
ONLY_BY_TCP = {b"large.example.org"}


def encoded(name):
    return b"".join(bytes([len(label)]) + label for label in name.split(b".")) + b"\0"


def record(kind, data, owner=b"\xc0\x0c"):
    return owner + struct.pack(">HHIH", kind, 1, 60, len(data)) + data


def a(address, **more):
    return record(1, socket.inet_aton(address), **more)


def aaaa(address, **more):
    return record(28, socket.inet_pton(socket.AF_INET6, address), **more)


ZONE = {
    b"api.example.org": [a("203.0.113.7"), aaaa("2001:db8::7")],
    b"www.example.org": [record(5, encoded(b"far.cdn.test")), a("203.0.113.8", owner=encoded(b"far.cdn.test"))],
    b"near.example.org": [a("10.1.2.3"), aaaa("fd00::3"), a("127.0.0.1"), aaaa("::ffff:10.1.2.4")],
    b"meta.example.org": [a("169.254.169.254"), aaaa("fd00:ec2::254")],
    b"other.example.org": [a("203.0.113.9")],
    b"example.org": [a("192.0.2.10")],
    b"inside.example.org": [],
    b"large.example.org": [a("203.0.120.%d" % n) for n in range(90)],
    b"many.example.org": [a("203.0.%d.%d" % (114 + n // 250, n % 250)) for n in range(LONG)],
}


# 17 names of 1,000 addresses each.
for part in range(17):
    ZONE[b"part-%d.example.org" % part] = [a("203.%d.%d.%d" % (part + 1, n // 256, n % 256)) for n in range(LONG)]


def question(message):
    labels, place = [], 12
    while message[place]:
        labels.append(message[place + 1 : place + 1 + message[place]].lower())
        place += 1 + message[place]
    return b".".join(labels), place + 5


def answer(message, room):
    """What is answered to a query, in at most so many bytes. `None` to what is none."""
    try:
        name, end = question(message)
    except IndexError:
        return None
    kind = struct.unpack(">H", message[end - 4 : end - 2])[0]
    wanted = {1: (1, 5), 28: (28, 5)}.get(kind, (1, 5, 28))
    records = [record for record in ZONE.get(name, []) if kind_of(record) in wanted]
    flags = 0x8180 if name in ZONE else 0x8183
    if end + sum(map(len, records)) > room or name in ONLY_BY_TCP and room != 65535:
        records, flags = [], flags | 0x200
    header = message[:2] + struct.pack(">HHHHH", flags, 1, len(records), 0, 0)
    return header + message[12:end] + b"".join(records)


def by_tcp(listener):
    while True:
        connection = listener.accept()[0]
        threading.Thread(target=stream, args=(connection,), daemon=True).start()


def stream(connection):
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection, connection.makefile("rb") as messages:
        while length := messages.read(2):
            query = messages.read(int.from_bytes(length))
            message = answer(query, 65535)
            if message is None:
                return
            if question(query)[0] == b"inside.example.org":
                for part in with_another_inside(query):
                    connection.sendall(part)
            else:
                connection.sendall(len(message).to_bytes(2) + message)


def with_another_inside(query):
    """An answer in which the owner of a name has put one to api.example.org, in two parts, of which the second begins with that."""
    header = query[:2] + struct.pack(">HHHHH", 0x8180, 1, 1, 0, 0)
    other = header + encoded(b"api.example.org") + struct.pack(">HH", 1, 1) + a("203.0.113.66")
    inside = len(other).to_bytes(2) + other
    whole = header + query[12 : question(query)[1]] + record(16, inside)
    return [len(whole).to_bytes(2) + whole[: -len(inside)], inside]


def main():
    address = sys.argv[1]
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((address, 53))
    listener = socket.create_server((address, 53), family=family)
    command = os.getpid()
    if os.fork():
        os.execvp(sys.argv[2], sys.argv[2:])
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # Nobody must wait for the end of its output, or for it, when the command has ended.
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    os.dup2(1, 2)
    sock.settimeout(1)
    threading.Thread(target=by_tcp, args=(listener,), daemon=True).start()
    while True:
        try:
            message, client = sock.recvfrom(4096)
        except TimeoutError:
            if os.getppid() != command:
                return
            continue
        message = answer(message, LARGE)
        if message is not None:
            sock.sendto(message, client)


def kind_of(record):
    place = 0
    while record[place] and record[place] < 0xC0:
        place += 1 + record[place]
    place += 2 if record[place] else 1
    return struct.unpack(">H", record[place : place + 2])[0]


main()
