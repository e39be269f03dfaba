package node

import (
	"maps"
	"slices"
)

// Same says whether a and b are one record. It is asked with each heartbeat, for which
// reflect.DeepEqual takes too long.
func Same(a, b *Node) bool { return SameButHeard(a, b) && a.LastSeen.Equal(b.LastSeen) }

// SameButHeard says whether a and b differ in nothing but LastSeen.
func SameButHeard(a, b *Node) bool {
	return a.ID == b.ID && a.Declared == b.Declared && a.Role == b.Role && a.IP == b.IP && a.ConfigHash == b.ConfigHash &&
		a.Identity.equal(b.Identity) && maps.Equal(a.Labels, b.Labels) &&
		a.State == b.State && a.Since.Equal(b.Since) && a.Deadline.Equal(b.Deadline) && a.Attempt == b.Attempt &&
		a.Provisioned == b.Provisioned && sameValue(a.LastError, b.LastError) && sameList(a.History, b.History) &&
		sameValue(a.Held, b.Held) && sameValue(a.Approved, b.Approved) && sameValue(a.Reinstall, b.Reinstall) &&
		a.Acknowledged.Equal(b.Acknowledged) &&
		a.MachineID == b.MachineID && sameList(a.MACs, b.MACs) && a.Serial == b.Serial &&
		a.SecretHash == b.SecretHash && a.TokenHash == b.TokenHash && a.Joined.Equal(b.Joined) &&
		a.BootID == b.BootID && a.Hostname == b.Hostname && a.ReportedIP == b.ReportedIP && a.ReportedHash == b.ReportedHash &&
		a.Phase == b.Phase && maps.Equal(a.Facts, b.Facts) && a.SameVIPs(*b) && sameList(a.Services, b.Services) &&
		a.Heartbeat == b.Heartbeat
}

func sameValue[T comparable](a, b *T) bool { return a == b || a != nil && b != nil && *a == *b }

// sameList begins with the question that nearly always answers it.
func sameList[T comparable](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || slices.Equal(a, b))
}
