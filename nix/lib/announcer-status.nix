# Where an announcer says how its VIPs stand, and the group that may ask beside root.
{
  socket = "/run/plasmacloud-announcer/control.sock";
  group = "plasmacloud-status";
}
