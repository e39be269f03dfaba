package store

import "slices"

// SchemaVersion is what stores write. It changes when an older deployer would misread
// the records, or lose what it does not know of.
//
//	1  nodes and events
//	2  and join tokens, an audit log, and in the nodes what operators said of them
const SchemaVersion = "2"

// CanMigrate says whether what is of that version becomes SchemaVersion by saying so:
// whatever has come since is missing there.
func CanMigrate(version string) bool { return slices.Contains([]string{"1"}, version) }
