package labrun

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"

	"github.com/centra/plasmacloud/vmtests/lab"
	"github.com/centra/plasmacloud/vmtests/labcluster"
)

// needed are the programs that a lab may need, in the order in which they are told, with
// their packages in Debian and in nixpkgs.
var needed = []struct{ program, debian, nixpkgs string }{
	{"ip", "iproute2", "iproute2"},
	{"nft", "nftables", "nftables"},
	{"gobgpd", "gobgpd", "gobgpd"},
	{"gobgp", "gobgpd", "gobgp"},
	{"bird", "bird2", "bird2"},
	{"vtysh", "frr", "frr"},
}

// programsOf are the programs of needed that a kind of router takes, or a backend of nodes.
var programsOf = map[string][]string{"bird": {"bird"}, "frr": {"vtysh"}, "gobgp": {"gobgpd", "gobgp"}}

// findPrograms finds what runs in the lab, or tells all that is missing.
func (r *Runner) findPrograms(ctx context.Context) error {
	// Debian keeps daemons where not every PATH looks.
	if err := os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin"); err != nil {
		return err
	}
	kinds, err := labcluster.RouterKinds(r.asEvaluated(), r.cfg.Routers)
	if err != nil {
		return err
	}
	r.routers = len(kinds)
	why := map[string]string{"ip": "the network namespaces"}
	if r.cfg.Drops {
		why["nft"] = "link split and link lose"
	}
	for _, name := range slices.Sorted(maps.Keys(kinds)) {
		for _, program := range programsOf[kinds[name]] {
			why[program] = "router " + name + ", where --routers takes no others"
		}
	}
	speakers := map[string]bool{}
	for _, m := range r.evaluated.Machines {
		if m.BGP == nil {
			continue
		}
		speakers[m.BGP.Backend] = true
		why[programsOf[m.BGP.Backend][0]] = "the nodes"
		if m.BGP.Backend == "gobgp" && m.BGP.Injects {
			why["gobgp"] = "the routes of nix-nos.bgp.announcements"
		}
	}

	r.programs = labcluster.Programs{Bin: r.cfg.Bin}
	r.programs.GoBGPD, r.programs.GoBGP = findGoBGP(r.cfg.GoBGPD, r.cfg.Bin)
	r.programs.Router = lab.GoBGP{Daemon: r.programs.GoBGPD, Command: r.programs.GoBGP}
	chosen := map[string]string{"gobgpd": r.programs.GoBGPD, "gobgp": r.programs.GoBGP}
	var missing []string
	for _, n := range needed {
		if why[n.program] == "" {
			continue
		}
		program := cmp.Or(chosen[n.program], n.program)
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, fmt.Sprintf("%s, for %s (package %s of Debian, %s of nixpkgs)", program, why[n.program], n.debian, n.nixpkgs))
		}
	}
	if why["vtysh"] != "" {
		if _, err := lab.FRRDaemons(); err != nil {
			missing = append(missing, "daemons of FRR, for "+why["vtysh"]+": "+err.Error())
		}
		if _, err := user.Lookup("frr"); err != nil {
			missing = append(missing, "user frr, for FRR (Debian's package makes it; on NixOS users.users.frr, with the groups frr and frrvty)")
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%w: it has no\n- %s", ErrUnavailable, strings.Join(missing, "\n- "))
	}
	if why["gobgpd"] != "" {
		out, err := exec.CommandContext(ctx, r.programs.GoBGPD, "--version").Output()
		if err != nil {
			return fmt.Errorf("%w: %s --version: %w", ErrUnavailable, r.programs.GoBGPD, err)
		}
		r.speaker = strings.TrimSpace(string(out))
	}
	for _, kind := range []string{"bird", "frr"} {
		if speakers[kind] {
			r.speaker = strings.TrimPrefix(r.speaker+" and "+strings.ToUpper(kind), " and ")
		}
	}
	return nil
}

// findGoBGP finds gobgpd, the one that is given or else the one beside our programs or in
// PATH; and gobgp, the one beside that gobgpd or in PATH, since nixpkgs has it in a package
// of its own.
func findGoBGP(given, bin string) (gobgpd, gobgp string) {
	gobgpd = given
	if gobgpd == "" {
		gobgpd = filepath.Join(bin, "gobgpd")
		if _, err := os.Stat(gobgpd); err != nil {
			gobgpd = "gobgpd"
		}
	}
	if path, err := exec.LookPath(gobgpd); err == nil {
		gobgpd = path
	}
	gobgp = filepath.Join(filepath.Dir(gobgpd), "gobgp")
	if _, err := os.Stat(gobgp); err != nil {
		gobgp = "gobgp"
	}
	return gobgpd, gobgp
}
