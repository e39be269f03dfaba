package server

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
)

var unitState = regexp.MustCompile(`^[a-z-]{1,32}$`)

// readHealth takes what a report says of services and VIPs over into report, or says
// what is wrong with it.
func readHealth(request api.PhoneHomeRequest, report *node.Report) (field, reason string) {
	switch {
	case len(request.Services) > api.MaxServices:
		return "services", fmt.Sprintf("want at most %d", api.MaxServices)
	case len(request.VIPStates) > api.MaxVIPs:
		return "vip_states", fmt.Sprintf("want at most %d", api.MaxVIPs)
	case request.VIPsLeftOut < 0 || request.VIPsLeftOut > api.MaxVIPsLeftOut:
		return "vips_left_out", fmt.Sprintf("want 0 to %d", api.MaxVIPsLeftOut)
	}
	report.VIPsLeftOut = request.VIPsLeftOut
	for i, s := range request.Services {
		at := fmt.Sprintf("services[%d].", i)
		switch {
		case !node.ValidUnit(s.Name):
			return at + "name", "want the name of a unit such as gobgpd.service, at most 255 characters"
		case !unitState.MatchString(s.State):
			return at + "state", "want systemd's ActiveState, such as active or failed, or unknown"
		case slices.ContainsFunc(report.Services, func(t node.Service) bool { return t.Name == s.Name }):
			return at + "name", "there twice"
		}
		s.Reason = cleanReason(s.Reason)
		report.Services = append(report.Services, s)
	}
	states := make(map[string]string, len(request.VIPStates))
	for i, s := range request.VIPStates {
		at := fmt.Sprintf("vip_states[%d].", i)
		canonical, ok := node.CanonicalVIP(s.VIP)
		switch {
		case !ok:
			return at + "vip", "want an address, or a prefix of one address such as 203.0.113.10/32"
		case !slices.Contains(node.VIPStates, s.State):
			return at + "state", "want one of " + strings.Join(node.VIPStates, ", ")
		case states[canonical] != "":
			return at + "vip", "there twice"
		}
		states[canonical] = s.State
		report.VIPStates = append(report.VIPStates, node.VIPState{VIP: canonical, State: s.State, Reason: cleanReason(s.Reason)})
	}
	// What vip_states says counts: the two lists never contradict each other.
	report.VIPs = slices.DeleteFunc(report.VIPs, func(vip string) bool {
		return states[vip] != "" && states[vip] != node.VIPAnnounced && states[vip] != node.VIPLowered
	})
	for _, vip := range report.VIPs {
		states[vip] = ""
	}
	for _, s := range report.VIPStates {
		if states[s.VIP] == node.VIPAnnounced || states[s.VIP] == node.VIPLowered {
			report.VIPs = append(report.VIPs, s.VIP)
		}
	}
	return "", ""
}

func cleanReason(s string) string {
	return strings.TrimSpace(strings.ReplaceAll(cleanText(s, api.MaxReasonBytes), "\n", " "))
}
