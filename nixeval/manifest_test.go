package nixeval

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const goodManifest = `{
  "failedAssertions": [],
  "warnings": ["an even number of control planes"],
  "data": {
    "schemaVersion": 1,
    "cluster": {"name": "c", "asn": 4294967294, "initialPeers": ["n1"], "deployerUrl": "http://deployer:8080"},
    "vips": {"203.0.113.10/32": {"nodes": ["n1"]}},
    "nodes": {
      "n1": {
        "role": "control-plane", "ip": "10.0.0.11", "ipv6": null, "services": ["fiberlb"],
        "labels": {"rack": "a1"}, "site": "berlin", "identity": {"macs": ["52:54:00:12:34:56"], "serial": "CZ3412X0PQ"},
        "deployment": {"targetHost": "n1.example.org", "targetUser": "root", "targetPort": 2222, "tags": ["canary"],
                       "provision": {"mode": "install", "disk": "/dev/vda", "script": null}},
        "clusterConfig": "{}", "configHash": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
        "bgp": {"backend": "gobgp", "asn": 65001, "routerId": "10.0.0.11",
                "peers": {"r": {"address": "10.0.0.1", "asn": 65000, "holdTime": 90}},
                "announcements": [{"prefix": "203.0.113.10/32"}]},
        "announcer": {"asn": 65001, "big": 12345678901234567890}
      },
      "n2": {
        "role": "worker", "ip": "10.0.0.12", "ipv6": "2001:db8::12", "services": [],
        "labels": {}, "site": null, "identity": {"macs": [], "serial": null},
        "deployment": {"targetHost": "10.0.0.12", "targetUser": "root", "targetPort": 22, "tags": [],
                       "provision": {"mode": "live", "disk": null, "script": null}},
        "clusterConfig": "{}", "configHash": "sha256:x", "bgp": null, "announcer": null
      }
    }
  }
}`

func TestDecodeManifest(t *testing.T) {
	m, err := DecodeManifest(strings.NewReader(goodManifest))
	require.NoError(t, err)

	assert.Equal(t, "c", m.Cluster.Name)
	assert.Equal(t, uint32(4294967294), *m.Cluster.ASN)
	assert.Equal(t, []string{"an even number of control planes"}, m.Warnings)
	assert.Equal(t, []string{"n1", "n2"}, m.NodeIDs())
	assert.Equal(t, []string{"n1"}, m.VIPs["203.0.113.10/32"].Nodes)
	assert.Equal(t, goodManifest+"\n", string(m.JSON()))

	n1, n2 := m.Nodes["n1"], m.Nodes["n2"]
	assert.Nil(t, n1.IPv6)
	assert.Equal(t, "2001:db8::12", *n2.IPv6)
	assert.Nil(t, n2.BGP)
	assert.Equal(t, map[string]any{"holdTime": json.Number("90")}, n1.BGP.Peers["r"].Settings)
	assert.Equal(t, uint32(65000), n1.BGP.Peers["r"].ASN)

	serial, disk, site := "CZ3412X0PQ", "/dev/vda", "berlin"
	assert.Equal(t, map[string]string{"rack": "a1"}, n1.Labels)
	assert.Equal(t, &site, n1.Site)
	assert.Equal(t, Identity{MACs: []string{"52:54:00:12:34:56"}, Serial: &serial}, n1.Identity)
	assert.Equal(t, Deployment{TargetHost: "n1.example.org", TargetUser: "root", TargetPort: 2222, Tags: []string{"canary"},
		Provision: Provision{Mode: "install", Disk: &disk}}, n1.Deployment)
	assert.Nil(t, n2.Site)
	assert.Equal(t, Identity{MACs: []string{}}, n2.Identity)

	announcer, err := n1.AnnouncerJSON()
	require.NoError(t, err)
	assert.Contains(t, string(announcer), "12345678901234567890", "numbers stay as they were written")
	none, err := n2.AnnouncerJSON()
	require.NoError(t, err)
	assert.Nil(t, none)
}

