{
  plasmacloud.cluster = {
    name = "workers";
    nodes.node01.ip = "10.0.0.11";
  };
}
