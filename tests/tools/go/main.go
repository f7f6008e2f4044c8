// Does what Go programs do: a server and its clients, processes, users, timers.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"os/user"
	"runtime"
	"sync"
	"time"
)

// visit asks a web server for a page, many times at once.
func visit(handler http.Handler) []string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	server := &http.Server{Handler: handler}
	go server.Serve(listener)
	defer server.Close()
	answers := make([]string, 8)
	var all sync.WaitGroup
	for i := range answers {
		all.Add(1)
		go func(i int) {
			defer all.Done()
			response, err := http.Get(fmt.Sprintf("http://%v/%d", listener.Addr(), i))
			check(err)
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			check(err)
			answers[i] = string(body)
		}(i)
	}
	all.Wait()
	return answers
}

func greet(writer http.ResponseWriter, request *http.Request) {
	fmt.Fprintf(writer, "hello %s", request.URL.Path)
}

func main() {
	fmt.Println(visit(http.HandlerFunc(greet)))
	output, err := exec.Command("sh", "-c", "echo a process").Output()
	check(err)
	fmt.Printf("%s", output)
	self, err := user.Current()
	check(err)
	nobody, err := user.Lookup("nobody")
	check(err)
	fmt.Println(self.Username, nobody.Uid)
	addresses, err := net.LookupHost("localhost")
	check(err)
	fmt.Println(addresses)
	interfaces, err := net.Interfaces()
	check(err)
	fmt.Println(len(interfaces) > 0, interfaces[0].Name)
	<-time.After(time.Millisecond)
	fmt.Println(runtime.NumCPU(), runtime.GOMAXPROCS(0))
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
