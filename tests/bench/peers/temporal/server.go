package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/types/known/durationpb"
)

const (
	namespace = "bench"
	patience  = time.Minute
	// Of a small installation; it cannot be changed later.
	historyShards = 4
	// Connections of the server to PostgreSQL.
	connections = 20
)

//go:embed server.yaml
var serverConfig string

type ports struct{ Frontend, FrontendMember, History, HistoryMember, Matching, MatchingMember, Worker, WorkerMember int }

// Settings of the server's configuration file.
type settings struct {
	Ports       ports
	Postgres    string
	Shards      int
	Connections int
}

func beside(program string) (string, error) {
	own, err := os.Executable()
	return filepath.Join(filepath.Dir(own), program), err
}

// makeSchema makes both databases with Temporal's own tool.
func makeSchema(port string) error {
	tool, err := beside("sql")
	if err != nil {
		return err
	}
	for database, schema := range map[string]string{
		"temporal": "postgresql/v12/temporal", "temporal_visibility": "postgresql/v12/visibility",
	} {
		common := []string{"--plugin", "postgres12", "--ep", "127.0.0.1", "--port", port, "--user", "postgres", "--db", database}
		for _, step := range [][]string{
			{"create-database"}, {"setup-schema", "--version", "0.0"}, {"update-schema", "--schema-name", schema},
		} {
			said, err := exec.Command(tool, append(common, step...)...).CombinedOutput()
			if err != nil {
				return fmt.Errorf("%s of %s: %w\n%s", step[0], database, err, said)
			}
		}
	}
	return nil
}

// startServer starts the server, all four services in one process, and waits until its namespace is there.
func startServer(folder, postgres string) (*exec.Cmd, string, error) {
	if err := makeSchema(postgres); err != nil {
		return nil, "", err
	}
	free, err := freePorts(8)
	if err != nil {
		return nil, "", err
	}
	given := settings{
		Ports:    ports{free[0], free[1], free[2], free[3], free[4], free[5], free[6], free[7]},
		Postgres: "127.0.0.1:" + postgres, Shards: historyShards, Connections: connections,
	}
	config := filepath.Join(folder, "server.yaml")
	var text strings.Builder
	if err := template.Must(template.New("").Parse(serverConfig)).Execute(&text, given); err != nil {
		return nil, "", err
	}
	if err := os.WriteFile(config, []byte(text.String()), 0o600); err != nil {
		return nil, "", err
	}
	program, err := beside("server")
	if err != nil {
		return nil, "", err
	}
	log, err := os.Create(filepath.Join(folder, "server.log"))
	if err != nil {
		return nil, "", err
	}
	defer log.Close()
	server := exec.Command(program, "--config-file", config, "--allow-no-auth", "start")
	server.Stdout, server.Stderr = log, log
	if err := server.Start(); err != nil {
		return nil, "", err
	}
	address := fmt.Sprintf("127.0.0.1:%d", given.Ports.Frontend)
	if err := makeNamespace(address); err != nil {
		end(server)
		said, _ := os.ReadFile(log.Name())
		return nil, "", fmt.Errorf("%w; the end of the server's log:\n%s", err, said[max(0, len(said)-2000):])
	}
	return server, address, nil
}

func makeNamespace(address string) error {
	deadline := time.Now().Add(patience)
	var last error
	for time.Now().Before(deadline) {
		last = tryNamespace(address)
		if last == nil {
			return nil
		}
		time.Sleep(250 * time.Millisecond)
	}
	return fmt.Errorf("no namespace within %s: %w", patience, last)
}

func tryNamespace(address string) error {
	namespaces, err := client.NewNamespaceClient(client.Options{HostPort: address, Logger: quiet{}})
	if err != nil {
		return err
	}
	defer namespaces.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err = namespaces.Register(ctx, &workflowservice.RegisterNamespaceRequest{
		Namespace: namespace, WorkflowExecutionRetentionPeriod: durationpb.New(24 * time.Hour),
	})
	var known *serviceerror.NamespaceAlreadyExists
	if err != nil && !errors.As(err, &known) {
		return err
	}
	// The services hear of it later than the database.
	asked, err := client.Dial(client.Options{HostPort: address, Namespace: namespace, Logger: quiet{}})
	if err != nil {
		return err
	}
	defer asked.Close()
	_, err = asked.CountWorkflow(ctx, &workflowservice.CountWorkflowExecutionsRequest{Namespace: namespace})
	return err
}

// freePorts finds ports that Temporal's table of members can hold, a signed number of 16 bits.
func freePorts(count int) ([]int, error) {
	var found []int
	var last error
	for port := 20_000 + os.Getpid()%10_000; len(found) < count; port++ {
		if port > math.MaxInt16 {
			return nil, fmt.Errorf("no %d free ports: %w", count, last)
		}
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			last = err
			continue
		}
		listener.Close()
		found = append(found, port)
	}
	return found, nil
}

func end(process *exec.Cmd) {
	if process == nil || process.Process == nil {
		return
	}
	_ = process.Process.Kill()
	_ = process.Wait()
}
