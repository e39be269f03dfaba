# What no service of ours needs: the same as for those of nix-nos.
import ../nix-nos/lib/hardening.nix
