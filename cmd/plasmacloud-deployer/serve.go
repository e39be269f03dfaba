package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	process "github.com/centra/plasmacloud/cmd/internal/daemon"
	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/metrics"
	"github.com/centra/plasmacloud/deployer/server"
	"github.com/centra/plasmacloud/deployer/store"
)

// shutdownTime is how long requests under way may take after a signal.
const shutdownTime = 10 * time.Second

func serveCommand() *cobra.Command {
	var (
		logs                            process.LogOptions
		path, listen, storePath, source string
		allow                           bool
	)
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the node registry",
		Long: `Serve the node registry over HTTP, or HTTPS with tls in the configuration. Everything is
checked before the store is touched: configuration, manifest, certificate, tokens,
listening address.

SIGTERM and SIGINT end it after the requests under way; SIGHUP reads manifest,
certificate and tokens again, and what is wrong of them stays as it was.`,
		Example: `  plasmacloud-deployer serve
  plasmacloud-deployer serve --config ./deployer.json --listen 127.0.0.1:0`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := logs.Logger(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			flags := cmd.Flags()
			cfg, err := readConfig(path, flags.Changed("config"))
			if err != nil {
				return err
			}
			for flag, value := range map[string]struct {
				into *string
				from string
			}{
				"listen":   {&cfg.Listen, listen},
				"manifest": {&cfg.Manifest, source},
			} {
				if flags.Changed(flag) {
					*value.into = value.from
				}
			}
			if flags.Changed("store") {
				cfg.Store = boltStore(storePath)
			}
			if flags.Changed("allow-unknown-nodes") {
				cfg.AllowUnknownNodes = allow
			}
			if err := cfg.check(); err != nil {
				return fmt.Errorf("configuration: %w", err)
			}
			return serve(cmd.Context(), cfg, log)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&path, "config", defaultConfigPath, "configuration `FILE`; the default one may be missing")
	flags.StringVar(&listen, "listen", "", "`ADDRESS` to listen on, over the file's listen; port 0 takes a free one")
	flags.StringVar(&storePath, "store", "", "bbolt `FILE` to keep the nodes in, over the file's store")
	flags.StringVar(&source, "manifest", "", "manifest `FILE`, over the file's manifest")
	flags.BoolVar(&allow, "allow-unknown-nodes", false, "let nodes join that the manifest does not have")
	logs.Register(flags)
	return cmd
}

// serve runs the deployer until ctx ends. The store comes last, so that a mistake
// in anything else leaves no file behind.
func serve(ctx context.Context, cfg config, log *slog.Logger) (err error) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)

	manifest, err := readManifest(cfg.Manifest)
	if err != nil {
		return err
	}
	files, err := openFiles(cfg, log)
	if err != nil {
		return err
	}
	if _, err := cfg.Store.load(log); err != nil {
		return err
	}
	listener, err := listen(ctx, cfg.Listen)
	if err != nil {
		return err
	}
	defer listener.Close() // for the returns before Serve owns it
	nodeStore, err := cfg.Store.open(ctx, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, nodeStore.Close()) }()

	watched := metrics.New(process.Version())
	registry, err := deployer.New(ctx, deployer.Config{
		Store: watched.Store(nodeStore), Logger: log,
		Lead:                cfg.Store.lead(context.WithoutCancel(ctx), nodeStore, listener.Addr().String()),
		FlushInterval:       cfg.flushInterval(),
		ProvisioningTimeout: cfg.provisioningTimeout,
		HeartbeatInterval:   cfg.heartbeatInterval,
		HeartbeatRate:       cfg.HeartbeatRate,
		OfflineAfter:        cfg.offlineAfter,
		AllowUnknownNodes:   cfg.AllowUnknownNodes,
		MaxUnknownNodes:     cfg.MaxUnknownNodes,
		Approval:            cfg.Approval,
	})
	if err != nil {
		return fmt.Errorf("store %s: %w", &cfg.Store, err)
	}
	if err := declare(ctx, nodeStore, registry, log, manifest); err != nil {
		return err
	}

	upkeep := make(chan error, 1)
	upkeepCtx, stopUpkeep := context.WithCancel(context.WithoutCancel(ctx))
	go func() { upkeep <- registry.Run(upkeepCtx) }()
	defer func() { // after the last request, before the store closes
		stopUpkeep()
		err = errors.Join(err, <-upkeep)
	}()

	stopStreams := make(chan struct{})
	httpServer := server.NewHTTP(server.New(server.Config{
		Registry: registry, Logger: log, Version: process.Version(), Metrics: watched, Stop: stopStreams,
		JoinTokens: files.join, TokensRequired: cfg.Tokens.Required, Operators: files.operators,
		NoPage: !cfg.Page,
	}))
	httpServer.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelDebug)
	limited, scheme := server.LimitListener(listener), "http"
	if files.certificate != nil {
		limited, scheme = tls.NewListener(limited, files.certificate.Config()), "https"
	} else if files.join != nil || cfg.Tokens.Required || files.operators != nil {
		log.Warn("tokens without TLS can be read by anybody on the way; set tls, or keep the network to yourself")
	}
	served := make(chan error, 1)
	go func() { served <- httpServer.Serve(limited) }()
	log.Info("listening", "addr", listener.Addr().String(), "scheme", scheme)
	notify(log, daemon.SdNotifyReady)
	go watchdog(upkeepCtx, registry, log)

	for {
		select {
		case err := <-served:
			return fmt.Errorf("serve: %w", err)
		case <-hup:
			reload(ctx, cfg, nodeStore, registry, files, log)
		case <-ctx.Done():
			log.Info("stopping")
			notify(log, daemon.SdNotifyStopping)
			close(stopStreams) // their peers come again, to whoever is there then
			return shutdown(ctx, httpServer, log)
		}
	}
}

