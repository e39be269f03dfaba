{ name, lib, ... }:
{
  name = "${name} of a file";
  tags = lib.mkBefore [ "file" ];
}
