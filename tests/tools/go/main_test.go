package main

import (
	"net/http"
	"testing"
)

func TestServer(t *testing.T) {
	answers := visit(http.HandlerFunc(greet))
	if answers[7] != "hello /7" {
		t.Errorf("%q", answers)
	}
}
