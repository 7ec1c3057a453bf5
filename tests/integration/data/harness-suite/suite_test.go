// Package suite is a project with tests on BuildKit's integration harness, which it has as a library.
package suite

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/buildkit/util/testutil/integration"
	"github.com/moby/buildkit/util/testutil/workers"
	"github.com/stretchr/testify/require"
)

const dockerfile = "FROM busybox:latest AS made\nRUN echo it ran && echo hello > /hello\nFROM scratch\nCOPY --from=made /hello /\n"

// remote is a worker that the harness does not have: BuildKit's OCI worker, with a label of this project.
type remote struct{ *workers.OCI }

func (r remote) New(ctx context.Context, config *integration.BackendConfig) (integration.Backend, func() error, error) {
	config.DaemonConfig = append(config.DaemonConfig, labels{})
	return r.OCI.New(ctx, config)
}

type labels struct{}

func (labels) UpdateConfigFile(in string) (string, func() error) {
	return in + "\n[worker.oci.labels]\n  kind = \"remote\"\n", nil
}

func init() {
	workers.InitOCIWorker()
	workers.InitContainerdWorker()
	integration.Register(remote{&workers.OCI{ID: "remote"}})
}

func TestIntegration(t *testing.T) {
	integration.Run(t, integration.TestFuncs(testCache, testLabels, testNetworkNoRootless),
		integration.WithMirroredImages(integration.OfficialImages("busybox:latest")),
		integration.WithMatrix("mode", map[string]any{"min": 0, "max": 1}),
	)
}

func TestWords(t *testing.T) {
	t.Run("of a Dockerfile", func(t *testing.T) { require.Equal(t, "FROM", strings.Fields(dockerfile)[0]) })
}

// In mode max, the cache has the steps of stages that the result does not contain.
func testCache(t *testing.T, sb integration.Sandbox) {
	workers.CheckFeatureCompat(t, sb, workers.FeatureCacheBackendLocal)
	folder := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(folder, "Dockerfile"), []byte(dockerfile), 0o600))
	cache := t.TempDir()
	words := []string{"build", "--progress=plain", "--frontend=dockerfile.v0", "--local=context=" + folder,
		"--local=dockerfile=" + folder, "--output=type=local,dest=" + filepath.Join(folder, "out")}
	mode := []string{"min", "max"}[sb.Value("mode").(int)]
	run(t, sb, append(words, "--export-cache=type=local,dest="+cache+",mode="+mode)...)
	made, err := os.ReadFile(filepath.Join(folder, "out/hello"))
	require.NoError(t, err)
	require.Equal(t, "hello\n", string(made))

	run(t, sb, "prune", "--all")
	require.NoError(t, os.WriteFile(filepath.Join(folder, "Dockerfile"), []byte(dockerfile+"COPY --from=made /hello /again\n"), 0o600))
	again := run(t, sb, append(words, "--import-cache=type=local,src="+cache)...)
	require.Equal(t, mode == "min", strings.Contains(again, " it ran\n"), again)
}

func testLabels(t *testing.T, sb integration.Sandbox) {
	require.Equal(t, sb.Name() == "remote", strings.Contains(run(t, sb, "debug", "workers", "--verbose"), "kind"))
}

func testNetworkNoRootless(t *testing.T, sb integration.Sandbox) {
	require.False(t, sb.Rootless())
}

func run(t *testing.T, sb integration.Sandbox, words ...string) string {
	t.Helper()
	out, err := sb.Cmd(words...).CombinedOutput()
	require.NoError(t, err, string(out))
	return string(out)
}