func TestDecodeManifestRefuses(t *testing.T) {
	change := func(from, to string) string {
		require.Contains(t, goodManifest, from)
		return strings.Replace(goodManifest, from, to, 1)
	}
	cases := map[string]struct {
		in   string
		says []string
	}{
		"no JSON":             {`nonsense`, []string{"not a JSON object"}},
		"two values":          {goodManifest + `{}`, []string{"more after its JSON object"}},
		"unknown key":         {change(`"ip": "10.0.0.11"`, `"ip": "10.0.0.11", "colour": "red"`), []string{"n1", "colour"}},
		"key in other case":   {change(`"role": "worker"`, `"Role": "worker"`), []string{"n2", "Role"}},
		"missing key":         {change(`"services": [],`, ``), []string{"n2", "services"}},
		"wrong type":          {change(`"services": []`, `"services": [1]`), []string{"n2", "services"}},
		"ASN out of range":    {change(`65000`, `4294967297`), []string{"4294967297", "4294967295"}},
		"ASN negative":        {change(`65000`, `-1`), []string{"-1"}},
		"label no string":     {change(`"a1"`, `1`), []string{"n1", "labels", "rack"}},
		"unknown in identity": {change(`"serial": null`, `"serial": null, "uuid": "x"`), []string{"n2", "identity", "uuid"}},
		"port out of range":   {change(`2222`, `65536`), []string{"targetPort", "65536", "65535"}},
		"no provision": {change(`"tags": [],
                       "provision": {"mode": "live", "disk": null, "script": null}`, `"tags": []`), []string{"n2", "deployment", "provision"}},
		"newer schema": {change(`"schemaVersion": 1`, `"schemaVersion": 2`), []string{"schemaVersion is 2", "same release"}},
		"no data":      {`{"data": null, "failedAssertions": [], "warnings": []}`, []string{"data is null", "mkCluster"}},
		"no verdict":   {`{"data": {}}`, []string{"failedAssertions"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := DecodeManifest(strings.NewReader(c.in))
			require.Error(t, err)
			for _, part := range c.says {
				assert.ErrorContains(t, err, part)
			}
		})
	}
}

// The same mistake in every node is told of some of them.
func TestDecodeManifestManyMistakes(t *testing.T) {
	for nodes, more := range map[int]string{maxErrors: "", maxErrors + 1: "; and 1 more", 1000: "; and 980 more"} {
		all := map[string]any{}
		for i := range nodes {
			all[fmt.Sprintf("n%03d", i)] = "no object"
		}
		var tree map[string]any
		require.NoError(t, json.Unmarshal([]byte(goodManifest), &tree))
		tree["data"].(map[string]any)["nodes"] = all
		in, err := json.Marshal(tree)
		require.NoError(t, err)
		_, err = DecodeManifest(bytes.NewReader(in))
		require.Error(t, err)
		assert.Equal(t, maxErrors, strings.Count(err.Error(), "expected a map"), err)
		assert.Contains(t, err.Error(), "n000")
		assert.Contains(t, err.Error(), "n019")
		assert.True(t, strings.HasSuffix(err.Error(), more), err)
	}
}

func TestDecodeManifestFailedAssertions(t *testing.T) {
	_, err := DecodeManifest(strings.NewReader(`{"data": null, "failedAssertions": ["set a", "set b"], "warnings": []}`))
	var failed *AssertionError
	require.ErrorAs(t, err, &failed)
	assert.Equal(t, []string{"set a", "set b"}, failed.Messages)
	assert.EqualError(t, err, "the cluster fails its assertions:\n- set a\n- set b")
}

func FuzzDecodeManifest(f *testing.F) {
	f.Add(goodManifest)
	f.Add(`{"data": {"schemaVersion": 1, "nodes": {"a": null}}, "failedAssertions": null, "warnings": [null]}`)
	f.Fuzz(func(t *testing.T, in string) {
		m, err := DecodeManifest(strings.NewReader(in))
		if err != nil {
			return
		}
		for _, id := range m.NodeIDs() {
			_, err := m.Nodes[id].AnnouncerJSON()
			assert.NoError(t, err)
		}
	})
}
