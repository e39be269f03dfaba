# A small cluster that is right, for cases to add one thing to.
{
  plasmacloud.cluster = {
    name = "base";
    nodes = {
      node01 = {
        role = "control-plane";
        ip = "10.0.0.11";
        services = [ "fiberlb" ];
      };
      node02.ip = "10.0.0.12";
    };
  };
}
