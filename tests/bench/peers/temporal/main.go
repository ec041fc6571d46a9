// Temporal as a peer of the bench: its own server on PostgreSQL, a worker with the saga, and the driver that the
// bench speaks to over lines (see ../README.md).
//
//	bench ──lines──▶ driver (this process) ──▶ temporal-server ──▶ PostgreSQL (the bench's)
//	                                            ▲
//	                                            └── worker: workflow and activities
//
// The server and its schema tool are built from their module, unchanged; go.mod pins them.
package main

import (
	"fmt"
	"os"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "temporal:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	switch {
	case len(arguments) == 2 && arguments[0] == "worker":
		return runWorker(arguments[1])
	case len(arguments) == 5 && arguments[0] == "drive":
		return drive(setup{folder: arguments[1], class: arguments[2], order: arguments[3], postgres: arguments[4]})
	}
	return fmt.Errorf("usage: drive FOLDER CLASS ORDER POSTGRES_PORT, or worker ADDRESS")
}

// quiet keeps the SDK's log to what somebody has to see, away from the lines of the protocol.
type quiet struct{}

func (quiet) Debug(string, ...interface{}) {}
func (quiet) Info(string, ...interface{})  {}
func (quiet) Warn(message string, fields ...interface{}) {
	fmt.Fprintln(os.Stderr, append([]interface{}{"temporal sdk:", message}, fields...)...)
}
func (quiet) Error(message string, fields ...interface{}) {
	fmt.Fprintln(os.Stderr, append([]interface{}{"temporal sdk:", message}, fields...)...)
}
