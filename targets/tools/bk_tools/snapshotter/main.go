// Command containerd-stargz-grpc serves the stargz snapshotter on a unix socket.
//
// The upstream command of that name lives in a module of its own that no module
// registry serves; its library does. This main keeps the flags that callers of
// the upstream command use and where it looks for credentials, Docker's
// configuration. It adds sd_notify, so that nobody has to poll the socket to
// learn that it is ready.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/contrib/snapshotservice"
	"github.com/containerd/log"
	"github.com/containerd/stargz-snapshotter/service"
	"github.com/containerd/stargz-snapshotter/service/keychain/dockerconfig"
	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/pelletier/go-toml/v2"
	"google.golang.org/grpc"
)

func main() {
	var (
		address  = flag.String("address", "/run/containerd-stargz-grpc/containerd-stargz-grpc.sock", "unix socket to serve on")
		root     = flag.String("root", "/var/lib/containerd-stargz-grpc", "directory for the snapshotter's state")
		config   = flag.String("config", "", "TOML configuration file; without it, only defaults: never a file of the host")
		logLevel = flag.String("log-level", "info", "trace, debug, info, warn, error, fatal or panic")
	)
	flag.Parse()
	if err := run(*address, *root, *config, *logLevel); err != nil {
		fmt.Fprintln(os.Stderr, "containerd-stargz-grpc:", err)
		os.Exit(1)
	}
}

func run(address, root, configPath, logLevel string) error {
	if err := log.SetLevel(logLevel); err != nil {
		return err
	}
	if err := log.SetFormat(log.JSONFormat); err != nil {
		return err
	}
	cfg, err := load(configPath)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()

	credentials := service.WithCredsFuncs(dockerconfig.NewDockerconfigKeychain(ctx))
	snapshotter, err := service.NewStargzSnapshotterService(ctx, root, cfg, credentials)
	if err != nil {
		return fmt.Errorf("create snapshotter: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(address), 0o711); err != nil {
		return err
	}
	if err := os.Remove(address); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", address)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	snapshotsapi.RegisterSnapshotsServer(server, snapshotservice.FromSnapshotter(snapshotter))
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		return fmt.Errorf("sd_notify: %w", err)
	}
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
		server.Stop()
		return snapshotter.Close()
	}
}

// load reads the file's TOML. A key that the snapshotter does not know is an
// error: left out in silence, it would be a limit or a mirror that is not there.
func load(path string) (*service.Config, error) {
	cfg := &service.Config{}
	if path == "" {
		return cfg, nil
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if err := toml.NewDecoder(file).DisallowUnknownFields().Decode(cfg); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return cfg, nil
}
