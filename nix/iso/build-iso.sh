#!/usr/bin/env bash
# Builds the ISO that the machines of a cluster boot first; see --help.
set -euo pipefail

usage() {
  cat << 'EOT'
Usage: build-iso.sh [--flake REF] [--node NAME] [flags]

Builds the ISO that the machines of a cluster boot first. One ISO serves all nodes,
where each says how its machine is known (identity.macs or identity.serial);
--node makes one for a single node, whatever machine that is.

Examples:
  # for all nodes of the cluster in this folder
  build-iso.sh --ssh-key ~/.ssh/id_ed25519.pub

  # for one node, with what it needs to join over https
  build-iso.sh --flake ../my-cluster --node node01 --ssh-key ~/.ssh/id_ed25519.pub \
    --join-token-file ./token --ca-file ./deployer-ca.pem --out /tmp

  # see what would be done
  build-iso.sh --flake ../my-cluster --dry-run

Flags:
  --flake REF             the cluster's flake (default: the current folder)
  --node NAME             the only node that the ISO is for (default: all)
  --ssh-key FILE          public keys that may log in as root, besides those of
                          plasmacloud.iso.sshKeys; repeatable
  --password              also let root log in with a password made at random.
                          Without any key this is so anyway
  --join-token-file FILE  the token that nodes join the deployer with
  --ca-file FILE          certificates that the deployer's is checked against
  --out PATH              where the ISO goes, a folder or a file (default: .)
  --override-input INPUT=REF
                          take REF in place of an input of the flake; repeatable,
                          beside those of PLASMACLOUD_OVERRIDE_INPUTS, with commas
  --nix EXECUTABLE        the nix to run, with nix-store beside it (default: nix)
  --dry-run               print the commands, and run none
  --help                  this text

What is secret: only the hash of the password goes into the Nix store, and the
password is shown once. The token and the certificates are laid on the finished
ISO, outside of the store; keep such an ISO as you keep the token.

Exit status:
  0   the ISO is built
  1   a command failed; its own message is above
  64  the command line is wrong
  78  the cluster, or a file that was named, is wrong
EOT
}

wrong() { echo "build-iso.sh: $1; see --help" >&2; exit 64; }
bad() { printf 'build-iso.sh: %s\n' "$@" >&2; exit 78; }
fail() { echo "build-iso.sh: $1" >&2; exit 1; }
say() { echo "-- $*" >&2; }

flake=. node='' out=. token='' ca='' password='' dry='' nix=nix
keys=() overrides=()
while [ $# -gt 0 ]; do
  flag=$1
  value=''
  case $flag in
    --flake | --node | --ssh-key | --join-token-file | --ca-file | --out | --override-input | --nix)
      [ $# -ge 2 ] || wrong "$flag needs a value"
      value=$2
      [ -n "$value" ] || wrong "$flag: empty"
      shift
      ;;
    --*=*) wrong "$flag: write it as ${flag%%=*} ${flag#*=}" ;;
  esac
  case $flag in
    --flake) flake=$value ;;
    --node) node=$value ;;
    --ssh-key) keys+=("$value") ;;
    --join-token-file) token=$value ;;
    --ca-file) ca=$value ;;
    --out) out=$value ;;
    --override-input)
      [[ $value == ?*=?* ]] || wrong "--override-input $value: want INPUT=REF"
      overrides+=("$value")
      ;;
    --nix) nix=$value ;;
    --password) password=yes ;;
    --dry-run) dry=yes ;;
    --help | -h) usage; exit 0 ;;
    -*) wrong "there is no flag $flag" ;;
    *) wrong "unexpected argument \"$flag\"" ;;
  esac
  shift
done

# What was given, before anything is run.

[[ $flake != *'#'* ]] || wrong "--flake $flake: without a #, since the ISO is always nixosConfigurations.plasmacloud-iso"
[[ -z $node || $node =~ ^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$ ]] || wrong "--node $node: no name of a node"

