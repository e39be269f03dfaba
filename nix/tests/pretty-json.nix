# JSON over several lines, so that a diff of two shows what changed.
let
  show =
    indent: v:
    let
      inner = "${indent}  ";
      enclose =
        open: close: parts:
        if parts == [ ] then
          open + close
        else
          "${open}\n${inner}${builtins.concatStringsSep ",\n${inner}" parts}\n${indent}${close}";
    in
    if builtins.isList v then
      enclose "[" "]" (map (show inner) v)
    else if builtins.isAttrs v then
      enclose "{" "}" (
        map (name: "${builtins.toJSON name}: ${show inner v.${name}}") (builtins.attrNames v)
      )
    else
      builtins.toJSON v;
in
v: show "" v + "\n"
