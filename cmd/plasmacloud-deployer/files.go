package main

import (
	"fmt"
	"log/slog"

	process "github.com/centra/plasmacloud/cmd/internal/daemon"
	"github.com/centra/plasmacloud/deployer/server"
	"github.com/centra/plasmacloud/deployer/tokens"
)

// files are those that the configuration names for who may speak with the deployer;
// each may be nil. The manifest is not among them: it goes into the store.
type files struct {
	certificate     *server.Certificate
	join, operators *tokens.File
}

func openFiles(cfg config, log *slog.Logger) (*files, error) {
	var f files
	var err error
	if cfg.TLS != nil {
		if f.certificate, err = server.LoadCertificate(*cfg.TLS, log); err != nil {
			return nil, process.ConfigError(fmt.Errorf("tls: %w", err))
		}
	}
	if path := cfg.Tokens.JoinFile; path != "" {
		if f.join, err = tokens.Open(tokens.Join, path); err != nil {
			return nil, process.ConfigError(fmt.Errorf("tokens.join_file: %w", err))
		}
		log.Info("join tokens loaded", "tokens", f.join.Len())
	}
	if path := cfg.Tokens.OperatorsFile; path != "" {
		if f.operators, err = tokens.Open(tokens.Operators, path); err != nil {
			return nil, process.ConfigError(fmt.Errorf("tokens.operators_file: %w", err))
		}
		log.Info("operators' tokens loaded", "tokens", f.operators.Len())
	}
	return &f, nil
}

func (f *files) reload(log *slog.Logger) {
	if f.certificate != nil {
		if err := f.certificate.Reload(); err != nil {
			log.Error("certificate not loaded, the old one stays", "error", err)
		}
	}
	reloadTokens(log, "join tokens", f.join)
	reloadTokens(log, "operators' tokens", f.operators)
}

func reloadTokens(log *slog.Logger, what string, file *tokens.File) {
	if file == nil {
		return
	}
	if err := file.Reload(); err != nil {
		log.Error(what+" not loaded, the old ones stay", "error", err)
	} else {
		log.Info(what+" loaded", "tokens", file.Len())
	}
}
