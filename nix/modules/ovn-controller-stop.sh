# Ends ovn-controller, process $MAINPID. The node's chassis, tunnels and flows
# stay, so that a restart interrupts nobody. Where the chassis gets another name,
# the old one leaves the network: two cannot have one address.
name=$(ovs-vsctl --db="$OVSDB" --timeout=5 --if-exists get Open_vSwitch . external_ids:system-id)
how=(exit)
if [ "${name//\"/}" = "$SYSTEM_ID" ]; then
  how+=(--restart)
fi
ovn-appctl -t ovn-controller "${how[@]}"
while kill -0 "$MAINPID" 2> /dev/null; do
  sleep 0.1
done
