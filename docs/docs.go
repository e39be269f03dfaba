// Package docs carries the page of which plasmactl prints a part.
package docs

import _ "embed"

// Lab is lab.md.
//
//go:embed lab.md
var Lab string
