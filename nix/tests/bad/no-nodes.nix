{ plasmacloud.cluster.name = "empty"; }
