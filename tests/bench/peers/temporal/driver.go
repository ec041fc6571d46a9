package main

import (
	"bufio"
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
)

type setup struct{ folder, class, order, postgres string }

// hello is the first line: what it is, and whose processor time counts as what.
type hello struct {
	About     map[string]string `json:"about"`
	Processes processes         `json:"processes"`
}

type processes struct {
	Orchestrator int `json:"orchestrator"`
	Participants int `json:"participants"`
}

type driver struct {
	connection client.Client
	order      Order
	said       sync.Mutex
}

func (d *driver) say(format string, arguments ...any) {
	d.said.Lock()
	defer d.said.Unlock()
	fmt.Printf(format+"\n", arguments...)
}

func drive(given setup) error {
	var order Order
	if err := json.Unmarshal([]byte(given.order), &order); err != nil {
		return fmt.Errorf("the order: %w", err)
	}
	server, address, err := startServer(given.folder, given.postgres)
	if err != nil {
		return err
	}
	defer end(server)
	own, err := os.Executable()
	if err != nil {
		return err
	}
	worker := exec.Command(own, "worker", address)
	worker.Stderr = os.Stderr
	toWorker, err := worker.StdinPipe()
	if err != nil {
		return err
	}
	out, err := worker.StdoutPipe()
	if err != nil {
		return err
	}
	if err := worker.Start(); err != nil {
		return err
	}
	defer end(worker)
	fromWorker := bufio.NewScanner(out)
	if !fromWorker.Scan() || fromWorker.Text() != "ready" {
		return errors.New("the worker did not start")
	}
	connection, err := client.Dial(client.Options{HostPort: address, Namespace: namespace, Logger: quiet{}})
	if err != nil {
		return err
	}
	defer connection.Close()
	d := &driver{connection: connection, order: order}
	if err := d.warmUp(); err != nil {
		return err
	}
	greeting, err := json.Marshal(hello{
		About:     about(given.class),
		Processes: processes{Orchestrator: server.Process.Pid, Participants: worker.Process.Pid},
	})
	if err != nil {
		return err
	}
	d.say("%s", greeting)
	return d.serve(toWorker, fromWorker)
}

// warmUp runs one saga until it has ended: the services of a new server find each other late.
func (d *driver) warmUp() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err := d.outcome(ctx, "r0-0")
	return err
}

func (d *driver) serve(toWorker io.Writer, fromWorker *bufio.Scanner) error {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		words := strings.SplitN(lines.Text(), " ", 3)
		switch {
		case words[0] == "start" && len(words) == 3:
			go d.start(words[1], words[2])
		case words[0] == "open":
			open, err := d.open()
			if err != nil {
				return err
			}
			d.say("open %d", open)
		case words[0] == "ledger":
			if _, err := fmt.Fprintln(toWorker, lines.Text()); err != nil {
				return err
			}
			if !fromWorker.Scan() {
				return errors.New("the worker has ended")
			}
			d.say("%s", fromWorker.Text())
		default:
			return fmt.Errorf("not understood: %s", lines.Text())
		}
	}
	return lines.Err()
}

func (d *driver) start(run, index string) {
	told, err := d.outcome(context.Background(), "r"+run+"-"+index)
	if err != nil {
		d.say("failed %s %s %s", run, index, strconv.Quote(err.Error()))
		return
	}
	d.say("ended %s %s %s", run, index, told)
}

// outcome starts a saga under its id and waits for its end.
func (d *driver) outcome(ctx context.Context, id string) (string, error) {
	run, err := d.connection.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: id, TaskQueue: taskQueue, WorkflowIDReusePolicy: enums.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE,
	}, PlaceOrder, d.order)
	if err != nil {
		return "", err
	}
	err = run.Get(ctx, nil)
	var application *temporal.ApplicationError
	switch {
	case err == nil:
		return "committed", nil
	case errors.As(err, &application) && application.Type() == refused:
		return "compensated", nil
	}
	return "", err
}

// open is how many sagas the server says are running. Its visibility store is told later, so a few looks.
func (d *driver) open() (int64, error) {
	for look := 0; ; look++ {
		count, err := d.connection.CountWorkflow(context.Background(), &workflowservice.CountWorkflowExecutionsRequest{
			Namespace: namespace, Query: "ExecutionStatus = 'Running'",
		})
		if err != nil || count.Count == 0 || look == 100 {
			return count.GetCount(), err
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// version is the one that a program beside this one was built from.
func version(program string) string {
	path, err := beside(program)
	if err != nil {
		return err.Error()
	}
	built, err := buildinfo.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return built.Main.Version
}

func about(class string) map[string]string {
	versions := map[string]string{}
	if built, ok := debug.ReadBuildInfo(); ok {
		versions["go"] = built.GoVersion
		for _, module := range built.Deps {
			versions[module.Path] = module.Version
		}
	}
	durability := "PostgreSQL, fsync on, synchronous_commit on: each commit is on the disk before it is acknowledged"
	if class == "C" {
		durability = "PostgreSQL, synchronous_commit off: a crash of PostgreSQL or of the machine loses the last commits"
	}
	return map[string]string{
		"server":     "go.temporal.io/server " + version("server") + ", all services in one process",
		"sdk":        "go.temporal.io/sdk " + versions["go.temporal.io/sdk"] + ", " + versions["go"],
		"settings":   fmt.Sprintf("%d history shards, %d connections, autoscaled pollers, eager activities, retention 24 h", historyShards, connections),
		"durability": durability,
	}
}
