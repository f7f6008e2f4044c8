"""Serves outside the sandbox, then becomes the command: "PROGRAM FILE SERVER … -- COMMAND …". A SERVER is KIND:ADDRESS with
a kind that sandbox.py knows, and options behind a plus sign: "tcp4+reuseport:127.0.0.1". All are on one port, which the
command finds in OUTSIDE. Each answers "out", and notes in FILE what it hears. Servers end with the command.

There is also a keeper of sockets, at the abstract Unix socket that the command finds in KEEPER. With a socket, it is told
what to do: "connect" it to the port, "answer" who asks it; or "give" a listener of its own.
"""
import ctypes, errno, os, signal, socket, sys, threading


def keep(keeper):
    client, _ = keeper.accept()
    while told := socket.recv_fds(client, 100, 1):
        word, fds = told[:2]
        if word == b"give":
            mine = answer(bound("tcp4", "127.0.0.1"), b"given")
            socket.send_fds(client, [b"x"], [mine.fileno()])
            continue
        sock, said = socket.socket(fileno=fds[0]), "done"
        sock.settimeout(None if word == b"answer" else 5)
        if word == b"answer":
            answer(sock, b"kept")
        else:
            try:
                sock.connect(("127.0.0.1", port))
            except OSError as error:
                said = errno.errorcode[error.errno]
        client.sendall(said.encode())


sys.path.insert(0, "")
file, rest = sys.argv[1], sys.argv[2:]
servers, command = rest[: rest.index("--")], rest[rest.index("--") + 1 :]
port, made = 0, []
for server in servers:
    how, address = server.split(":", 1)
    kind, *options = how.split("+")
    made.append(bound(kind, address, port, options))
    port = made[-1].getsockname()[1]
keeper = socket.socket(socket.AF_UNIX)
keeper.bind("")
keeper.listen()
os.environ["KEEPER"] = keeper.getsockname()[1:].decode()
ready, tell = os.pipe()
if os.fork() == 0:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    for sock in made:
        answer(sock, b"out", file)
    threading.Thread(target=keep, args=(keeper,), daemon=True).start()
    os.write(tell, b"x")
    signal.pause()
os.read(ready, 1)
os.closerange(3, 100)
os.environ["OUTSIDE"] = str(port)
os.execvp(command[0], command)
