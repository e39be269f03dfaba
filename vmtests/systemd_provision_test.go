package vmtests

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// provisionRestarts has systemd run the unit that installs a machine, as the ISO has it but
// for the program and the wait in between: again after the statuses 1, 75 and 77, and not
// after 70 and 78, with which it has failed.
func provisionRestarts(t *testing.T, run func(commands string) string, await func(what string, check func() error), shell func(commands string) (string, error)) {
	t.Helper()
	text, err := os.ReadFile("../nix/tests/iso.json")
	require.NoError(t, err)
	var iso struct {
		All struct {
			Units map[string]struct {
				ServiceConfig         map[string]any `json:"serviceConfig"`
				StartLimitIntervalSec *int           `json:"startLimitIntervalSec"`
			} `json:"units"`
		} `json:"all"`
	}
	require.NoError(t, json.Unmarshal(text, &iso))
	given := iso.All.Units["plasmacloud-provision"]
	require.NotNil(t, given.StartLimitIntervalSec)
	service := given.ServiceConfig
	delete(service, "EnvironmentFile")
	service["RestartSec"], service["ExecStart"] = 0, "/bin/sh /run/provision"
	unit := fmt.Sprintf("[Unit]\nStartLimitIntervalSec=%d\n[Service]\n", *given.StartLimitIntervalSec)
	for key, value := range service {
		unit += fmt.Sprintf("%s=%v\n", key, value)
	}
	run("cat > /run/systemd/system/plasmacloud-provision.service <<'END'\n" + unit + "END\n" +
		"echo 'read -r now rest < /run/statuses; echo $rest > /run/statuses; exit $now' > /run/provision\n" +
		"systemctl daemon-reload")
	for last, ended := range map[string]string{"70": "failed exit-code 70", "78": "failed exit-code 78", "0": "active success 0"} {
		run("echo 1 75 77 " + last + " next > /run/statuses; systemctl start --no-block plasmacloud-provision")
		await("provision ends with "+last, func() error {
			got, err := shell("echo $(for of in ActiveState Result ExecMainStatus NRestarts; do systemctl show -P $of plasmacloud-provision; done; cat /run/statuses)")
			if want := ended + " 3 next\n"; err == nil && got != want {
				err = fmt.Errorf("it is %q, want %q", got, want)
			}
			return err
		})
		run("systemctl stop plasmacloud-provision; systemctl reset-failed plasmacloud-provision 2>/dev/null || true")
	}
}
