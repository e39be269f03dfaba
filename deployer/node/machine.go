package node

import (
	"fmt"
	"net"
	"slices"
	"strings"
)

// A machine is told from others by its machine id, the MAC addresses of its network
// cards and its serial number. Each may be missing, and an id or a serial number may
// be in many mainboards alike, so it takes all three.

// Identity is what the manifest says of the machine that a node has to be.
type Identity struct {
	MACs   []string `json:"macs,omitempty"`   // canonical; the machine has one of them at least
	Serial string   `json:"serial,omitempty"` // "" is any
}

func (i Identity) equal(other Identity) bool {
	return i.Serial == other.Serial && slices.Equal(i.MACs, other.MACs)
}

// CanonicalMAC is the one spelling of a network card's address: lower case with
// colons. ok is false when it is none, or one that no card can have of its own.
func CanonicalMAC(raw string) (mac string, ok bool) {
	parsed, err := net.ParseMAC(raw)
	if err != nil || len(parsed) != 6 || parsed[0]&1 != 0 || parsed.String() == "00:00:00:00:00:00" {
		return "", false
	}
	return parsed.String(), true
}

// CanonicalMACs reads addresses with commas between them, sorted.
func CanonicalMACs(raw string) (macs []string, ok bool) {
	if raw == "" {
		return nil, true
	}
	for part := range strings.SplitSeq(raw, ",") {
		mac, ok := CanonicalMAC(part)
		if !ok {
			return nil, false
		}
		macs = append(macs, mac)
	}
	slices.Sort(macs)
	return slices.Compact(macs), true
}

// CanonicalSerial is raw without blanks around it, "" where it is what vendors leave
// in many machines alike.
func CanonicalSerial(raw string) string {
	serial := strings.TrimSpace(raw)
	switch strings.ToLower(serial) {
	case "", "to be filled by o.e.m.", "default string", "system serial number", "serial number",
		"not specified", "not applicable", "unknown", "none", "n/a", "na", "oem", "o.e.m.", "empty",
		"0123456789", "123456789", "1234567890", "invalid":
		return ""
	}
	if strings.Trim(serial, serial[:1]) == "" {
		return ""
	}
	return serial
}

func hasMarks(id string, macs []string, serial string) bool {
	return id != "" || len(macs) > 0 || serial != ""
}

// sameMachine says whether r comes from the machine that n is bound to, or from one that
// cannot be told from it, or n is bound to none. One whose marks n does not know is known
// by its secret as well: it may have learnt to tell them.
func (n Node) sameMachine(r Report) bool {
	bound, marked := hasMarks(n.MachineID, n.MACs, n.Serial), hasMarks(r.MachineID, r.MACs, r.Serial)
	sameID := n.MachineID != "" && n.MachineID == r.MachineID
	sameSerial := n.Serial != "" && strings.EqualFold(n.Serial, r.Serial)
	switch {
	case !bound:
		return n.Phase == "" || !marked || n.proves(r) || n.BootID != "" && n.BootID == r.BootID
	case n.MachineID != "" && r.MachineID != "" && !sameID:
		return false
	case n.Serial != "" && r.Serial != "" && !sameSerial:
		return false
	case len(n.MACs) > 0 && len(r.MACs) > 0:
		// With other cards it is the same if both other marks are.
		return haveCommon(n.MACs, r.MACs) || sameID && sameSerial
	default:
		return sameID || sameSerial
	}
}

func haveCommon(a, b []string) bool {
	return slices.ContainsFunc(a, func(mac string) bool { return slices.Contains(b, mac) })
}

// recognize takes over what r says of its machine. What it does not say stays.
func (n *Node) recognize(r Report) {
	if r.MachineID != "" {
		n.MachineID = r.MachineID
	}
	if len(r.MACs) > 0 && !slices.Equal(n.MACs, r.MACs) {
		n.MACs = slices.Clone(r.MACs)
	}
	if r.Serial != "" {
		n.Serial = r.Serial
	}
}

// Mismatch says how a machine with these cards and this serial number differs from
// the one that the node id has to be, "" when it does not.
func (i Identity) Mismatch(id string, macs []string, serial string) string {
	option := "plasmacloud.cluster.nodes." + id + ".identity"
	switch {
	case len(i.MACs) > 0 && !haveCommon(i.MACs, macs):
		return fmt.Sprintf("%s.macs declares %s, and this machine has %s", option, strings.Join(i.MACs, ", "), orNone(strings.Join(macs, ", ")))
	case i.Serial != "" && !strings.EqualFold(i.Serial, serial):
		return fmt.Sprintf("%s.serial declares %q, and this machine has %s", option, i.Serial, orNone(serial))
	default:
		return ""
	}
}

func orNone(s string) string {
	if s == "" {
		return "none that it tells"
	}
	return s
}

// machineName is a machine in the words of a reason.
func machineName(id string, macs []string, serial string) string {
	var marks []string
	if serial != "" {
		marks = append(marks, "serial "+serial)
	}
	if len(macs) > 0 {
		marks = append(marks, "MAC "+strings.Join(macs, " "))
	}
	switch {
	case id == "" && len(marks) == 0:
		return "without a usable id"
	case id == "":
		return "(" + strings.Join(marks, ", ") + ")"
	case len(marks) == 0:
		return id
	default:
		return id + " (" + strings.Join(marks, ", ") + ")"
	}
}

func (n Node) machineName() string   { return machineName(n.MachineID, n.MACs, n.Serial) }
func (r Report) machineName() string { return machineName(r.MachineID, r.MACs, r.Serial) }
