package main

import (
	"testing"

	"github.com/centra/plasmacloud/cmd/internal/command/commandtest"
)

func TestHelp(t *testing.T) { commandtest.Help(t, rootCommand()) }
