# Brings external_ids of this machine's Open vSwitch to what $SETTINGS says, in
# one transaction. The key plasmacloud-keys lists the keys that are ours, so that
# one that is declared no more can go; every other key is somebody else's.
set -uo pipefail

vsctl() { ovs-vsctl --db="$OVSDB" --no-wait --timeout=10 "$@"; }

# What differs, as the words of commands, one a line. OVSDB quotes as JSON does.
words=$(
  vsctl --format=json --columns=external_ids list Open_vSwitch . |
    jq --raw-output --slurpfile settings "$SETTINGS" '
      (.data[0][0][1] | map({key: .[0], value: .[1]}) | from_entries) as $now
      | $settings[0]
      | . + {"plasmacloud-keys": (keys | join(","))}
      | . as $wanted
      | (($now["plasmacloud-keys"] // "" | split(",")) - keys
          | map(select(in($now)) | "--", "remove", "Open_vSwitch", ".", "external_ids", @json)),
        (to_entries
          | map(select($now[.key] != .value)
            | "--", "set", "Open_vSwitch", ".", "external_ids:\(.key | @json)=\(.value | @json)"))
      | .[]'
)
if [ -z "$words" ]; then
  echo "external_ids are as they should be"
  exit 0
fi
mapfile -t commands <<< "$words"
vsctl "${commands[@]}"
echo "changed external_ids: ${commands[*]}"
