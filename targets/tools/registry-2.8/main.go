// The registry of release 2.8.3, on a folder: `registry serve CONFIG`, without the storage and the reports to clouds that its own
// command has.
package main

import (
	"fmt"
	"net/http"
	"os"

	"github.com/docker/distribution/configuration"
	dcontext "github.com/docker/distribution/context"
	"github.com/docker/distribution/registry/handlers"
	"github.com/docker/distribution/registry/listener"
	_ "github.com/docker/distribution/registry/storage/driver/filesystem"
	"github.com/docker/distribution/version"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "registry:", err)
		os.Exit(1)
	}
}

func run(words []string) error {
	if len(words) != 2 || words[0] != "serve" {
		return fmt.Errorf("usage: registry serve CONFIG")
	}
	file, err := os.Open(words[1])
	if err != nil {
		return err
	}
	defer file.Close()
	config, err := configuration.Parse(file)
	if err != nil {
		return err
	}
	ctx := dcontext.WithVersion(dcontext.Background(), version.Version)
	app := handlers.NewApp(ctx, config)
	ln, err := listener.NewListener(config.HTTP.Net, config.HTTP.Addr)
	if err != nil {
		return err
	}
	dcontext.GetLogger(app).Infof("listening on %v", ln.Addr())
	return http.Serve(ln, app)
}
