// silo and mc in a cell: what BuildKit's harness asks of MinIO's fork and of its client, on versitygw. The command depends on
// the program's name.
//
//	silo server --json --address HOST:PORT FOLDER
//	mc alias set NAME http://HOST:PORT ACCESS SECRET
//	mc mb --region REGION NAME/BUCKET
//	mc admin trace --json NAME
package main

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

func main() {
	words := os.Args[1:]
	run := client
	if filepath.Base(os.Args[0]) == "silo" {
		run = serve
	}
	if err := run(words); err != nil {
		fmt.Fprintf(os.Stderr, "%s %q: %v\n", os.Args[0], words, err)
		os.Exit(1)
	}
}

// serve becomes versitygw, on a folder whose folders are buckets, and notes the folder for the client.
func serve(words []string) error {
	if len(words) != 5 || words[0] != "server" || words[2] != "--address" {
		return fmt.Errorf("unknown arguments")
	}
	address, folder := words[3], words[4]
	if err := os.WriteFile(note(address), []byte(folder), 0o600); err != nil {
		return err
	}
	metadata, err := os.MkdirTemp("", "silo-metadata-")
	if err != nil {
		return err
	}
	binary, err := exec.LookPath("versitygw")
	if err != nil {
		return err
	}
	arguments := []string{
		binary, "--port", address, "--access", os.Getenv("MINIO_ROOT_USER"), "--secret", os.Getenv("MINIO_ROOT_PASSWORD"),
		"posix", "--sidecar", metadata, folder,
	}
	return syscall.Exec(binary, arguments, os.Environ())
}

func client(words []string) error {
	aliases := os.Getenv("MC_CONFIG_DIR")
	switch {
	case len(words) == 6 && words[0] == "alias" && words[1] == "set":
		server, err := url.Parse(words[3])
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(aliases, words[2]), []byte(server.Host), 0o600)
	case len(words) == 4 && words[0] == "mb":
		address, err := os.ReadFile(filepath.Join(aliases, filepath.Dir(words[3])))
		if err != nil {
			return err
		}
		folder, err := os.ReadFile(note(string(address)))
		if err != nil {
			return err
		}
		return os.Mkdir(filepath.Join(string(folder), filepath.Base(words[3])), 0o755)
	case len(words) > 1 && words[0] == "admin" && words[1] == "trace":
		select {} // the log of the server has its requests
	}
	return fmt.Errorf("unknown arguments")
}

// note is the file that holds the folder of the server at an address.
func note(address string) string {
	return filepath.Join(os.TempDir(), "silo-"+address)
}
