package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/centra/plasmacloud/vmtests/scenario"
)

func TestLabCommands(t *testing.T) {
	cmd := rootCommand()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetArgs([]string{"lab", "commands"})
	require.NoError(t, cmd.Execute())
	for _, command := range scenario.Commands() {
		if command == "gobgpd" {
			continue // another name of speaker
		}
		assert.Regexp(t, `(?m)^(.*, )?`+command+` `, out.String())
	}
	assert.Contains(t, out.String(), "link down NODES, link up NODES\n        the node's cable; the way to the deployer stays\n")
	assert.Contains(t, out.String(), "$HOLD\n")
	assert.NotContains(t, out.String(), "vip-drains")
	assert.NotContains(t, out.String(), "`")
}

func TestOverrideInputsOfTheEnvironment(t *testing.T) {
	t.Setenv(overridesVariable, "plasmacloud=path:/src,nixpkgs=path:/a?b=c")
	flags := evalFlags{lib: "auto", memoryMiB: 64, overrides: map[string]string{"plasmacloud": "path:/other"}}
	flags.cfg.Timeout = 1
	cfg, err := flags.config(&bytes.Buffer{})
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"plasmacloud": "path:/other", "nixpkgs": "path:/a?b=c"}, cfg.OverrideInputs)

	t.Setenv(overridesVariable, "plasmacloud")
	_, err = flags.config(&bytes.Buffer{})
	assert.ErrorContains(t, err, `$PLASMACLOUD_OVERRIDE_INPUTS: "plasmacloud" is not INPUT=REF`)
}