IFS=, read -ra more <<< "${PLASMACLOUD_OVERRIDE_INPUTS-}"
for value in ${more[@]+"${more[@]}"}; do
  [[ $value == ?*=?* ]] || wrong "PLASMACLOUD_OVERRIDE_INPUTS: \"$value\" is not INPUT=REF"
  # Unless a flag names the same input.
  [[ " ${overrides[*]%%=*} " == *" ${value%%=*} "* ]] || overrides+=("$value")
done

readable() { if ! [ -f "$2" ] || ! [ -r "$2" ]; then bad "$1 $2: cannot be read, or is no file"; fi; }
public_keys=()
for file in ${keys[@]+"${keys[@]}"}; do
  readable --ssh-key "$file"
  ! grep -q 'PRIVATE KEY' "$file" || bad "--ssh-key $file: that is a private key; name the public one, $file.pub"
  count=0
  while IFS= read -r line || [ -n "$line" ]; do
    line=${line%$'\r'}
    [[ $line =~ ^[[:space:]]*(#|$) ]] && continue
    [[ $line =~ ^(ssh-[a-z0-9]+|ecdsa-sha2-[a-z0-9]+|sk-[a-z0-9@.-]+)\ +[A-Za-z0-9+/]{32,}=*([[:space:]].*)?$ ]] ||
      bad "--ssh-key $file: \"${line:0:60}\" is no public key; it begins with a word such as ssh-ed25519"
    public_keys+=("$line")
    count=$((count + 1))
  done < "$file"
  [ "$count" -gt 0 ] || bad "--ssh-key $file: there is no key in it"
done
if [ -n "$token" ]; then
  readable --join-token-file "$token"
  # What plasmacloud-phone-home takes.
  [[ $(head -c 4096 "$token" | tr -d '\0') =~ ^[A-Za-z0-9._~+/=-]{22,256}$ ]] ||
    bad "--join-token-file $token: want one token of 22 to 256 characters and nothing else; make one with: openssl rand -hex 32"
fi
if [ -n "$ca" ]; then
  readable --ca-file "$ca"
  ! grep -q 'PRIVATE KEY' "$ca" || bad "--ca-file $ca: it has a private key, which must not leave its machine; name the certificates only"
  grep -q 'BEGIN CERTIFICATE' "$ca" || bad "--ca-file $ca: there is no certificate in it (PEM, BEGIN CERTIFICATE)"
fi
if [ -d "$out" ]; then
  out=${out%/}/
elif [ -e "$out" ] && ! [ -f "$out" ]; then
  wrong "--out $out: neither a folder nor a file; build the ISO first, and write it to a device then"
else
  [ -d "$(dirname "$out")" ] || wrong "--out $out: there is no folder $(dirname "$out")"
fi

need() { command -v "$1" > /dev/null || fail "there is no $1 here; on Debian it is in the package $2, with Nix: nix shell nixpkgs#$3"; }
nix_store="${nix%nix}nix-store"
if [ -z "$dry" ]; then
  need "$nix" nix-bin nix
  need "$nix_store" nix-bin nix
  [ -z "$token$ca" ] || need xorriso xorriso xorriso
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A folder needs no ./ in front, and no Nix before 2.26 takes the lock of a flake
# with inputs in its own folder: it gets a copy without one.
reference() {
  local ref=$1 dir=${1#path:} version copy
  if ! [ -f "$dir/flake.nix" ]; then
    echo "$ref"
    return
  fi
  dir=$(realpath "$dir")
  if [ -z "$dry" ] && grep -q '"parent"' "$dir/flake.lock" 2> /dev/null; then
    version=$("$nix" --version | grep -oE '[0-9]+\.[0-9]+' | head -n 1)
    if [ "$(printf '%s\n' 2.26 "$version" | sort -V | head -n 1)" != 2.26 ]; then
      say "Nix $version does not read the flake.lock of $dir, so its pins are not used; Nix 2.26 or later uses them"
      copy=$(mktemp -d "$work/flake.XXXXXX")
      if [ -e "$dir/.git" ]; then
        # What is tracked, but for what was removed since.
        (cd "$dir" && git ls-files -z --cached | xargs -0 cp --parents -P -t "$copy" 2> /dev/null) || true
      else
        cp -r "$dir/." "$copy"
      fi
      rm -f "$copy/flake.lock"
      echo "path:$copy"
      return
    fi
  fi
  case $ref in
    path:*) echo "path:$dir" ;;
    *) echo "$dir" ;;
  esac
}

installable="$(reference "$flake")#nixosConfigurations.plasmacloud-iso"
evaluate=("$nix" --extra-experimental-features 'nix-command flakes' eval --raw --no-write-lock-file)
for pair in ${overrides[@]+"${overrides[@]}"}; do
  evaluate+=(--override-input "${pair%%=*}" "$(reference "${pair#*=}")")
done

# nix_string TEXT: as a string of the Nix language.
nix_string() {
  local text=$1
  text=${text//\\/\\\\}
  text=${text//\"/\\\"}
  text=${text//\$/\\\$}
  printf '"%s"' "$text"
}

# with_parameters HASH: what makes of the cluster's ISO this one.
with_parameters() {
  local list='' key
  for key in ${public_keys[@]+"${public_keys[@]}"}; do list+=" $(nix_string "$key")"; done
  printf 'iso: (iso.extendModules { modules = [ { plasmacloud.iso = {'
  [ -z "$node" ] || printf ' node = %s;' "$(nix_string "$node")"
  [ -z "$list" ] || printf ' sshKeys = [%s ];' "$list"
  [ -z "$1" ] || printf ' passwordHash = %s;' "$(nix_string "$1")"
  printf ' }; } ]; }).config.system.build.isoImage.drvPath'
}

show() { printf '%q ' "$@"; echo; }
add_to() { # ISO, where to
  add=(xorriso -report_about WARNING -abort_on FAILURE -return_with SORRY 32
    -indev "$1" -outdev "$2" -boot_image any replay)
  # Root's alone, as the ISO is mounted on the machine.
  [ -z "$token" ] || add+=(-map "$token" /plasmacloud/join-token -chown 0 /plasmacloud/join-token --
    -chgrp 0 /plasmacloud/join-token -- -chmod 0400 /plasmacloud/join-token --)
  [ -z "$ca" ] || add+=(-map "$ca" /plasmacloud/ca.pem -chmod 0444 /plasmacloud/ca.pem --)
  add+=(-commit)
}

# boots ISO: the ways in which a machine may boot it.
boots() {
  xorriso -indev "$1" -report_el_torito plain -report_system_area plain 2> /dev/null |
    sed -n -e 's/^System area summary: *//p' -e 's/^El Torito img path : *//p' -e 's/^MBR partition path : *//p' | paste -sd ';'
}

if [ -n "$dry" ]; then
  hash=''
  [ -z "$password" ] && [ ${#public_keys[@]} -gt 0 ] || hash='HASH-OF-A-NEW-PASSWORD'
  show "${evaluate[@]}" "$installable" --apply "$(with_parameters "$hash")"
  show "$nix_store" --realise DERIVATION
  if [ -n "$token$ca" ]; then
    add_to STORE-PATH/iso/NAME.iso "$out"
    show "${add[@]}"
  else
    show cp STORE-PATH/iso/NAME.iso "$out"
  fi
  exit 0
fi

say "reading the cluster of $flake"
# Names and numbers alone, one a line.
query='iso: let c = iso.config.plasmacloud.iso; m = c.manifest; in builtins.concatStringsSep "\n" (
  map (message: "assertion " + builtins.replaceStrings [ "\n" ] [ " " ] message) m.failedAssertions
  ++ (if m.data == null then [ ] else [ "cluster ${m.data.cluster.name}" "url ${m.data.cluster.deployerUrl}" ]
    ++ map (id: let n = m.data.nodes.${id}; in
      "node ${id} ${n.deployment.provision.mode} ${if n.identity.macs == [ ] && n.identity.serial == null then "unmarked" else "marked"}")
      (builtins.attrNames m.data.nodes))
  ++ map (_: "key") c.sshKeys)'
"${evaluate[@]}" "$installable" --apply "$query" > "$work/cluster" ||
  bad "$flake is no flake of a cluster, or does not evaluate (see above). Its outputs are those of plasmacloud.lib.mkCluster, nixosConfigurations included."
if grep -q '^assertion ' "$work/cluster"; then
  bad "the cluster is wrong:" "$(sed -n 's/^assertion /  /p' "$work/cluster")"
fi
cluster=$(sed -n 's/^cluster //p' "$work/cluster")
url=$(sed -n 's/^url //p' "$work/cluster")
if [ -n "$node" ]; then
  grep -q "^node $node " "$work/cluster" ||
    bad "--node $node: the cluster $cluster has no such node; it has $(awk '$1 == "node" { printf "%s%s", sep, $2; sep = ", " }' "$work/cluster")"
  mode=$(awk -v id="$node" '$1 == "node" && $2 == id { print $3 }' "$work/cluster")
  say "cluster $cluster, node $node, which $([ "$mode" = live ] && echo "runs from the ISO" || echo "is installed on its disk")"
else
  unmarked=$(awk '$1 == "node" && $4 == "unmarked" { printf "%s%s", sep, $2; sep = ", " }' "$work/cluster")
  marked=$(grep -c '^node .* marked$' "$work/cluster" || true)
  [ "$marked" -gt 0 ] ||
    bad "an ISO for all nodes of $cluster could not tell one machine from another: set plasmacloud.cluster.nodes.<node>.identity.macs or .serial, or make an ISO for one node by --node"
  say "cluster $cluster, $marked nodes"
  [ -z "$unmarked" ] || say "no machine will be $unmarked: neither identity.macs nor identity.serial is set"
fi
say "nodes report to $url"
case $url in https:*) ;; *)
  [ -z "$ca" ] || bad "--ca-file $ca: the nodes report to $url, which is not https; set plasmacloud.cluster.deployer.url" ;;
esac

hash='' secret=''
if [ -n "$password" ] || { [ ${#public_keys[@]} = 0 ] && ! grep -q '^key$' "$work/cluster"; }; then
  need openssl openssl openssl
  # 120 bits: its hash may be read by anybody who has the ISO.
  secret=$(openssl rand -base64 15 | tr '+/' '-_')
  hash=$(openssl passwd -6 -stdin <<< "$secret")
fi

say "evaluating"
derivation=$("${evaluate[@]}" "$installable" --apply "$(with_parameters "$hash")") ||
  bad "the ISO does not evaluate (see above)"
say "building $derivation; the first time this downloads and packs some GB"
built=$("$nix_store" --realise "$derivation") || fail "the build failed (see above)"
images=("$built"/iso/*.iso)
[ -f "${images[0]}" ] || fail "$built has no iso/*.iso"

result=$out
[ "${out%/}" = "$out" ] || result=$out$(basename "${images[0]}")
umask 077
rm -f "$result.part"
trap 'rm -rf "$work" "$result.part"' EXIT
if [ -n "$token$ca" ]; then
  say "adding$([ -z "$token" ] || echo " the join token")$([ -z "$token" ] || [ -z "$ca" ] || echo " and")$([ -z "$ca" ] || echo " the certificates") to a copy of the ISO"
  add_to "${images[0]}" "$result.part"
  "${add[@]}" 2> "$work/xorriso" || { cat "$work/xorriso" >&2; fail "xorriso failed (see above)"; }
  [ "$(boots "${images[0]}")" = "$(boots "$result.part")" ] ||
    fail "what the ISO boots by did not survive: $(boots "${images[0]}"), and then $(boots "$result.part")"
else
  say "copying the ISO"
  cp --reflink=auto "${images[0]}" "$result.part"
fi
# With a token in it the file is its owner's alone.
if [ -n "$token" ]; then chmod 0600 "$result.part"; else chmod 0644 "$result.part"; fi
mv -f "$result.part" "$result"

result=$(realpath "$result")
sum=$(sha256sum < "$result")
echo "path:     $result"
echo "size:     $(stat -c %s "$result") bytes"
echo "sha256:   ${sum%% *}"
[ -z "$secret" ] || echo "password: $secret (root; shown only now)"
say "write it to a USB stick: dd if=$result of=/dev/sdX bs=4M conv=fsync status=progress"
