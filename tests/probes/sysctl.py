"""Uses kernel tunables. Each argument is one attempt: "HOW NAME [PROC]", where PROC is where procfs is mounted. Writing
writes the value that is there already (which the control has left in $VALUES, since it may not be readable). Or
"write NAME [BYTES]", or pwrite (at offset 1), with bytes in hexadecimal: none write nothing. Prints "ATTEMPT: ok", or the
name of the error.
"""
import errno, os, sys


def attempt(how, name, proc="/proc"):
    if how in ("write", "pwrite"):
        file = os.open(f"/proc/sys/{name}", os.O_WRONLY)
        value = b"" if proc == "/proc" else bytes.fromhex(proc)
        os.write(file, value) if how == "write" else os.pwrite(file, value, 1)
        return
    path = f"{proc}/sys/{name}"
    if how == "w":
        file = os.open(path, os.O_WRONLY)
        os.write(file, os.environ["VALUE"].encode())
        return
    file = os.open(path, os.O_RDWR if how == "rdwr" else os.O_RDONLY)
    if how in ("r", "rdwr"):
        got = os.read(file, 4096)
    elif how == "pread":
        got = os.pread(file, 4096, 1)
    elif how == "readv":
        os.readv(file, [buffer := bytearray(4096)])
        got = bytes(buffer).rstrip(b"\0")
    elif how == "sendfile":
        reader, writer = os.pipe()
        os.sendfile(writer, file, 0, 4096)
        got = os.read(reader, 4096)
    elif how == "splice":
        reader, writer = os.pipe()
        os.splice(file, writer, 4096)
        got = os.read(reader, 4096)
    elif how == "open":
        got = b"opened"
    assert got, "nothing was read"


for word in sys.argv[1:]:
    try:
        attempt(*word.split())
        print(f"{word}: ok")
    except OSError as error:
        print(f"{word}: {errno.errorcode[error.errno]}")
