package vmtests

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/centra/plasmacloud/vmtests/lab"
)

func TestPrismNETFirewall(t *testing.T) {
	t.Parallel()
	// Around our rules, what NixOS has there: what no rule accepts is dropped.
	backends := map[string]func(prismnetNode) string{
		"nftables": func(n prismnetNode) string {
			return "nft -f - <<'end'\ntable inet nixos-fw {\n chain input-allow {\n" + n.Firewall.ExtraInputRules + `}
				chain input {
					type filter hook input priority filter; policy drop;
					ct state { established, related } accept
					icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
					jump input-allow
				}
			}` + "\nend\n"
		},
		"iptables": func(n prismnetNode) string {
			return `for t in iptables ip6tables; do
				$t -N nixos-fw-accept; $t -A nixos-fw-accept -j ACCEPT
				$t -N nixos-fw; $t -A INPUT -j nixos-fw
				$t -A nixos-fw -m conntrack --ctstate ESTABLISHED,RELATED -j nixos-fw-accept
			done
			ip6tables -A nixos-fw -p icmpv6 -j nixos-fw-accept
			` + n.Firewall.ExtraCommands + `
			for t in iptables ip6tables; do $t -A nixos-fw -j DROP; done`
		},
	}
	for backend, ruleset := range backends {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			l, err := lab.New("prismfw")
			require.NoError(t, err)
			t.Cleanup(func() { assert.NoError(t, l.Close()) })
			hosts := map[string]*lab.Host{}
			segment := map[*lab.Host][]netip.Prefix{}
			for id, name := range map[int]string{11: "node01", 12: "node02", 13: "stranger"} {
				hosts[name], err = l.Host(name)
				require.NoError(t, err)
				segment[hosts[name]] = []netip.Prefix{
					netip.MustParsePrefix(fmt.Sprintf("10.0.0.%d/24", id)),
					netip.MustParsePrefix(fmt.Sprintf("2001:db8:0:1::%d/64", id)),
				}
			}
			require.NoError(t, l.Switch(segment))
			nodes := evaluatePrismNET(t, `
				nodes.node01.encapsulationIp = "2001:db8:0:1::11";
				nodes.node02.encapsulationIp = "2001:db8:0:1::12";
			`, fmt.Sprintf("networking.nftables.enable = %t;", backend == "nftables"))
			for _, name := range []string{"node01", "node02"} {
				_, err := hosts[name].Run("bash", "-e", "-c", ruleset(nodes[name]))
				require.NoError(t, err)
			}

			// Where nothing listens, a packet that gets through is answered by a refusal.
			refused := func(within time.Duration, from, protocol, to, port string) bool {
				ctx, cancel := context.WithTimeout(t.Context(), within)
				defer cancel()
				out, _ := exec.CommandContext(ctx, "ip", "netns", "exec", hosts[from].Namespace, "bash", "-c", fmt.Sprintf(
					`exec 3<>/dev/%s/%s/%s && while echo >&3; do sleep 0.05; done`, protocol, to, port)).CombinedOutput() // it never ends well
				return strings.Contains(string(out), "refused")
			}
			for _, probe := range []struct {
				from, protocol, to, port string
				want                     bool
			}{
				{"node02", "udp", "2001:db8:0:1::11", "6081", true},
				{"node01", "udp", "2001:db8:0:1::12", "6081", true},
				{"stranger", "udp", "2001:db8:0:1::11", "6081", false},
				{"node02", "udp", "10.0.0.11", "6081", false}, // no tunnel comes from there
				{"node02", "udp", "2001:db8:0:1::11", "4789", false},
				{"node02", "tcp", "10.0.0.11", "6642", true},
				{"stranger", "tcp", "10.0.0.11", "6642", false},
				{"node01", "tcp", "10.0.0.12", "6642", false}, // no control plane
				{"node02", "tcp", "10.0.0.11", "6641", false},
			} {
				t.Run(fmt.Sprintf("%s to %s %s port %s", probe.from, probe.protocol, probe.to, probe.port), func(t *testing.T) {
					t.Parallel()
					within := patience
					if !probe.want {
						within = time.Second
					}
					assert.Equal(t, probe.want, refused(within, probe.from, probe.protocol, probe.to, probe.port))
				})
			}
		})
	}
}
