package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/centra/plasmacloud/vmtests/labcluster"
)

// sizeCluster has so many nodes.
const sizeCluster = `({ lib, ... }: {
	plasmacloud.cluster = {
		name = "size";
		nodes = lib.listToAttrs (map (i: {
			name = "node${toString i}";
			value = { role = if i == 1 then "control-plane" else "worker"; ip = "10.0.0.${toString (i + 10)}"; services = [ "fiberlb" ]; };
		}) (lib.range 1 %d));
		bootstrap.initialPeers = [ "node1" ];
		bgp.asn = 65001;
		bgp.peers.bird1 = { address = "10.0.0.1"; asn = 65000; };
		bgp.peers.frr2 = { address = "10.0.0.2"; asn = 65000; };
	};
	plasmacloud.network.fiberlbBgp = {
		enable = true;
		vips = [ "203.0.113.1" { address = "203.0.113.2"; checks = [ { type = "http"; url = "http://127.0.0.1:8080/"; } ]; } ];
	};
})`

// size runs a cluster of so many nodes, 200 at most, with a deployer, until all is
// as it was evaluated.
func (s soak) size(ctx context.Context, nodes int) (err error) {
	began := time.Now()
	evaluated, err := labcluster.Evaluate(ctx, s.repo, map[string]string{"size": fmt.Sprintf(sizeCluster, nodes)})
	if err != nil {
		return err
	}
	known := time.Now()
	c, err := labcluster.Start(labcluster.Config{Name: "size", Programs: s.programs.With(s.speaker), Cluster: evaluated["size"], Deployer: true, Clients: true})
	defer func() { err = errors.Join(err, c.Close()) }()
	if err != nil {
		return err
	}
	up := time.Now()
	checks := c.Settle(ctx, patience)
	if err := labcluster.Err(checks); err != nil {
		s.say("%s", c.Log())
		return err
	}
	s.say("size: %d nodes: evaluated in %.1f s, up in %.1f s, all of %d checks ok %.1f s later",
		nodes, known.Sub(began).Seconds(), up.Sub(known).Seconds(), len(checks), time.Since(up).Seconds())
	return nil
}
