# A machine boots the ISO of its cluster, by an address from DHCP, and becomes
# Active as the node that its network card makes it.
{
  pkgs,
  mkCluster,
  nixosModule,
  cluster,
}:
let
  mac = "52:54:00:12:01:63";
  marked = {
    imports = [ cluster ];
    plasmacloud.cluster.nodes.node02.identity.macs = [ mac ];
  };
  machines = import ./machines.nix {
    inherit nixosModule;
    cluster = marked;
  };
  iso = (mkCluster { modules = [ marked ]; }).nixosConfigurations.plasmacloud-iso.config.system.build.isoImage;
in
{
  name = "plasmacloud-iso";

  nodes.deployer = {
    imports = [ machines.deployer ];
    # Beside the deployer's own: the addresses of its network, and its name.
    services.dnsmasq = {
      enable = true;
      settings = {
        interface = "eth1";
        dhcp-range = [ "10.0.0.50,10.0.0.99,255.255.255.0,1h" ];
        address = [ "/deployer/10.0.0.100" ];
        # No other answer about that name, and none of another family.
        local = [ "/deployer/" ];
        # There the name has the address of the test driver's network.
        no-hosts = true;
      };
    };
  };

  testScript = ''
    import json


    def shown(node: str) -> dict:
        return json.loads(deployer.succeed(f"plasmactl node show {node} -o json"))


    deployer.start()
    deployer.wait_for_unit("plasmacloud-deployer.service")
    deployer.wait_for_unit("dnsmasq.service")
    deployer.wait_for_open_port(8080)

    with subtest("a machine with the ISO becomes Active as the node of its network card"):
        booted = create_machine(
            "${pkgs.qemu_test}/bin/qemu-system-x86_64 -machine q35,accel=kvm:tcg -cpu max -m 2048"
            " -cdrom ${iso}/iso/*.iso -netdev vde,id=vlan1,sock=$QEMU_VDE_SOCKET_1"
            " -device virtio-net-pci,netdev=vlan1,mac=${mac}"
        )
        booted.start()
        deployer.wait_until_succeeds(
            "plasmactl node show node02 -o json | jq -e '.state == \"Active\"'",
            timeout=900,
        )
        assert shown("node02")["config"] == "in_sync", shown("node02")

    with subtest("it is no other node"):
        for node in ["node01", "node03"]:
            assert shown(node)["state"] == "Pending", shown(node)

    booted.crash()
  '';
}
