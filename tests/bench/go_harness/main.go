// Command go_harness runs one hello test on BuildKit's own integration
// harness, as `go test` would: it takes the flags -test.v, -test.parallel and
// -test.run. It is an ordinary binary, so that bk's rule for Go builds it.
//
// The environment says what the test needs:
//
//	BK_BENCH_CELLS       how many cells each worker gets
//	BK_BENCH_ROOTLESS    the uid:gid that the rootless worker runs as
//
// and the harness itself reads BUILDKIT_REGISTRY_MIRROR_DIR.
package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"testing"

	"github.com/containerd/continuity/fs/fstest"
	"github.com/moby/buildkit/util/testutil/integration"
	"github.com/moby/buildkit/util/testutil/workers"
	"github.com/stretchr/testify/require"
)

const (
	image      = "docker.io/library/busybox:latest"
	dockerfile = "FROM " + image + "\nRUN echo hello > /hello.txt\n"
)

func main() {
	// The harness took GOMAXPROCS as the number of sandboxes at a time when it
	// was initialised. That is all it is meant for: neither the harness nor its
	// daemons shall have fewer processors because of it.
	if err := os.Unsetenv("GOMAXPROCS"); err != nil {
		fail(err)
	}
	runtime.GOMAXPROCS(runtime.NumCPU())
	cells, err := strconv.Atoi(os.Getenv("BK_BENCH_CELLS"))
	if err != nil {
		fail(fmt.Errorf("BK_BENCH_CELLS: %w", err))
	}
	if err := register(os.Getenv("BK_BENCH_ROOTLESS")); err != nil {
		fail(err)
	}
	tests := []testing.InternalTest{{Name: "TestIntegration", F: func(t *testing.T) { testIntegration(t, cells) }}}
	testing.Main(regexp.MatchString, tests, nil, nil)
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "go_harness:", err)
	os.Exit(2)
}

func register(rootless string) error {
	var uid, gid int
	if _, err := fmt.Sscanf(rootless, "%d:%d", &uid, &gid); err != nil {
		return fmt.Errorf("BK_BENCH_ROOTLESS: %w", err)
	}
	integration.Register(&workers.OCI{ID: "oci"})
	integration.Register(&workers.OCI{ID: "oci-snapshotter-stargz", Snapshotter: "stargz"})
	integration.Register(&workers.Containerd{ID: "containerd", Containerd: "containerd"})
	integration.Register(&workers.Containerd{
		ID: "containerd-snapshotter-stargz", Containerd: "containerd", Snapshotter: "stargz",
	})
	integration.Register(&workers.OCI{ID: "oci-rootless", UID: uid, GID: gid})
	return nil
}

func testIntegration(t *testing.T, cells int) {
	copies := map[string]any{}
	for number := range cells {
		copies[strconv.Itoa(number)] = number
	}
	integration.Run(t, integration.TestFuncs(testHello),
		integration.WithMirroredImages(map[string]string{"library/busybox:latest": image}),
		integration.WithMatrix("copy", copies),
	)
}

func testHello(t *testing.T, sb integration.Sandbox) {
	dir := integration.Tmpdir(t, fstest.CreateFile("Dockerfile", []byte(dockerfile), 0o600))
	archive := filepath.Join(t.TempDir(), "out.tar")
	output, err := sb.Cmd("build", "--progress=plain", "--frontend=dockerfile.v0",
		"--local", "context="+dir.Name, "--local", "dockerfile="+dir.Name,
		"--output", "type=tar,dest="+archive).CombinedOutput()
	require.NoError(t, err, string(output))
	content, err := member(archive, "hello.txt")
	require.NoError(t, err)
	require.Equal(t, "hello\n", content)
}

// member returns the bytes of one file of a tar archive.
func member(archive, name string) (string, error) {
	file, err := os.Open(archive)
	if err != nil {
		return "", err
	}
	defer file.Close()
	for reader := tar.NewReader(file); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return "", fmt.Errorf("%s has no %s", archive, name)
		}
		if err != nil {
			return "", err
		}
		if header.Name == name {
			content, err := io.ReadAll(reader)
			return string(content), err
		}
	}
}
