package server

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/strictjson"
)

// readReport checks the body of a phone-home request. What it returns is safe to
// store, to log and to show.
func readReport(body []byte) (id string, report node.Report, problem *api.Problem) {
	var request api.PhoneHomeRequest
	if err := strictjson.Decode(body, &request); err != nil {
		return "", report, wrong(err)
	}
	return readRequest(request)
}

// readRequest is readReport of what is decoded already.
func readRequest(request api.PhoneHomeRequest) (id string, report node.Report, problem *api.Problem) {
	id, report, err := parseReport(request)
	if err != nil {
		return "", node.Report{}, wrong(err)
	}
	return id, report, nil
}

func wrong(err error) *api.Problem {
	var field *strictjson.FieldError
	if errors.As(err, &field) {
		return badRequest(clean(field.Field), clean(field.Error()))
	}
	return badRequest("", clean(err.Error()))
}

func badRequest(field, detail string) *api.Problem {
	return &api.Problem{
		Status: http.StatusBadRequest, Code: api.CodeBadRequest, Title: "The report breaks a rule",
		Field: field, Detail: detail,
	}
}

// factKey says whether key is of a-z, 0-9, dot, dash and underscore, the last three inside.
func factKey(key string) bool {
	const inside = "._-"
	return key != "" && strings.Trim(key, inside) == key && strings.Trim(key, inside+"abcdefghijklmnopqrstuvwxyz0123456789") == ""
}

// parseReport validates a request. Its errors are *strictjson.FieldError.
func parseReport(request api.PhoneHomeRequest) (string, node.Report, error) {
	report := node.Report{
		BootID: request.BootID, Role: request.Role, Hostname: request.Hostname, Hash: request.ConfigHash,
		Phase: request.Phase, Facts: request.Facts, Acknowledges: request.Acknowledges != "",
	}
	bad := func(field, format string, args ...any) (string, node.Report, error) {
		return "", node.Report{}, &strictjson.FieldError{Field: field, Reason: fmt.Sprintf(format, args...)}
	}
	switch {
	case request.NodeID == "":
		return bad("node_id", "required; it is the node's name in plasmacloud.cluster.nodes")
	case !node.ValidID(request.NodeID):
		return bad("node_id", "want a lower-case host label (RFC 1123): letters, digits and inner dashes, at most 63")
	case request.Phase == "":
		return bad("phase", "required; one of %s", phases())
	case !request.Phase.Valid():
		return bad("phase", "want one of %s", phases())
	case request.Error != "" && request.Phase != node.PhaseFailed:
		return bad("error", "goes only with the phase failed")
	case request.Acknowledges != "" && request.Acknowledges != api.AckDecommissioned:
		return bad("acknowledges", "want %s, or leave it out", api.AckDecommissioned)
	case request.Role != "" && !node.ValidID(request.Role):
		return bad("role", "want control-plane or worker")
	case request.ConfigHash != "" && !node.ValidConfigHash(request.ConfigHash):
		return bad("config_hash", "want sha256: and 64 lower-case hex digits, of the bytes of cluster-config.json")
	case len(request.Hostname) > api.MaxHostname || !printable(request.Hostname):
		return bad("hostname", "want at most %d printable characters", api.MaxHostname)
	case len(request.MachineID) > api.MaxID || !printable(request.MachineID):
		return bad("machine_id", "want at most %d printable characters", api.MaxID)
	case len(request.BootID) > api.MaxID || !printable(request.BootID):
		return bad("boot_id", "want at most %d printable characters", api.MaxID)
	}
	if request.IP != "" {
		ip, err := netip.ParseAddr(request.IP)
		if err != nil || ip.Zone() != "" || ip.IsUnspecified() || ip.IsMulticast() {
			return bad("ip", "want the node's IPv4 or IPv6 address, without prefix length or zone")
		}
		report.IP = ip.Unmap()
	}
	if field, reason := checkFacts(request.Facts); reason != "" {
		return bad(field, "%s", reason)
	}
	if len(request.VIPs) > api.MaxVIPs {
		return bad("vips", "want at most %d", api.MaxVIPs)
	}
	for i, vip := range request.VIPs {
		canonical, ok := node.CanonicalVIP(vip)
		if !ok {
			return bad(fmt.Sprintf("vips[%d]", i), "want an address, or a prefix of one address such as 203.0.113.10/32")
		}
		report.VIPs = append(report.VIPs, canonical)
	}
	if field, reason := readHealth(request, &report); reason != "" {
		return bad(field, "%s", reason)
	}
	macs, ok := node.CanonicalMACs(request.Facts["macs"])
	if !ok {
		return bad("facts.macs", "want the addresses of network cards such as 52:54:00:12:34:56, with commas between them")
	}
	report.MACs, report.Serial = macs, node.CanonicalSerial(request.Facts["serial"])
	report.Error = cleanText(request.Error, api.MaxErrorBytes)
	if id, ok := node.CanonicalMachineID(request.MachineID); ok {
		report.MachineID = id
	}
	return request.NodeID, report, nil
}

func checkFacts(facts map[string]string) (field, reason string) {
	if len(facts) > api.MaxFacts {
		return "facts", fmt.Sprintf("want at most %d", api.MaxFacts)
	}
	for key, value := range facts {
		switch {
		case len(key) > api.MaxFactKey || !factKey(key):
			return "facts", fmt.Sprintf("want keys of a-z, 0-9, dot, dash and underscore, at most %d", api.MaxFactKey)
		case len(value) > api.MaxFactValue || !printable(value):
			return "facts." + key, fmt.Sprintf("want at most %d printable characters", api.MaxFactValue)
		}
	}
	return "", ""
}

func phases() string {
	names := make([]string, len(node.Phases))
	for i, p := range node.Phases {
		names[i] = string(p)
	}
	return strings.Join(names, ", ")
}

func printable(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}

// clean makes a short text of a stranger safe to show and to log.
func clean(s string) string { return strings.ReplaceAll(cleanText(s, 512), "\n", " ") }

// cleanText drops what drives a terminal, keeps lines, and cuts at limit bytes.
func cleanText(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || unicode.IsPrint(r):
			return r
		case r == '\t':
			return ' '
		case r == '\r':
			return -1
		default:
			return utf8.RuneError
		}
	}, s)
	if len(s) <= limit {
		return s
	}
	const mark = "…"
	cut := limit - len(mark)
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + mark
}
