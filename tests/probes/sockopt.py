"""Reads and sets socket options by the plain system calls. Each argument is one attempt: "get SOCKET LEVEL OPTION ROOM"
or "set SOCKET LEVEL OPTION VALUE". SOCKET is a kind of socket, e.g. tcp4; LEVEL and OPTION are numbers. ROOM is the
length that the call is told, or null:LENGTH for no buffer; VALUE is a number (an int), zeros:LENGTH, text:TEXT or
null:LENGTH, or a number with a length of its own, e.g. 1:3.

Prints "ATTEMPT: ok" with all that the call has returned and left in the buffer; or the name of the error with that, but
for EPERM alone.
"""
import ctypes, errno, os, socket, sys, zlib

libc = ctypes.CDLL(None, use_errno=True)
libc.getsockopt.argtypes = libc.setsockopt.argtypes = [ctypes.c_int] * 3 + [ctypes.c_void_p] * 2
FAMILIES = {"4": socket.AF_INET, "6": socket.AF_INET6, "unix": socket.AF_UNIX}


def make(kind):
    """A socket, and what has to live as long as it does."""
    if kind == "netlink":
        return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0), None
    if kind == "unix":
        return socket.socketpair()
    family = FAMILIES[kind[-1]]
    if kind.startswith("connected"):
        # By hand: create_server() sets an option.
        listener, made = socket.socket(family), socket.socket(family)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        made.connect(listener.getsockname())
        return made, listener
    if kind.startswith("raw"):
        return socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_ICMP), None
    return socket.socket(family, socket.SOCK_DGRAM if kind.startswith("udp") else socket.SOCK_STREAM), None


def get(fd, level, option, room):
    length = ctypes.c_int(int(room.removeprefix("null:")))
    # More than is said, so that what is written behind it shows, too.
    buffer = ctypes.create_string_buffer(b"\xa5" * (max(length.value, 0) + 64))
    address = None if room.startswith("null:") else ctypes.addressof(buffer)
    result = libc.getsockopt(fd, level, option, address, ctypes.addressof(length))
    content = zlib.crc32(buffer.raw) if not varies(level, option) else "varies"
    return result, f"{result} {length.value} {content}"


def varies(level, option):
    """Whether the value is another one each time: TCP_INFO, SO_COOKIE, SO_MEMINFO, SO_PEERCRED,
    SO_INCOMING_CPU, TCP_CC_INFO."""
    return (level, option) in ((6, 11), (1, 57), (1, 55), (1, 17), (1, 49), (6, 26))


def value_of(text):
    if text.startswith("zeros:"):
        return bytes(int(text.removeprefix("zeros:"))), None
    if text.startswith("text:"):
        return text.removeprefix("text:").encode(), None
    number, _, length = text.partition(":")
    return int(number).to_bytes(4, sys.byteorder, signed=True), int(length) if length else None


def set(fd, level, option, value):
    if value.startswith("null:"):
        result = libc.setsockopt(fd, level, option, None, int(value.removeprefix("null:")))
        return result, f"{result}"
    content, length = value_of(value)
    buffer = ctypes.create_string_buffer(content, len(content) + 64)
    length = len(content) if length is None else length
    result = libc.setsockopt(fd, level, option, ctypes.addressof(buffer), length)
    return result, f"{result}"


for word in sys.argv[1:]:
    how, kind, level, option, rest = word.split()
    made, other = make(kind)
    ctypes.set_errno(0)
    result, left = (get if how == "get" else set)(made.fileno(), int(level), int(option), rest)
    error = errno.errorcode[ctypes.get_errno()] if result < 0 else "ok"
    if how == "set" and error == "ok":
        # What it has done: read back, if it can be.
        left += " " + get(made.fileno(), int(level), int(option), "256")[1]
    print(f"{word}: {error}" + ("" if error == "EPERM" else f" {left}"))
