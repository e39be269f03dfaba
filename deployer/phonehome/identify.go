package phonehome

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/strictjson"
)

// The files that Identify leaves in its directory.
const (
	ConfigFile  = "cluster-config.json" // of the node, byte for byte as in the table
	InstallFile = "install.env"         // KEY=VALUE lines; absent on a node that runs from the ISO
)

// maxTableBytes is enough for some 50,000 nodes.
const maxTableBytes = 64 << 20

// NodeTable is nodes.json of an ISO: the nodes that a machine which boots from it
// may be.
type NodeTable struct {
	SchemaVersion int         `json:"schema_version"` // 1
	Nodes         []TableNode `json:"nodes"`
}

// TableNode is one node, and how to know its machine. One with neither MACs nor a
// serial number is any machine where it is alone in the table, and else none.
type TableNode struct {
	ClusterConfig string            `json:"cluster_config"` // the file
	MACs          []string          `json:"macs"`
	Serial        *string           `json:"serial"`
	Install       map[string]string `json:"install"` // the environment of its installation; null: it runs from the ISO

	id       string
	cluster  string
	identity node.Identity
}

var (
	installKey   = regexp.MustCompile(`^[A-Z][A-Z0-9_]*$`)
	installValue = regexp.MustCompile(`^[0-9A-Za-z/_.:,+=@%?&#~-]*$`) // nothing that systemd or a shell would read otherwise
)

// ReadNodeTable reads and checks the file at path. Its errors are *ConfigError.
func ReadNodeTable(path string) (NodeTable, error) {
	var table NodeTable
	bad := func(err error) (NodeTable, error) {
		return NodeTable{}, &ConfigError{fmt.Errorf("table of nodes %s: %w", path, err)}
	}
	file, err := os.Open(path)
	if err != nil {
		return table, &ConfigError{fmt.Errorf("table of nodes: %w", err)}
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxTableBytes+1))
	if err != nil {
		return bad(err)
	}
	if len(data) > maxTableBytes {
		return bad(fmt.Errorf("larger than %d bytes", maxTableBytes))
	}
	if table, err = parseNodeTable(data); err != nil {
		return bad(err)
	}
	return table, nil
}

func parseNodeTable(data []byte) (table NodeTable, err error) {
	if err = strictjson.Decode(data, &table); err == nil {
		err = table.check()
	}
	return table, err
}

func (t NodeTable) check() error {
	bad := func(field, format string, args ...any) error {
		return &strictjson.FieldError{Field: field, Reason: fmt.Sprintf(format, args...)}
	}
	if t.SchemaVersion != 1 {
		return bad("schema_version", "this program reads version 1, found %d", t.SchemaVersion)
	}
	if len(t.Nodes) == 0 {
		return bad("nodes", "empty: no machine could be identified")
	}
	for i := range t.Nodes {
		n := &t.Nodes[i]
		field := func(name string) string { return fmt.Sprintf("nodes[%d].%s", i, name) }
		config, err := ParseClusterConfig([]byte(n.ClusterConfig))
		if err != nil {
			return bad(field("cluster_config"), "%v", err)
		}
		n.id, n.cluster = config.NodeID, config.ClusterName
		for j, text := range n.MACs {
			mac, ok := node.CanonicalMAC(text)
			if !ok {
				return bad(fmt.Sprintf("%s[%d]", field("macs"), j), "want a MAC address such as 52:54:00:12:34:56, found %q", text)
			}
			n.identity.MACs = append(n.identity.MACs, mac)
		}
		if n.Serial != nil {
			if n.identity.Serial = node.CanonicalSerial(*n.Serial); n.identity.Serial == "" {
				return bad(field("serial"), "%q is no serial number of one machine", *n.Serial)
			}
		}
		for key, value := range n.Install {
			if !installKey.MatchString(key) {
				return bad(field("install"), "%q is no name of a variable", key)
			}
			if !installValue.MatchString(value) {
				return bad(field("install."+key), "%q has characters that are not passed on", value)
			}
		}
	}
	return nil
}

// marked says whether a machine can be told to be this node.
func (n TableNode) marked() bool { return len(n.identity.MACs) > 0 || n.identity.Serial != "" }

// marks is what of the node's identity the machine has.
func (n TableNode) marks(m Machine) string {
	var marks []string
	for _, mac := range n.identity.MACs {
		if slices.Contains(m.MACs, mac) {
			marks = append(marks, "MAC address "+mac)
			break
		}
	}
	if n.identity.Serial != "" && strings.EqualFold(n.identity.Serial, m.Serial) {
		marks = append(marks, "serial number "+m.Serial)
	}
	return strings.Join(marks, " and ")
}

// NoNodeError says that this machine is none of the table's nodes, or several. It
// is written for the one who stands in front of the machine.
type NoNodeError struct{ text string }

func (e *NoNodeError) Error() string { return e.text }

// Find is the node that machine m is, and by what; the error is a *NoNodeError.
func (t NodeTable) Find(m Machine) (n TableNode, by string, err error) {
	if len(t.Nodes) == 1 && !t.Nodes[0].marked() {
		return t.Nodes[0], "the only node of this ISO", nil
	}
	var found []TableNode
	var reasons, almost []string
	for _, n := range t.Nodes {
		// The rule by which the deployer refuses a machine.
		mismatch := n.identity.Mismatch(n.id, m.MACs, m.Serial)
		switch by := n.marks(m); {
		case by == "":
		case mismatch == "":
			found = append(found, n)
			reasons = append(reasons, fmt.Sprintf("%s by its %s", n.id, by))
		default:
			almost = append(almost, fmt.Sprintf("It has the %s of %s, but %s.\n", by, n.id, mismatch))
		}
	}
	if len(found) == 1 {
		return found[0], found[0].marks(m), nil
	}
	return TableNode{}, "", &NoNodeError{t.explain(m, reasons, almost)}
}

