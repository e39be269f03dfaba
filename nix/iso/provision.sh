#!/usr/bin/env bash
# Installs this machine's node on its disk, once the deployer allows it.
#
# Run by plasmacloud-provision.service of the ISO, and again after the statuses 1, 75 and
# 77; by hand, to try again at once:
#   systemctl restart plasmacloud-provision
#
# Environment:
#   NODE        the node's id
#   DISK        the disk that is overwritten; may be empty, for a script that knows
#   PARTITION   program that partitions and formats, and mounts below MNT
#   SYSTEM      the NixOS system to install, a store path that this ISO carries; or
#   FLAKE       the flake that has it as nixosConfigurations.NODE
#   PHONE_HOME  plasmacloud-phone-home, with what it needs to reach the deployer
#   STATE       directory for what has to outlive a run, and not a boot
#   MNT         where the node's file systems are mounted (/mnt)
#   ISO         where the medium that this machine booted from is mounted (/iso)
#
# Exit status:
#   0   installed, and the machine reboots
#   1   the deployer was not reached: the disk is untouched
#   70  the installation failed: the disk is in an unknown state
#   75  the same, and an operator wants it tried again: `plasmactl node retry`
#   77  the deployer refused: the disk is untouched
#   78  what this script was given is wrong: the disk is untouched
set -euo pipefail

: "${NODE:?}" "${PHONE_HOME:?}" "${STATE:=/run/plasmacloud}" "${MNT:=/mnt}" "${ISO:=/iso}"
export NODE STATE MNT DISK="${DISK-}"
SYSTEM=${SYSTEM-} FLAKE=${FLAKE-} PARTITION=${PARTITION-}
log=$STATE/provision.log

say() { printf '\n*** %s\n' "$@"; }

# Runs the agent in the background so that the deployer goes on hearing of this
# node, and dies with this script.
heartbeat=
start_heartbeat() {
  setpriv --pdeathsig TERM "$PHONE_HOME" --phase installing --heartbeat --log-level error &
  heartbeat=$!
}
stop_heartbeat() {
  [ -n "$heartbeat" ] || return 0
  kill "$heartbeat" 2> /dev/null || true
  wait "$heartbeat" 2> /dev/null || true
  heartbeat=
}
trap stop_heartbeat EXIT

# Whether DISK is what this machine booted from, whole or in part. Asked by number:
# the mount may go by a name that only the start of the boot knew.
is_medium() {
  local device
  device=/dev/block/$(findmnt --noheadings --output MAJ:MIN --target "$ISO" | tr -d ' ') || return 1
  lsblk --noheadings --list --inverse --output PATH "$(realpath --canonicalize-missing "$device")" 2> /dev/null |
    grep -qxF "$(realpath "$DISK")"
}

check_disk() {
  [ -n "$DISK" ] || return 0
  if ! [ -e "$DISK" ]; then
    echo "there is no $DISK; this machine has:"
    lsblk --nodeps --output NAME,SIZE,MODEL,SERIAL || true
    return 1
  fi
  if is_medium; then
    echo "$DISK is the medium that this machine booted from; name another in deployment.provision.disk"
    return 1
  fi
}

# What an installation that was cut off left mounted.
unmount() {
  while mountpoint --quiet "$MNT"; do umount --recursive "$MNT"; done
  mkdir -p "$MNT"
}

partition() {
  if [ -n "$PARTITION" ]; then
    "$PARTITION"
  else
    local script
    script=$(nix --extra-experimental-features 'nix-command flakes' build --no-link --print-out-paths \
      "$FLAKE#nixosConfigurations.$NODE.config.system.build.diskoScript")
    "$script"
  fi
  # Else the system would go into this machine's memory.
  mountpoint --quiet "$MNT" || { echo "nothing is mounted at $MNT after the disk was laid out"; return 1; }
}

install_system() {
  local what=(--system "$SYSTEM")
  [ -n "$SYSTEM" ] || what=(--flake "$FLAKE#$NODE")
  nixos-install --root "$MNT" --no-root-passwd --no-channel-copy "${what[@]}"
  # By which the installed system proves that it is this node.
  if [ -e "$STATE/secret" ]; then
    install -d -m 0700 "$MNT/var/lib/plasmacloud-phone-home"
    install -m 0600 "$STATE/secret" "$MNT/var/lib/plasmacloud-phone-home/secret"
  fi
}

provision() {
  say "$NODE: laying out ${DISK:-the disk}"
  check_disk
  unmount
  partition
  say "$NODE: installing"
  install_system
  sync
  umount --recursive "$MNT" || echo "$MNT stays mounted until the reboot"
}

# The end of the log as one report takes it: no colours, no progress bars.
last_lines() {
  sed -e 's/\x1b\[[0-9;?]*[A-Za-z]//g' -e 's/.*\r//' "$log" | LC_ALL=C tr -cd '\n\040-\176' |
    grep -v '^[[:space:]]*$' | tail -n 15 | tail -c 3000
}

[ -n "$SYSTEM$FLAKE" ] || { say "$NODE: neither SYSTEM nor FLAKE says what to install"; exit 78; }
[ -n "$PARTITION$FLAKE" ] || { say "$NODE: neither PARTITION nor FLAKE says how to lay out the disk"; exit 78; }
exec 9> "$STATE/provision.lock"
flock --nonblock 9 || { say "$NODE: another installation is running"; exit 78; }

# Nothing is written before the deployer said yes.
status=0
"$PHONE_HOME" --phase installing --attempts 5 || status=$?
case $status in
  0) ;;
  77)
    say "$NODE is NOT installed: the deployer refused, for the reason above. The disk is untouched." \
      "Where it was installed and should be again: plasmactl node reinstall $NODE" \
      "Where it replaces a machine that is gone: plasmactl node reset $NODE"
    exit 77
    ;;
  *)
    say "$NODE is NOT installed: no answer that allows it (status $status). The disk is untouched."
    [ "$status" = 78 ] || status=1
    exit "$status"
    ;;
esac

start_heartbeat 9>&-
set +e
# Not in a condition: bash takes no notice of set -e there. What runs in it keeps
# the lock, also where this script is killed and it is not.
(set -e; provision) 2>&1 | tee "$log"
status=${PIPESTATUS[0]}
set -e
stop_heartbeat

if [ "$status" != 0 ]; then
  say "$NODE is NOT installed: it failed with status $status. The disk is in an unknown state." \
    "To try again: plasmactl node retry $NODE, or here: systemctl restart plasmacloud-provision"
  lines=$(last_lines || true)
  # Its end by a signal is nobody's order, and not status 0.
  "$PHONE_HOME" --phase failed --error "${lines:-it failed with status $status and said nothing}" --until-retry || exit 70
  say "$NODE: an operator wants it tried again"
  exit 75
fi
# Without end: as long as the deployer does not know, it would let the next boot of
# this ISO install again.
say "$NODE is installed; telling the deployer"
"$PHONE_HOME" --phase installed --attempts 0 ||
  say "$NODE is installed, and the deployer takes no notice, for the reason above."
say "$NODE is installed; rebooting. Boot from the disk now."
systemctl reboot
