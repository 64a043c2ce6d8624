// Command server is a web server for guests of tests: each answer is a number
// that no other answer has. It listens where its argument says, or at :8080;
// with the argument "exit" it only ends.
package main

import (
	"fmt"
	"net"
	"os"
)

func main() {
	address := ":8080"
	if len(os.Args) > 1 {
		address = os.Args[1]
	}
	if address == "exit" {
		return
	}
	l, err := net.Listen("tcp4", address)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for {
		c, err := l.Accept()
		if err != nil {
			continue
		}
		_, _ = c.Read(make([]byte, 4096)) // the request
		uuid, _ := os.ReadFile("/proc/sys/kernel/random/uuid")
		fmt.Fprintf(c, "HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(uuid), uuid)
		c.Close()
	}
}
