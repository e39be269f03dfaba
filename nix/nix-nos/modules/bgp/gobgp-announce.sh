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
while read -r prefix rest; do
  # $rest is a list of words.
  # shellcheck disable=SC2086
  gobgp global rib add "$prefix" $rest || refused=1
done < "$WANTED"

while read -r prefix rest; do
  if ! cut -d ' ' -f 1 "$WANTED" | grep -Fxq "$prefix"; then
    gobgp global rib del "$prefix" -a "${rest##* }" || refused=1
  fi
done < "$applied"

cp "$WANTED" "$applied"
[ "$refused" = 0 ]
