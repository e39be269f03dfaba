package scenarios

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/centra/plasmacloud/vmtests/labcluster"
	"github.com/centra/plasmacloud/vmtests/scenario"
)

var speakerFlag = flag.String("speaker", "", "play every scenario with this gobgpd: v3, v4 or debian")

// Each file in testdata is a scenario: commands, and below them the cluster in the
// Nix language. docs/lab.md has the commands. The scenarios take turns with the
// generations of gobgpd, unless a flag says which one all have.
func TestScenarios(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for i, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			speaker := *speakerFlag
			if speaker == "" {
				speaker = []string{"v3", "v4"}[i%2]
			}
			s, err := scenario.Find(file)
			require.NoError(t, err)
			result := s.Play(t.Context(), stage(t, speaker))
			require.Empty(t, result.Skipped)
			require.Empty(t, result.Error)
		})
	}
}

// stage plays scenarios with a cluster.nix of their own.
func stage(t *testing.T, speaker string) scenario.Stage {
	evaluate := func(ctx context.Context, change scenario.Change) (*labcluster.Evaluated, error) {
		evaluated, err := labcluster.Evaluate(ctx, repo, map[string]string{"it": change.Cluster})
		return evaluated["it"], err
	}
	return scenario.Stage{
		Start: func(ctx context.Context, change scenario.Change) (*labcluster.Cluster, error) {
			evaluated, err := evaluate(ctx, change)
			if err != nil {
				return nil, err
			}
			return labcluster.Start(labcluster.Config{Name: "play" + speaker, Programs: programs.With(speaker), Cluster: evaluated})
		},
		Evaluate: evaluate,
		Has:      scenario.Has{scenario.Nodes: 3, scenario.Routers: 2, scenario.Links: 1, scenario.Power: 1, scenario.Evaluation: 1},
		Patience: patience,
		Failed:   func(c *labcluster.Cluster) { t.Log(c.Log()) },
	}
}

// What README.md says is what there is.
func TestScenariosAreListed(t *testing.T) {
	readme, err := os.ReadFile("testdata/README.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if name, ok := strings.CutSuffix(f.Name(), ".txtar"); ok && !strings.Contains(string(readme), "`"+name+"`") {
			t.Errorf("README.md does not tell of %s", name)
		}
	}
}
