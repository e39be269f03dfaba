{
  plasmacloud.cluster.nodes.node01 = {
    role = "control-plane";
    ip = "10.0.0.11";
  };
}