func listen(ctx context.Context, addr string) (net.Listener, error) {
	var lc net.ListenConfig
	var unresolved *net.DNSError
	listener, err := lc.Listen(ctx, "tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("listen: another process has %s; stop it, or set listen to another address", addr)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("listen: no permission for %s; take a port from 1024 on, or give the service CAP_NET_BIND_SERVICE", addr)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("listen: %s is no address of this machine; set listen to one that it has, or to :PORT for all", addr)
	case errors.As(err, &unresolved):
		return nil, fmt.Errorf("listen: the host of %s is not found; set listen to an address of this machine, or to :PORT for all", addr)
	case err != nil:
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	return listener, nil
}

// declare makes the manifest's nodes and VIPs the registry's. Without a manifest the
// registry stays as it is.
func declare(ctx context.Context, nodeStore store.Store, registry *deployer.Registry, log *slog.Logger, manifest declared) error {
	if manifest.nodes == nil {
		log.Info("no manifest; nodes join as they come")
		return nil
	}
	if err := claim(ctx, nodeStore, manifest.cluster); err != nil {
		return err
	}
	done, err := registry.Declare(ctx, manifest.nodes)
	if err != nil {
		return fmt.Errorf("declare the manifest's nodes: %w", err)
	}
	if err := registry.DeclareVIPs(manifest.vips); err != nil {
		return fmt.Errorf("declare the manifest's VIPs: %w", err)
	}
	log.Info("manifest declared", "cluster", manifest.cluster, "nodes", done.Nodes, "added", done.Added,
		"changed", done.Changed, "undeclared", done.Undeclared, "vips", len(manifest.vips))
	return nil
}

// reload takes over what can be changed under way. Each part that is wrong stays as
// it was, and keeps no other part from being taken over.
func reload(ctx context.Context, cfg config, nodeStore store.Store, registry *deployer.Registry, files *files, log *slog.Logger) {
	notify(log, daemon.SdNotifyReloading, daemon.SdNotifyMonotonicUsec())
	defer notify(log, daemon.SdNotifyReady)
	manifest, err := readManifest(cfg.Manifest)
	if err == nil {
		err = declare(ctx, nodeStore, registry, log, manifest)
	}
	if err != nil {
		log.Error("manifest not loaded, the old one stays", "error", err)
	}
	files.reload(log)
}

func shutdown(ctx context.Context, s *http.Server, log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
	defer cancel()
	err := s.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		log.Warn("requests cut off at shutdown", "after", shutdownTime)
		return s.Close()
	}
	return err
}

// notify tells systemd; outside of it there is nobody to tell, and no error.
func notify(log *slog.Logger, states ...string) {
	state := states[0]
	for _, s := range states[1:] {
		state += "\n" + s
	}
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("systemd not notified", "error", err)
	}
}
