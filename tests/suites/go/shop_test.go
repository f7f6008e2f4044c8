package shop

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestPhonesHome(t *testing.T) {
	if _, err := net.Dial("tcp", "192.0.2.1:81"); err != nil {
		t.Fatal(err)
	}
}

func TestSwallowsTheError(t *testing.T) {
	_, _ = net.Dial("tcp", "192.0.2.1:82")
}

func TestServesItself(t *testing.T) {
	serves(t, "tcp", "127.0.0.1:0")
}

func TestUsesAUnixSocket(t *testing.T) {
	serves(t, "unix", filepath.Join(t.TempDir(), "socket"))
}

func serves(t *testing.T, network, address string) {
	listener, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client, err := net.Dial(network, listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	client.Close()
}

// Stays until guard-run has looked at this process, as tests do that take longer.
func TestMain(m *testing.M) {
	status := m.Run()
	for i := 0; i < 1000; i++ {
		if told, err := os.ReadFile(os.Getenv("GUARD_RUN_DENIALS")); err != nil || bytes.Count(told, []byte("\n")) >= 2 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	os.Exit(status)
}
