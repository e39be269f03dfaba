package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/centra/plasmacloud/deployer/store"
	"github.com/centra/plasmacloud/deployer/store/backup"
)

func backupCommand() *cobra.Command {
	return storeCommand(&cobra.Command{
		Use:   "backup FILE",
		Short: "Write all that the store has into a file",
		Long: `Write the nodes, join tokens, events and audit log of the store into a file, or to stdout
for "-". A file that is there is replaced once the new one is complete. With a bbolt store
the deployer has to be stopped; with etcd it may go on, and the nodes are as of one moment.

The file has hashes of the nodes' secrets and of the tokens too: its mode is 0600. Records that cannot be read are left out and named, and the exit status is then 1.`,
		Example: "  plasmacloud-deployer backup nodes.backup",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, at *storeConfig, args []string, out io.Writer) (err error) {
		nodeStore, err := at.openExisting(ctx)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, nodeStore.Close()) }()
		var done backup.Content
		var left []*store.CorruptError
		write := func(w io.Writer) (err error) {
			done, left, err = backup.Write(ctx, w, nodeStore, time.Now())
			return err
		}
		if args[0] == "-" {
			err = write(out)
		} else if err = replaceFile(args[0], write); err == nil {
			_, err = fmt.Fprintf(out, "%s: %s\n", args[0], done)
		}
		if err != nil {
			return fmt.Errorf("backup of %s: %w", at, err)
		}
		return unreadable(at, left, "which are not in the backup")
	})
}

func restoreCommand() *cobra.Command {
	return storeCommand(&cobra.Command{
		Use:   "restore FILE",
		Short: "Put what a backup has into a store that has none of it",
		Long: `Put what a backup ("-" for stdin) has into the store, which may be of another kind than
the one that it was made from. The backup is checked as a whole first. A store that has
nodes, tokens or events of its own is left as it is; a restore that was interrupted can be repeated. Run it
while the deployers of that store are stopped.`,
		Example: `  plasmacloud-deployer backup --config bbolt.json nodes.backup
  plasmacloud-deployer restore --config etcd.json nodes.backup`,
		Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, at *storeConfig, args []string, out io.Writer) (err error) {
		content, err := readBackup(args[0])
		if err != nil {
			return err
		}
		nodeStore, err := at.open(ctx, slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, nodeStore.Close()) }()
		if err := backup.Restore(ctx, nodeStore, content); err != nil {
			return fmt.Errorf("restore into %s: %w", at, err)
		}
		_, err = fmt.Fprintf(out, "%s: %s\n", at, inWords(content))
		return err
	})
}

func verifyCommand() *cobra.Command {
	return storeCommand(&cobra.Command{
		Use:   "verify [FILE]",
		Short: "Check a backup, or the store itself",
		Long: `Check that a backup ("-" for stdin) is complete and every node in it can be read, or,
without FILE, that every record of the store can be read. With a bbolt store the deployer
has to be stopped for that, and the structure of the file is checked too. Exit status 1
means that something is wrong.`,
		Example: `  plasmacloud-deployer verify nodes.backup
  plasmacloud-deployer verify --config /etc/plasmacloud/deployer.json`,
		Args: cobra.MaximumNArgs(1),
	}, func(ctx context.Context, at *storeConfig, args []string, out io.Writer) (err error) {
		if len(args) == 1 {
			content, err := readBackup(args[0])
			if err == nil {
				_, err = fmt.Fprintf(out, "%s: ok, %s\n", args[0], inWords(content))
			}
			return err
		}
		nodeStore, err := at.openExisting(ctx)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, nodeStore.Close()) }()
		if s, ok := nodeStore.(interface{ Check() error }); ok {
			if err := s.Check(); err != nil {
				return fmt.Errorf("store %s: %w", at, err)
			}
		}
		nodes, err := nodeStore.List(ctx)
		tokens, tokensErr := nodeStore.Tokens(ctx)
		records, err := store.Corrupt(errors.Join(err, tokensErr))
		if err == nil && len(records) == 0 {
			_, err = fmt.Fprintf(out, "%s: ok, nodes: %d, join tokens: %d\n", at, len(nodes), len(tokens))
		}
		if err != nil {
			return fmt.Errorf("store %s: %w", at, err)
		}
		return unreadable(at, records, "which plasmactl node reset rewrites, and token revoke takes away")
	})
}

func readBackup(path string) (backup.Content, error) {
	file := os.Stdin
	if path != "-" {
		var err error
		if file, err = os.Open(path); err != nil {
			return backup.Content{}, fmt.Errorf("backup: %w", err)
		}
		defer file.Close()
	}
	content, err := backup.Read(file)
	if err != nil {
		return content, fmt.Errorf("backup %s: %w", path, err)
	}
	return content, nil
}

func inWords(c backup.Content) string {
	return fmt.Sprintf("%s, as of %s", c, c.Made.Format(time.RFC3339))
}

// unreadable is the error for records, nil for none. so says what that means.
func unreadable(at *storeConfig, records []*store.CorruptError, so string) error {
	var each []error
	for _, record := range records {
		each = append(each, record)
	}
	if len(each) == 0 {
		return nil
	}
	return fmt.Errorf("store %s: unreadable records: %d, %s: %s", at, len(each), so, oneLine(errors.Join(each...).Error()))
}

// replaceFile gives path the content that write makes, as a whole or not at all. Only
// its owner may read it.
func replaceFile(path string, write func(io.Writer) error) (err error) {
	switch info, err := os.Stat(path); {
	case err == nil && info.IsDir():
		return fmt.Errorf("%s is a directory; name a file in it", path)
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Stat(filepath.Dir(path)); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("the directory %s does not exist", filepath.Dir(path))
		}
	}
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(file.Name()) }() // nothing, once it has its name
	if err := errors.Join(write(file), file.Sync(), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}