// explain is what the console shows in place of a node.
func (t NodeTable) explain(m Machine, reasons, almost []string) string {
	var b strings.Builder
	switch {
	case len(reasons) > 0:
		fmt.Fprintf(&b, "This machine is several nodes of the cluster %s:\n  %s\n", t.Nodes[0].cluster, strings.Join(reasons, "\n  "))
	case len(t.Nodes) == 1:
		fmt.Fprintf(&b, "This ISO is for the node %s of the cluster %s, and this machine is another one.\n", t.Nodes[0].id, t.Nodes[0].cluster)
	default:
		fmt.Fprintf(&b, "This machine is no node of the cluster %s.\n", t.Nodes[0].cluster)
	}
	macs := "none found; is the network card's driver loaded?"
	if len(m.MACs) > 0 {
		macs = strings.Join(m.MACs, " ")
	}
	fmt.Fprintf(&b, "  MAC addresses: %s\n  serial number: %s\n", macs, cmp.Or(m.Serial, "none that tells it from others"))
	b.WriteString(strings.Join(almost, ""))
	if len(reasons) > 0 {
		b.WriteString("Leave each of them to one node, and make the ISO anew:\n")
	} else {
		b.WriteString("Say which node it is, and make the ISO anew:\n")
	}
	switch {
	case len(m.MACs) > 0:
		fmt.Fprintf(&b, "  plasmacloud.cluster.nodes.<node>.identity.macs = [ %q ];", m.MACs[0])
	case m.Serial != "":
		fmt.Fprintf(&b, "  plasmacloud.cluster.nodes.<node>.identity.serial = %q;", m.Serial)
	default:
		b.WriteString("  build-iso.sh --node NODE makes one for a machine that cannot be told from others.")
	}
	return b.String()
}

// IdentifyConfig says where to look and what to do with what is found.
type IdentifyConfig struct {
	TablePath string        // nodes.json
	OutDir    string        // is made where it is missing
	Wait      time.Duration // how long a network card may take to appear; 0: without end
	Root      string        // where /sys, /proc and /etc are; "" is "/"

	// Report is called with the reason why there is no node yet: when it changes,
	// and once a minute for whoever comes to the console later. May be nil.
	Report func(reason string)
	// SetHostname is called with the node's id; nil leaves the name as it is.
	SetHostname func(name string) error
}

const (
	identifyEvery = time.Second
	remindEvery   = time.Minute
)

// Identified is the result of Identify.
type Identified struct {
	NodeID string
	By     string // what told it, for the log
}

// Identify waits until this machine is one node of the table, and writes that
// node's files. Errors: *ConfigError for a table that is wrong, *NoNodeError after
// Wait, ctx's own.
func Identify(ctx context.Context, cfg IdentifyConfig) (Identified, error) {
	table, err := ReadNodeTable(cfg.TablePath)
	if err != nil {
		return Identified{}, err
	}
	root := cmp.Or(cfg.Root, "/")
	begin := time.Now()
	var said string
	var saidAt time.Time
	for {
		// Not ReadMachine: whether the mainboard has an id does not matter here.
		n, by, err := table.Find(Machine{MACs: readMACs(root), Serial: readSerial(root)})
		if err == nil {
			return Identified{n.id, by}, settle(cfg, n)
		}
		if cfg.Report != nil && (err.Error() != said || time.Since(saidAt) >= remindEvery) {
			said, saidAt = err.Error(), time.Now()
			cfg.Report(said)
		}
		if cfg.Wait > 0 && time.Since(begin) >= cfg.Wait {
			return Identified{}, err
		}
		if !sleep(ctx, identifyEvery) {
			return Identified{}, fmt.Errorf("interrupted: %w", context.Cause(ctx))
		}
	}
}

// settle makes this machine the node n. The files come before the name, and what
// decides about an installation before what names the node.
func settle(cfg IdentifyConfig, n TableNode) error {
	if err := os.MkdirAll(cfg.OutDir, 0o755); err != nil {
		return err
	}
	install := filepath.Join(cfg.OutDir, InstallFile)
	if n.Install == nil {
		if err := os.Remove(install); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	} else {
		var lines []string
		for key, value := range n.Install {
			lines = append(lines, key+"="+value+"\n")
		}
		slices.Sort(lines)
		if err := replaceFile(install, strings.Join(lines, "")); err != nil {
			return err
		}
	}
	if err := replaceFile(filepath.Join(cfg.OutDir, ConfigFile), n.ClusterConfig); err != nil {
		return err
	}
	if cfg.SetHostname != nil {
		if err := cfg.SetHostname(n.id); err != nil {
			return fmt.Errorf("name this machine %s: %w", n.id, err)
		}
	}
	return nil
}

// replaceFile writes a file whole or not at all.
func replaceFile(path, text string) error {
	fresh := path + ".new"
	if err := os.WriteFile(fresh, []byte(text), 0o644); err != nil { //nolint:gosec // holds no secret, and all may read it
		return err
	}
	return os.Rename(fresh, path)
}
