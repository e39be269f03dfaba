package page

import (
	"net/url"
	"slices"
	"strings"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/node"
)

// address is a VIP without its prefix length, which is that of one address.
func address(vip string) string {
	addr, _, _ := strings.Cut(vip, "/")
	return addr
}

// vipNodes is how many nodes the list of VIPs names of each.
const vipNodes = 6

// vipLine is a line of the list of VIPs.
type vipLine struct {
	deployer.VIP
	May   int // nodes that may announce it
	First []deployer.VIPNode
	More  int
}

func line(v deployer.VIP) vipLine {
	l := vipLine{VIP: v}
	for _, n := range v.Nodes {
		if n.Declared {
			l.May++
		}
		if len(l.First) < vipNodes {
			l.First = append(l.First, n)
		}
	}
	l.More = len(v.Nodes) - len(l.First)
	return l
}

// VIPsPage is the list of VIPs with their nodes. Those that no node announces come first.
func VIPsPage(frame Frame, f *Fleet, q url.Values) []byte {
	status, search := cut(q.Get("status")), cut(q.Get("q"))
	var lines []vipLine
	for _, v := range f.VIPs {
		switch {
		case status == "undeclared" && v.Declared,
			status != "" && status != "undeclared" && (!v.Declared || string(v.Status) != status),
			search != "" && !strings.Contains(v.VIP, strings.ToLower(search)) && !slices.ContainsFunc(v.Nodes, func(n deployer.VIPNode) bool { return n.ID == search }):
			continue
		}
		lines = append(lines, vipLine{VIP: v})
	}
	slices.SortStableFunc(lines, func(a, b vipLine) int { return rank(a.VIP) - rank(b.VIP) })
	values := url.Values{}
	for key, value := range map[string]string{"status": status, "q": search} {
		if value != "" {
			values.Set(key, value)
		}
	}
	narrowed := len(values) > 0
	values.Set("page", q.Get("page"))
	shown, at := paged(lines, PathVIPs, values)
	for i := range shown {
		shown[i] = line(shown[i].VIP)
	}
	return render("vips", view{frame, "VIPs", "vips", struct {
		VIPs           []vipLine
		Pager          pager
		Status, Search string
		Narrowed       bool
		Statuses       []node.VIPStatus
	}{shown, at, status, search, narrowed, node.VIPStatuses}})
}

// rank puts what needs somebody before what does not.
func rank(v deployer.VIP) int {
	switch {
	case !v.Declared:
		return 3
	case v.Status == node.Unannounced:
		return 0
	case v.Status == node.AnnouncementUnknown:
		return 1
	default:
		return 2
	}
}

// VIPPage is one VIP with all of its nodes; ok is false where there is no such VIP.
func VIPPage(frame Frame, f *Fleet, addr string, q url.Values) (html []byte, ok bool) {
	vip, _ := node.CanonicalVIP(addr)
	i := slices.IndexFunc(f.VIPs, func(v deployer.VIP) bool { return v.VIP == vip })
	if i < 0 {
		return nil, false
	}
	nodes, at := paged(f.VIPs[i].Nodes, PathVIPs+"/"+address(vip), url.Values{"page": q["page"]})
	return render("vip", view{frame, address(vip), "vips", struct {
		vipLine
		Nodes []deployer.VIPNode
		Pager pager
	}{line(f.VIPs[i]), nodes, at}}), true
}
