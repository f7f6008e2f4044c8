"""Uses device nodes. Each argument is one attempt: "HOW NODE", where HOW is the access and NODE is TYPE:MAJOR:MINOR. The
nodes (named so) are in the folder that the first argument names. Prints "ATTEMPT: ok", or the name of the error.
"""
import errno, os, stat, sys


def attempt(how, node):
    path = f"{folder}/{node}"
    if how == "r":
        os.read(os.open(path, os.O_RDONLY), 1)
    elif how == "w":
        os.open(path, os.O_WRONLY)
    elif how == "rw":
        os.open(path, os.O_RDWR)
    elif how == "3":
        # For ioctl(2) only; the kernel wants the permission to read and to write.
        os.open(path, 3)
    elif how == "m":
        kind, major, minor = node.split(":")
        made = f"{folder}/made-{os.getpid()}-{node}"
        os.mknod(made, 0o600 | (stat.S_IFCHR if kind == "c" else stat.S_IFBLK), os.makedev(int(major), int(minor)))
        os.unlink(made)
    elif how == "fd":
        held = os.open(path, os.O_PATH)
        os.open(f"/proc/self/fd/{held}", os.O_RDONLY)
    elif how == "truncate":
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    elif how == "nonblocking":
        os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    elif how == "link":
        linked = f"{folder}/linked-{os.getpid()}-{node}"
        os.link(path, linked)
        try:
            os.open(linked, os.O_RDONLY)
        finally:
            os.unlink(linked)
    else:
        raise ValueError(how)


folder = sys.argv[1]
for word in sys.argv[2:]:
    try:
        attempt(*word.split())
        print(f"{word}: ok")
    except OSError as error:
        print(f"{word}: {errno.errorcode[error.errno]}")
