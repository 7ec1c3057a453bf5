// Command actions-cache is the cache service of GitHub Actions as act brings it,
// which runs such workflows on any machine: version 1 of its protocol, on a folder.
//
//	actions-cache -dir DIR [-host 127.0.0.1]
//
// Its log says "listening at URL". The URL has a secret in it, as the only key.
package main

import (
	"flag"
	"os"
	"os/signal"
	"syscall"

	"github.com/nektos/act/pkg/artifactcache"
	"github.com/sirupsen/logrus"
)

func main() {
	dir := flag.String("dir", "", "folder for the cache; needed, since the default would be the user's own")
	host := flag.String("host", "127.0.0.1", "address to listen at; the port is a free one")
	flag.Parse()
	log := logrus.New()
	log.SetLevel(logrus.DebugLevel)
	if *dir == "" {
		log.Fatal("actions-cache: -dir is needed")
	}
	server, err := artifactcache.StartHandler(*dir, "", *host, 0, log)
	if err != nil {
		log.Fatalf("actions-cache: %v", err)
	}
	log.Infof("listening at %s/", server.ExternalURL())
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGINT, syscall.SIGTERM)
	<-ended
	if err := server.Close(); err != nil {
		log.Fatalf("actions-cache: %v", err)
	}
}
