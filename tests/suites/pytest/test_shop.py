import asyncio, http.client, http.server, os, socket, subprocess, sys, threading, urllib.request
import pytest

def test_phones_home():
    urllib.request.urlopen("http://192.0.2.1/", timeout=1)

def test_swallows_the_error():
    socket.socket().connect_ex(("192.0.2.1", 80))

def test_swallows_the_same():
    socket.socket().connect_ex(("192.0.2.1", 80))

def test_serves_itself():
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    threading.Thread(target=server.handle_request).start()
    assert urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/").status == 200

def test_unix_socket(tmp_path):
    listener = socket.socket(socket.AF_UNIX); listener.bind(str(tmp_path / "s")); listener.listen()
    socket.socket(socket.AF_UNIX).connect(str(tmp_path / "s"))

def test_subprocess():
    subprocess.run([sys.executable, "-c", "import socket, time; socket.socket().connect_ex(('192.0.2.2', 80)); time.sleep(0.2)"])

def test_thread():
    thread = threading.Thread(target=lambda: socket.socket().connect_ex(("192.0.2.1", 80)))
    thread.start(); thread.join()

def test_asyncio():
    async def main():
        try:
            await asyncio.open_connection("192.0.2.1", 80)
        except OSError:
            pass
    asyncio.run(main())

@pytest.mark.guard(expect=["connect tcp 192.0.2.1:80"])
def test_stays_at_home():
    socket.socket().connect_ex(("192.0.2.1", 80))

@pytest.mark.guard(expect=["connect tcp 192.0.2.9:*"])
def test_does_not_call():
    pass

@pytest.mark.guard(allow=["connect tcp 192.0.2.1:*"])
def test_may_call():
    subprocess.run(["curl", "-s", "http://192.0.2.1/"])

@pytest.mark.parametrize("case", ["a::b", "c d"])
def test_case(case):
    socket.socket().connect_ex(("192.0.2.1", 80))

class TestShop:
    def test_calls(self):
        socket.socket().connect_ex(("192.0.2.1", 80))

@pytest.fixture
def calling():
    yield
    socket.socket().connect_ex(("192.0.2.1", 80))

def test_teardown(calling):
    pass

def test_quiet():
    pass
