package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"

	"github.com/spf13/pflag"

	process "github.com/centra/plasmacloud/cmd/internal/daemon"
	"github.com/centra/plasmacloud/cmd/internal/help"
	"github.com/centra/plasmacloud/deployer/phonehome"
)

const identifyUsage = `Usage: plasmacloud-phone-home identify --nodes FILE --out DIR [flags]

Finds out which node of the cluster this machine is, by the MAC addresses of its
network cards or its serial number, and writes that node's files into DIR:

  cluster-config.json   for the other uses of this program
  install.env           what its installation needs, KEY=VALUE a line; there is
                        none where the node runs from the ISO

FILE is the table that the ISO carries. Where no node fits, or more than one, it
shows what this machine has and what to declare, and goes on looking, since
network cards may appear late.

Example:
  plasmacloud-phone-home identify --nodes /etc/plasmacloud/nodes.json \
    --out /run/plasmacloud --hostname

Flags:
%s
Exit status:
  0   this machine is a node; its name is printed
  1   it is none, or several, after --wait; or the files could not be written
  64  the command line is wrong
  78  the table is wrong, or cannot be read
`

// identify is the command of that name.
func identify(args []string, stdout, stderr io.Writer) error {
	cfg := phonehome.IdentifyConfig{Report: func(reason string) { fmt.Fprintln(stderr, reason) }}
	var hostname bool
	flags := pflag.NewFlagSet(name+" identify", pflag.ContinueOnError)
	flags.SortFlags = false
	flags.SetOutput(io.Discard)
	flags.StringVar(&cfg.TablePath, "nodes", "", "the table of nodes, a `FILE`")
	flags.StringVar(&cfg.OutDir, "out", "", "the `DIR` to write to; made where it is missing")
	flags.BoolVar(&hostname, "hostname", false, "give this machine the node's id as its name")
	flags.DurationVar(&cfg.Wait, "wait", 0, "give up after this `TIME`; 0 goes on without end")
	flags.StringVar(&cfg.Root, "root", "/", "`DIR` in which sys lies, for a look at another machine's copy")
	flags.Usage = func() { fmt.Fprintf(stdout, identifyUsage, help.Flags(flags)) }
	switch err := flags.Parse(args); {
	case errors.Is(err, pflag.ErrHelp):
		return nil
	case err != nil:
		return process.UsageError(fmt.Errorf("%w; see identify --help", err))
	case flags.NArg() > 0:
		return process.UsageError(fmt.Errorf("unexpected argument %q; see identify --help", flags.Arg(0)))
	case cfg.TablePath == "":
		return process.UsageError(errors.New("identify needs --nodes FILE; see identify --help"))
	case cfg.OutDir == "":
		return process.UsageError(errors.New("identify needs --out DIR; see identify --help"))
	case cfg.Wait < 0:
		return process.UsageError(fmt.Errorf("--wait %s: want 0 or more", cfg.Wait))
	}
	if hostname {
		cfg.SetHostname = func(name string) error { return syscall.Sethostname([]byte(name)) }
	}
	ctx, stop := process.SignalContext(context.Background())
	defer stop()
	found, err := phonehome.Identify(ctx, cfg)
	var none *phonehome.NoNodeError
	if errors.As(err, &none) {
		return fmt.Errorf("no node found within %s", cfg.Wait) // the reason was reported
	}
	if err != nil {
		return status(err)
	}
	_, err = fmt.Fprintf(stdout, "This machine is %s (%s).\n", found.NodeID, found.By)
	return err
}
