# A cluster of one node, whose address is for the case to say.
{
  plasmacloud.cluster = {
    name = "one";
    nodes.node01.role = "control-plane";
  };
}
