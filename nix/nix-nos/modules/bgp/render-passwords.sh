# Writes a configuration with passwords in the place of their marks:
#
#   bash render-passwords.sh FORMAT TEMPLATE OUTPUT OWNED [MARK FILE]...
#
# FORMAT is that of the configuration: bird, frr or toml. Whom OWNED belongs to
# gets OUTPUT, and nobody else can read it. Root alone may write to the folder of
# OUTPUT, so that nothing there can lead root astray.
set -euo pipefail
LC_ALL=C
umask 077
format=$1 template=$2 output=$3 owned=$4
shift 4

text=$(< "$template")
while [ $# -gt 0 ]; do
  mark=$1 file=$2
  shift 2
  if ! password=$(tr '\0' ' ' < "$file"); then
    echo "passwordFile $file: cannot be read" >&2
    exit 1
  fi
  if ! [[ $password =~ ^[!-~]{1,80}$ ]]; then
    echo "passwordFile $file: a password is 1 to 80 printable ASCII characters without blanks" >&2
    exit 1
  fi
  case $format in
    bird)
      if [[ $password == *'"'* ]]; then
        echo "passwordFile $file: BIRD can read no double quote in a password" >&2
        exit 1
      fi
      ;;
    toml)
      password=${password//'\'/'\\'}
      password=${password//'"'/'\"'}
      ;;
  esac
  # Quoted, since an & would be the mark itself.
  text=${text//"$mark"/"$password"}
done

install -d -m 0755 "${output%/*}"
new=$(mktemp "$output.XXXXXX")
printf '%s\n' "$text" > "$new"
chown --reference="$owned" "$new"
mv "$new" "$output"
