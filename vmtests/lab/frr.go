package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// FRRDaemons is the folder with the daemons of FRR, which are in no PATH.
func FRRDaemons() (string, error) {
	folders := []string{"/usr/lib/frr", "/usr/libexec/frr"} // Debian, Fedora
	if vtysh, err := exec.LookPath("vtysh"); err == nil {
		if vtysh, err = filepath.EvalSymlinks(vtysh); err == nil { // in a package of Nix
			folders = append([]string{filepath.Join(vtysh, "../../libexec/frr")}, folders...)
		}
	}
	for _, folder := range folders {
		if _, err := os.Stat(filepath.Join(folder, "bgpd")); err == nil {
			return folder, nil
		}
	}
	return "", fmt.Errorf("FRR's bgpd is in none of %s", strings.Join(folders, ", "))
}
