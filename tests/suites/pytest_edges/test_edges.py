import socket, subprocess
import pytest

# It has ended before guard-run looks at it, nearly always.
SHORT = ["curl", "-s", "http://192.0.2.1/"]

def test_short():
    subprocess.run(SHORT)

@pytest.mark.guard(expect=["connect tcp 192.0.2.1:80"])
def test_short_stays_at_home():
    subprocess.run(SHORT)

@pytest.mark.guard(allow=["connect tcp 192.0.3.*"])
def test_short_may_call_others():
    subprocess.run(SHORT)

@pytest.mark.guard(allows=["connect tcp 192.0.2.1:80"])
def test_wrong_mark():
    pass

@pytest.mark.guard(allow="connect tcp 192.0.2.1:80")
def test_string():
    pass

@pytest.fixture
def calls():
    socket.socket().connect_ex(("192.0.2.1", 80))

@pytest.fixture
def fails():
    socket.socket().connect_ex(("192.0.2.1", 80))
    raise OSError("not there")

def test_setup_calls(calls):
    pass

def test_setup_fails(fails):
    pass

@pytest.mark.guard(expect=["connect tcp 192.0.2.1:80"])
def test_setup_stays_at_home(calls):
    pass

def test_quiet():
    pass
