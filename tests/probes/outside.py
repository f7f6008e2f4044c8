"""Serves outside the sandbox, then becomes the command: "PROGRAM FILE SERVER … -- COMMAND …". A SERVER is KIND:ADDRESS with
a kind that sandbox.py knows, and options behind a plus sign: "tcp4+reuseport:127.0.0.1". All are on one port, which the
command finds in OUTSIDE. Each answers "out", and notes in FILE what it hears. Servers end with the command.
"""
import ctypes, os, signal, sys

sys.path.insert(0, "")
file, rest = sys.argv[1], sys.argv[2:]
servers, command = rest[: rest.index("--")], rest[rest.index("--") + 1 :]
port, made = 0, []
for server in servers:
    how, address = server.split(":", 1)
    kind, *options = how.split("+")
    made.append(bound(kind, address, port, options))
    port = made[-1].getsockname()[1]
ready, tell = os.pipe()
if os.fork() == 0:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    for sock in made:
        answer(sock, b"out", file)
    os.write(tell, b"x")
    signal.pause()
os.read(ready, 1)
os.closerange(3, 100)
os.environ["OUTSIDE"] = str(port)
os.execvp(command[0], command)
