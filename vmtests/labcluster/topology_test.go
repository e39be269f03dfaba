package labcluster

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/centra/plasmacloud/nixeval"
)

// peered is a cluster of nodes at addresses, each with the same peers at addresses.
func peered(nodes, peers map[string]string) (*nixeval.Manifest, map[string]nixeval.Machine) {
	m := &nixeval.Manifest{Nodes: map[string]nixeval.Node{}}
	machines := map[string]nixeval.Machine{}
	for id, ip := range nodes {
		m.Nodes[id] = nixeval.Node{IP: ip}
		bgp := &nixeval.Speaker{Peers: map[string]nixeval.SpeakerPeer{}}
		for name, address := range peers {
			bgp.Peers[name] = nixeval.SpeakerPeer{Address: &address, ASN: 65000}
		}
		machines[id] = nixeval.Machine{BGP: bgp}
	}
	return m, machines
}

// Hosts of no common network are named, with what would mend it.
func TestTopologyOfNoCommonNetwork(t *testing.T) {
	t.Parallel()
	nodes := map[string]string{"a": "10.0.0.11", "b": "10.0.0.12"}
	_, err := newTopology(peered(nodes, map[string]string{"near": "10.0.0.2", "far": "172.16.0.1"}))
	assert.ErrorContains(t, err, "bgp.peers.far.address of node a: no network has both 172.16.0.1 and 10.0.0.11")
	assert.ErrorContains(t, err, "set bgp.peers.far.multihop")

	_, err = newTopology(peered(map[string]string{"a": "10.0.0.11", "b": "192.0.2.12"}, map[string]string{"near": "10.0.0.2"}))
	assert.ErrorContains(t, err, "address of node b: no network has both 192.0.2.12 and 10.0.0.11")

	topology, err := newTopology(peered(nodes, map[string]string{"near": "10.0.0.2", "next": "10.0.1.2"}))
	require.NoError(t, err)
	require.Len(t, topology.sites, 1)
	assert.Equal(t, "10.0.0.0/23", topology.sites[0].nets[0].String())
}
