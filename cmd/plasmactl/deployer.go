package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/centra/plasmacloud/cmd/internal/daemon"
	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/secretfile"
)

// The environment variables behind --deployer-url, --ca-file and --token-file.
const (
	deployerURLVariable = "PLASMACLOUD_DEPLOYER_URL"
	caFileVariable      = "PLASMACLOUD_CA_FILE"
	tokenFileVariable   = "PLASMACLOUD_TOKEN_FILE"
)

// deployerFlags say which deployer to ask, and as whom.
type deployerFlags struct {
	url       string
	timeout   time.Duration
	files     api.TLSFiles
	tokenFile string
}

func (d *deployerFlags) register(cmd *cobra.Command) {
	defaultURL := "http://127.0.0.1:8080"
	if fromEnv := os.Getenv(deployerURLVariable); fromEnv != "" {
		defaultURL = fromEnv
	}
	flags := cmd.PersistentFlags()
	flags.StringVar(&d.url, "deployer-url", defaultURL, "base `URL` of the deployer; the default is $"+deployerURLVariable+" where it is set")
	flags.DurationVar(&d.timeout, "timeout", 10*time.Second, "give up on an answer after this `DURATION`")
	flags.StringVar(&d.files.CA, "ca-file", os.Getenv(caFileVariable), "PEM `FILE` of the CA of the deployer's certificate, in place of the system's CAs; the default is $"+caFileVariable)
	flags.StringVar(&d.files.Cert, "cert-file", "", "PEM `FILE` of your own certificate, for a deployer with tls.client_ca")
	flags.StringVar(&d.files.Key, "key-file", "", "PEM `FILE` of the key of --cert-file")
	flags.StringVar(&d.tokenFile, "token-file", os.Getenv(tokenFileVariable), "`FILE` with your token, for a deployer with operators' tokens; the default is $"+tokenFileVariable)
}

func (d *deployerFlags) client() (*api.Client, error) {
	if d.timeout <= 0 {
		return nil, daemon.UsageError(fmt.Errorf("--timeout %s: want more than 0, such as 10s", d.timeout))
	}
	transport, err := d.files.Transport()
	if err != nil {
		return nil, daemon.ConfigError(err)
	}
	c, err := api.NewClient(d.url, d.timeout, transport)
	if err != nil {
		return nil, daemon.UsageError(fmt.Errorf("--deployer-url: %w", err))
	}
	if d.tokenFile == "" {
		return c, nil
	}
	token, err := secretfile.Token(d.tokenFile)
	if err != nil {
		return nil, daemon.ConfigError(fmt.Errorf("--token-file or $%s: %w", tokenFileVariable, err))
	}
	return c.WithToken(token), nil
}

// completeNodes completes the id of a node. Completion has no place for an error.
func (d *deployerFlags) completeNodes(cmd *cobra.Command) ([]string, cobra.ShellCompDirective) {
	c, err := d.client()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), 2*time.Second)
	defer cancel()
	nodes, _ := c.List(ctx)
	var ids []string
	for _, n := range nodes {
		ids = append(ids, n.ID)
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}

// unreached adds the mend to an error that no deployer answered.
func unreached(err error) error {
	var answer *api.Error
	var distrust *api.TrustError
	switch {
	case errors.As(err, &answer):
		return err
	case errors.As(err, &distrust):
		return fmt.Errorf("no TLS with the deployer: %w", err)
	}
	return fmt.Errorf("no answer from a deployer: %w; name the right one with --deployer-url or $%s", err, deployerURLVariable)
}
