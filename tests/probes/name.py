"""Asks the nameserver NS for names, and connects to what it answers. Each argument is one attempt: "HOW ARGUMENT …". Prints
"ATTEMPT: ok" for each, or the name of the error.
"""
import tempfile

UDP_SEGMENT = 103
EDNS = struct.pack(">BHHIH", 0, 41, 1232, 0, 0)
COOKIE = struct.pack(">BHHIH", 0, 41, 1232, 0, 12) + struct.pack(">HH", 10, 8) + bytes(8)


def forms(name):
    """Messages that ask for a name, and nearly do."""
    return {
        "plain": query(name),
        "upper": query(name.upper()),
        "edns": query(name, more=EDNS, additional=1),
        "cookie": query(name, more=COOKIE, additional=1),
        "aaaa": query(name, 28),
        "https": query(name, 65),
        "trailing": query(name, more=b"secret"),
        "behind_edns": query(name, more=EDNS + b"secret", additional=1),
        "no_edns": query(name, additional=1),
        "two": query(name, questions=2, more=encoded("secret.test") + struct.pack(">HH", 1, 1)),
        "none": query(name, questions=0),
        "answer": query(name, flags=0x8180),
        "update": query(name, flags=0x2800),
        "chaos": query(name, klass=3),
        "cut": query(name)[:-2],
        "short": query(name)[:11],
        "dot": query(bytes([len(name)]) + name.encode() + b"\0"),
        "nul": query(b"\x01a" + encoded(name)[:-1].replace(b"a", b"\0", 1) + b"\0"),
        "compressed": query(b"\xc0\x0c"),
        "long_label": query(b"\x40" + b"a" * 64 + encoded(name)),
        "junk": b"hello, outside",
        "empty": b"",
    }


def length(message):
    return len(message).to_bytes(2) + message


def stream(message, count=1, flags=0):
    """Sends that by TCP, and reads so many answers."""
    sock = socket.socket(FAMILY)
    # Whatever is dropped is tried again, and given up soon.
    sock.settimeout(PATIENCE)
    sock.connect(NS)
    sock.send(message, flags)
    return received(sock, count)


def received(sock, count=1):
    with sock.makefile("rb") as answers:
        for _ in range(count):
            answers.read(int.from_bytes(answers.read(2)))


def stream_file(message):
    sock = socket.socket(FAMILY)
    sock.settimeout(PATIENCE)
    sock.connect(NS)
    with tempfile.TemporaryFile() as file:
        file.write(message)
        file.seek(0)
        sock.sendfile(file)
        return received(sock)


def reach(address, port):
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    sock.settimeout(PATIENCE)
    sock.connect((address, int(port)))


def forged(name, address):
    """An answer that nobody has given."""
    header = struct.pack(">HHHHHH", 0x1234, 0x8180, 1, 1, 0, 0)
    question = encoded(name) + struct.pack(">HH", 1, 1)
    return header + question + b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + socket.inet_aton(address)


def forge(how, name, address):
    victim = connected()
    liar = udp()
    liar.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    ancillary = []
    if how == "bind":
        liar.bind(NS)
    else:
        liar.bind(("0.0.0.0", 53))
        ancillary = [(socket.IPPROTO_IP, 8, struct.pack("=I4s4s", 0, socket.inet_aton(NS[0]), bytes(4)))]
    if how == "options":
        # "No operation", four times.
        liar.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, b"\x01" * 4)
    victim.send(query(name))
    liar.sendmsg([forged(name, address)], ancillary, 0, victim.getsockname())


def attempt(how, *arguments):
    if how == "ask":
        return ask(*arguments)
    if how == "ask_to":
        sock = udp()
        sock.sendto(query(arguments[0]), NS)
        return sock.recv(65536)
    if how == "form":
        return connected().send(forms(arguments[1])[arguments[0]])
    if how == "segment":
        sock = connected()
        # The second one would be another message.
        message = query(arguments[0])
        sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, len(message))
        return sock.send(message + b"secret")
    if how == "zerocopy":
        sock = connected()
        sock.setsockopt(socket.SOL_SOCKET, 60, 1)
        return sock.send(query(arguments[0]), 0x4000000)
    if how == "away":
        # By another device than loopback, where somebody else may answer.
        sock = udp()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"v0")
        return sock.sendto(query(arguments[0]), NS)
    if how == "late":
        # Other data by a socket that has asked.
        sock = connected()
        sock.send(query(arguments[0]))
        return sock.send(b"secret")
    if how == "elsewhere":
        # The same, to another address, which may be sent to.
        sock = udp()
        sock.sendto(query(arguments[0]), NS)
        return sock.sendto(b"hello", (arguments[1], int(arguments[2])))
    if how == "tcp":
        return stream(length(query(arguments[0])))
    if how == "tcp_form":
        return stream(length(forms(arguments[1])[arguments[0]]))
    if how == "tcp_learn":
        name, address, port = arguments
        stream(length(query(name, 28 if ":" in address else 1)))
        return reach(address, port)
    if how == "tcp_both":
        # As the C library asks for both kinds of addresses.
        return stream(length(query(arguments[0], id=1)) + length(query(arguments[0], 28, id=2)), 2)
    if how == "tcp_parts":
        sock = socket.create_connection(NS, PATIENCE)
        message = length(query(arguments[0]))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.send(message[:2])
        sock.send(message[2:])
        return received(sock)
    if how == "tcp_more":
        return stream(length(query(arguments[0])) + b"secret")
    if how == "tcp_long":
        # Longer than there is.
        return stream(b"\xff\xff" + query(arguments[0]))
    if how == "tcp_file":
        return stream_file(length(query(arguments[0])))
    if how == "tcp_urgent":
        return stream(length(query(arguments[0])), flags=socket.MSG_OOB)
    if how == "reach":
        return reach(*arguments)
    if how == "learn":
        name, address, port = arguments
        ask(name, 28 if ":" in address else 1)
        return reach(address, port)
    if how == "datagram":
        name, address, port = arguments
        ask(name)
        return udp().sendto(b"hello", (address, int(port)))
    if how.startswith("forge_"):
        return forge(how.removeprefix("forge_"), *arguments)
    raise ValueError(how)


for argument in sys.argv[1:]:
    try:
        attempt(*argument.split())
        print(f"{argument}: ok", flush=True)
    except OSError as error:
        print(f"{argument}: {errno.errorcode.get(error.errno, error)}", flush=True)
