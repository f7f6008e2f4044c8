"""Connects to a name's address, and sends there what may begin with a TLS ClientHello. Each argument is one attempt: "HOW NAME". Prints
"ATTEMPT: ok" for each if it was answered, or the name of the error, and how many bytes have come there (the file SINK has them all);
"late" if it waited for two seconds: the kernel gives up sooner, but others may have the processor.
"""
import ssl, tempfile, threading, time

ADDRESS, PORT = "203.0.113.7", 8443
ALLOWED = "api.example.org"
MPTCP = 262
MSG_FASTOPEN, MSG_ZEROCOPY, SO_ZEROCOPY, TCP_ULP = 0x20000000, 0x4000000, 60, 31


def hello(name, protocols=0):
    """The message by which a client of OpenSSL's begins; with so many protocols, it is long."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if protocols:
        context.set_alpn_protocols(["protocol-%020d" % number for number in range(protocols)])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        context.wrap_bio(incoming, outgoing, server_hostname=name).do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()


def opened(kind=0):
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, kind)
    sock.settimeout(PATIENCE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def connect(kind=0):
    sock = opened(kind)
    sock.connect((ADDRESS, PORT))
    return sock


WAITED = [0.0]


def finish(sock):
    begin = time.monotonic()
    try:
        if not sock.recv(1):
            raise OSError(errno.EPIPE, "")
    finally:
        WAITED.append(time.monotonic() - begin)


def send(*parts, flags=0, kind=0):
    sock = connect(kind)
    for part in parts:
        sock.send(part, flags)
    finish(sock)
    return sock


def send_file(data, change=None):
    sock = connect()
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        file.write(data)
        file.flush()
        source = os.open(file.name, os.O_RDONLY)
        os.sendfile(sock.fileno(), source, 0, len(data))
        finish(sock)


def spliced(data):
    sock = connect()
    outgoing, incoming = os.pipe()
    os.write(incoming, data)
    os.splice(outgoing, sock.fileno(), len(data))
    finish(sock)


def fast(data):
    """Has the first packet of a connection carry it: once to be given a cookie, and then with that."""
    for _ in range(2):
        sock = opened()
        # Where no call may wait, the connection is made first.
        sock.settimeout(None)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("qq", PATIENCE, 0))
        sock.sendto(data, MSG_FASTOPEN, (ADDRESS, PORT))
        finish(sock)


def again(first, second):
    """The same socket, connected twice."""
    sock = send(first)
    disconnect(sock)
    sock.connect((ADDRESS, PORT))
    sock.send(second)
    finish(sock)


def disconnect(sock):
    import ctypes

    ctypes.CDLL(None).connect(sock.fileno(), bytes(16), 16)


def by_thread(data):
    sock, failed = connect(), []
    thread = threading.Thread(target=lambda: failed.append(sock.send(data)))
    thread.start()
    thread.join()
    finish(sock)


def passed(data):
    sock = connect()
    if not os.fork():
        sock.send(data)
        os._exit(0)
    os.wait()
    finish(sock)


def attempt(how, name):
    good, bad = hello(name), b"GET / HTTP/1.1\r\nHost: " + name.encode() + b"\r\n\r\n"
    actions = {
        "hello": lambda: send(good),
        "upper": lambda: send(good.replace(name.encode(), name.upper().encode())),
        "long": lambda: send(hello(name, 100)),
        "halves": lambda: send(good[:40], good[40:]),
        "bytes": lambda: send(*[bytes([byte]) for byte in good]),
        "ends": lambda: send(*[bytes([byte]) for byte in good], flags=socket.MSG_EOR),
        "half": lambda: send(good[:40]),
        "early": lambda: send(good + b"early data"),
        "more": lambda: send(good) and send(good, b"more"),
        "http": lambda: send(bad),
        "behind": lambda: send(b"x" + good),
        "after": lambda: send(bad, good),
        "anonymous": lambda: send(hello(None)),
        "dot": lambda: send(good.replace(name.encode(), name.replace(".", "\0", 1).encode())),
        "urgent": lambda: send(good, flags=socket.MSG_OOB),
        "file": lambda: send_file(good),
        "splice": lambda: spliced(good),
        "zerocopy": lambda: zerocopy(good),
        "fast": lambda: fast(good),
        "fast_http": lambda: fast(bad),
        "mptcp": lambda: send(good, kind=MPTCP),
        "mptcp_http": lambda: send(bad, kind=MPTCP),
        "again": lambda: again(good, good),
        "again_http": lambda: again(good, bad),
        "thread": lambda: by_thread(good),
        "thread_http": lambda: by_thread(bad),
        "passed": lambda: passed(good),
        "passed_http": lambda: passed(bad),
        "quic": lambda: udp().sendto(b"hello", (ADDRESS, PORT)),
        "quic_connected": lambda: udp().connect((ADDRESS, PORT)),
        "ask": lambda: ask(name),
        "secret": lambda: ask(name, 65),
        "secret_service": lambda: ask(name, 64),
    }
    actions[how]()


def zerocopy(data):
    sock = connect()
    sock.setsockopt(socket.SOL_SOCKET, SO_ZEROCOPY, 1)
    sock.send(data, MSG_ZEROCOPY)
    finish(sock)


ask(ALLOWED)
for argument in sys.argv[1:]:
    before = os.path.getsize(os.environ["SINK"])
    try:
        attempt(*argument.split())
        outcome = "ok"
    except OSError as error:
        outcome = errno.errorcode.get(error.errno, error)
    late = " late" if WAITED[-1] > 2 else ""
    come = os.path.getsize(os.environ["SINK"]) - before
    print(f"{argument}: {outcome}, {'some' if come else 'nothing'} came{late}", flush=True)
