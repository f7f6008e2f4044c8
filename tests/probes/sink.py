"""Takes connections at port 8443 for as long as a command runs. Whatever comes goes to the end of the file SINK, and is answered with "x".
Arguments: the command.
"""
import contextlib, ctypes, os, signal, socket, sys, threading

PR_SET_PDEATHSIG = 1
TCP_FASTOPEN = 23
MPTCP = 262
PORT = 8443


def listen():
    try:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, MPTCP)
    except OSError:
        sock = socket.socket(socket.AF_INET6)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Before Linux 6.2, listeners of MPTCP have none.
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN, 16)
    sock.bind(("::", PORT))
    sock.listen(16)
    return sock


def serve(connection, sink):
    # What is urgent is taken out of the rest, as it is by default.
    with connection, contextlib.suppress(OSError):
        while data := connection.recv(65536):
            os.write(sink, data)
            connection.send(b"x")


def main():
    sock, sink = listen(), os.open(os.environ["SINK"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    if os.fork():
        os.execvp(sys.argv[1], sys.argv[1:])
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    while True:
        threading.Thread(target=serve, args=(sock.accept()[0], sink), daemon=True).start()


main()
