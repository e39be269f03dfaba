# Makes gobgpd originate the routes of $WANTED, and no more those that an
# earlier run added. New routes come before old ones go: what stays is not
# touched on the way. A route that gobgpd refuses keeps no other one back.
applied="$RUNTIME_DIRECTORY/applied"
touch "$applied"

gobgp() { command gobgp -u "$GOBGP_HOST" -p "$GOBGP_PORT" "$@"; }

# The API answers before the configuration is in force; a route that is added
# then is lost.
until gobgp global | grep -q "^AS: *$GOBGP_AS\$"; do
  sleep 0.2
done

refused=0
: > "$applied.new"
while read -r prefix rest; do
  # $rest is a list of words.
  # shellcheck disable=SC2086
  if gobgp global rib add "$prefix" $rest; then
    echo "$prefix $rest" >> "$applied.new"
  else
    # As it was before, if it was.
    grep "^${prefix//./\\.} " "$applied" >> "$applied.new" || true
    refused=1
  fi
done < "$WANTED"

while read -r prefix rest; do
  if cut -d ' ' -f 1 "$WANTED" | grep -Fxq "$prefix"; then
    continue
  fi
  if ! gobgp global rib del "$prefix" -a "${rest##* }"; then
    echo "$prefix $rest" >> "$applied.new"
    refused=1
  fi
done < "$applied"

mv "$applied.new" "$applied"
[ "$refused" = 0 ]
