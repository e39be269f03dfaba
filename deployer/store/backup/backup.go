// Package backup writes what a store has into a file and puts it back, into the same
// kind of store or another: it is also the way from one kind to the other.
//
// A backup is JSON, a value a line: a head, the nodes by ascending id, the join tokens by
// ascending name, the events and the audit log, each oldest first, and a foot that has
// their numbers and the SHA-256 of every byte before it. What is cut short or changed is
// found before anything is restored.
package backup

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/store"
)

// version is of the format. It changes when an older deployer would misread a file.
// Version 1 has no tokens, version 2 neither events nor audit log.
const version = 3

// maxBytes bounds what Read takes into memory.
const maxBytes = 1 << 30

type head struct {
	Version int       `json:"plasmacloud_deployer_backup"`
	MadeAt  time.Time `json:"made_at"`
}

// tokenLine tells a token from a node.
type tokenLine struct {
	Token *node.Token `json:"token"`
}

// logLine is an event, or an entry of the audit log.
type logLine struct {
	Event *store.Event `json:"event,omitempty"`
	Audit *store.Event `json:"audit,omitempty"`
}

type foot struct {
	Nodes  *int   `json:"nodes"`
	Tokens int    `json:"tokens,omitempty"`
	Events int    `json:"events,omitempty"`
	Audit  int    `json:"audit,omitempty"`
	SHA256 string `json:"sha256"`
}

// Content is what a backup has.
type Content struct {
	Nodes  []node.Node
	Tokens []node.Token
	Events []store.Event // without cursors: those are of the store that they came from
	Audit  []store.Event // the same
	Made   time.Time
	NoLogs bool // of an older version, which knew nothing of Events and Audit
}

// String is how much of what there is.
func (c Content) String() string {
	s := fmt.Sprintf("nodes: %d, join tokens: %d", len(c.Nodes), len(c.Tokens))
	if c.NoLogs {
		return s
	}
	return s + fmt.Sprintf(", events: %d, entries of the audit log: %d", len(c.Events), len(c.Audit))
}

// Write writes the nodes of s to w, as of one moment, and then its join tokens and logs.
// Records that cannot be read are left out; the backup is good all the same.
func Write(ctx context.Context, w io.Writer, s store.Store, now time.Time) (c Content, unreadable []*store.CorruptError, err error) {
	c.Made = now.UTC()
	c.Nodes, err = s.List(ctx)
	if unreadable, err = store.Corrupt(err); err != nil {
		return c, nil, fmt.Errorf("read the store: %w", err)
	}
	c.Tokens, err = s.Tokens(ctx)
	more, err := store.Corrupt(err)
	if err != nil {
		return c, nil, fmt.Errorf("read the join tokens: %w", err)
	}
	unreadable = append(unreadable, more...)
	if c.Events, err = readLog(ctx, s.Events); err != nil {
		return c, nil, fmt.Errorf("read the events: %w", err)
	}
	if c.Audit, err = readLog(ctx, s.Audit); err != nil {
		return c, nil, fmt.Errorf("read the audit log: %w", err)
	}
	return c, unreadable, c.write(w)
}

// log is Events or Audit of a store.
type log func(ctx context.Context, after string, limit int) (store.Page, error)

// pageSize is how many of a log are read, and restored, at once.
const pageSize = 100

// readLog is all of a log. One that is written and trimmed meanwhile may drop what was to
// be read next; then it begins anew.
func readLog(ctx context.Context, read log) (all []store.Event, err error) {
	after, more := "", true
	for tries := 0; more; {
		page, err := read(ctx, after, pageSize)
		if errors.Is(err, store.ErrCursorGone) && tries < 3 {
			tries++
			all, after = nil, ""
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, e := range page.Events {
			e.Cursor = ""
			all = append(all, e)
		}
		after, more = page.Next, page.More && len(all) < 2*store.KeptEvents // who writes faster than we read does not keep us
	}
	return all[max(0, len(all)-store.KeptEvents):], nil
}

func (c Content) write(w io.Writer) error {
	sum := sha256.New()
	buffered := bufio.NewWriter(io.MultiWriter(w, sum))
	out := json.NewEncoder(buffered)
	failed := out.Encode(head{Version: version, MadeAt: c.Made})
	line := func(v any) {
		if failed == nil {
			failed = out.Encode(v)
		}
	}
	for _, n := range c.Nodes {
		line(n)
	}
	for _, t := range c.Tokens {
		line(tokenLine{&t})
	}
	for _, e := range c.Events {
		line(logLine{Event: &e})
	}
	for _, e := range c.Audit {
		line(logLine{Audit: &e})
	}
	if err := cmp.Or(failed, buffered.Flush()); err != nil {
		return err
	}
	nodes := len(c.Nodes)
	return json.NewEncoder(w).Encode(foot{
		Nodes: &nodes, Tokens: len(c.Tokens), Events: len(c.Events), Audit: len(c.Audit), SHA256: hex.EncodeToString(sum.Sum(nil)),
	})
}

// Read returns what a backup has, all of it or an error.
func Read(r io.Reader) (c Content, err error) {
	bad := func(format string, args ...any) (Content, error) {
		return Content{}, fmt.Errorf(format, args...)
	}
	data, err := io.ReadAll(io.LimitReader(r, maxBytes+1))
	switch {
	case err != nil:
		return bad("read the backup: %w", err)
	case len(data) > maxBytes:
		return bad("larger than %d bytes", maxBytes)
	}
	first, _, _ := bytes.Cut(data, []byte("\n"))
	var h head
	switch err := strict(first, &h); {
	case err != nil && json.Unmarshal(first, &h) != nil, h.Version < 1:
		return bad("not a backup of plasmacloud-deployer")
	case h.Version > version:
		return bad("a backup of version %d, and this deployer reads %d; use the deployer that made it", h.Version, version)
	case err != nil:
		return bad("line 1: %w", err)
	}
	lines := bytes.Split(bytes.TrimSuffix(data, []byte("\n")), []byte("\n"))
	last := lines[len(lines)-1]
	var f foot
	if !bytes.HasSuffix(data, []byte("\n")) || strict(last, &f) != nil || f.Nodes == nil {
		return bad("the backup is cut short: it does not end with its sum")
	}
	sum := sha256.Sum256(data[:len(data)-len(last)-1])
	lines = lines[1 : len(lines)-1]
	numbers := []int{*f.Nodes, f.Tokens, f.Events, f.Audit}
	all := 0
	for _, n := range numbers {
		all += n
	}
	if f.SHA256 != hex.EncodeToString(sum[:]) || slices.Min(numbers) < 0 || slices.Max(numbers) > len(lines) || all != len(lines) {
		return bad("the backup was changed or damaged: its sum is not that of its content")
	}
	c.Made, c.NoLogs = h.MadeAt, h.Version < 3
	number := 1 // of the line
	part := func(n int) [][]byte {
		first := lines[:n]
		lines = lines[n:]
		return first
	}
	for i, line := range part(*f.Nodes) {
		number++
		n, err := readNode(line)
		if err == nil && i > 0 && c.Nodes[i-1].ID >= n.ID {
			err = fmt.Errorf("node %s is not behind node %s by its id", n.ID, c.Nodes[i-1].ID)
		}
		if err != nil {
			return bad("line %d: %w", number, err)
		}
		c.Nodes = append(c.Nodes, n)
	}
	for i, line := range part(f.Tokens) {
		number++
		t, err := readToken(line)
		if err == nil && i > 0 && c.Tokens[i-1].Name >= t.Name {
			err = fmt.Errorf("the token %s is not behind the token %s by its name", t.Name, c.Tokens[i-1].Name)
		}
		if err != nil {
			return bad("line %d: %w", number, err)
		}
		c.Tokens = append(c.Tokens, t)
	}
	for i, line := range part(f.Events + f.Audit) {
		number++
		var l logLine
		switch err := strict(line, &l); {
		case err != nil:
			return bad("line %d: not an event: %w", number, err)
		case i < f.Events && l.Event != nil && l.Audit == nil && l.Event.Event != "":
			c.Events = append(c.Events, *l.Event)
		case i >= f.Events && l.Audit != nil && l.Event == nil && l.Audit.Event != "":
			c.Audit = append(c.Audit, *l.Audit)
		default:
			return bad("line %d: not an event", number)
		}
	}
	return c, nil
}

// strict decodes one value and refuses keys that this deployer would lose.
func strict(line []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	return dec.Decode(v)
}

func readNode(line []byte) (node.Node, error) {
	var n node.Node
	if err := strict(line, &n); err != nil {
		return n, fmt.Errorf("not a node: %w", err)
	}
	if !node.ValidID(n.ID) {
		return n, fmt.Errorf("node %q: not a node's id", n.ID)
	}
	return store.Decode(n.ID, "of node "+n.ID, line)
}

func readToken(line []byte) (node.Token, error) {
	var t tokenLine
	switch err := strict(line, &t); {
	case err != nil:
		return node.Token{}, fmt.Errorf("not a token: %w", err)
	case t.Token == nil || !node.ValidTokenName(t.Token.Name) || t.Token.Hash == "":
		return node.Token{}, errors.New("not a token")
	}
	return *t.Token, nil
}

// writers is how many writes Restore has under way, so that they share transactions.
const writers = 128

// Restore puts what a backup has into s. A store that has other nodes, tokens or events,
// or has one of these otherwise, is left as it is. One that a Restore was interrupted in
// is completed.
//
// What is restored makes no events of its own, but where the backup has none.
func Restore(ctx context.Context, s store.Store, c Content) error {
	nodes := c.Nodes
	logs := []struct {
		name   string
		wanted []store.Event
		read   log
		append func(context.Context, ...store.Event) error
	}{
		{"events", c.Events, s.Events, s.Append},
		{"entries of the audit log", c.Audit, s.Audit, s.AppendAudit},
	}
	var stored error // what a change of Update returns once it has stored a node
	if c.NoLogs {
		logs = nil
	} else {
		stored = store.ErrNoEvents
	}
	there, err := s.List(ctx)
	if err != nil {
		return fmt.Errorf("read the store: %w", err)
	}
	wanted := make(map[string]node.Node, len(nodes))
	for _, n := range nodes {
		wanted[n.ID] = n
	}
	for _, n := range there {
		if w, ok := wanted[n.ID]; !ok || !reflect.DeepEqual(n, w) {
			return taken(n.ID, len(there))
		}
	}

	had := make([]int, len(logs))
	for i, l := range logs {
		there, err := readLog(ctx, l.read)
		if err != nil {
			return fmt.Errorf("read the %s: %w", l.name, err)
		}
		if had[i] = len(there); had[i] > len(l.wanted) || !slices.EqualFunc(there, l.wanted[:had[i]], sameEvent) {
			return fmt.Errorf("the store has %s that the backup has not; restore into one without", l.name)
		}
	}
	if err := restoreTokens(ctx, s, c.Tokens); err != nil {
		return err
	}

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	slots := make(chan struct{}, writers)
	for _, n := range nodes {
		slots <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		all.Go(func() {
			defer func() { <-slots }()
			err := s.Update(ctx, n.ID, func(old node.Node, found bool) (node.Node, error) {
				switch {
				case !found:
					return n, stored
				case reflect.DeepEqual(old, n):
					return n, store.ErrUnchanged
				default: // written meanwhile
					return old, taken(n.ID, 1)
				}
			})
			if err != nil {
				cancel(fmt.Errorf("node %s: %w", n.ID, err))
			}
		})
	}
	all.Wait()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	for i, l := range logs {
		for part := range slices.Chunk(l.wanted[had[i]:], pageSize) {
			if err := l.append(ctx, part...); err != nil {
				return fmt.Errorf("%s: %w", l.name, err)
			}
		}
	}
	return nil
}

func sameEvent(a, b store.Event) bool {
	at := a.At.Equal(b.At)
	a.At = b.At
	return at && a == b
}

func restoreTokens(ctx context.Context, s store.Store, tokens []node.Token) error {
	there, err := s.Tokens(ctx)
	if err != nil {
		return fmt.Errorf("read the join tokens: %w", err)
	}
	for _, t := range there {
		if !slices.Contains(tokens, t) {
			return fmt.Errorf("the store has join tokens that the backup has not, or has otherwise: %s, among %d; restore into one without", t.Name, len(there))
		}
	}
	for _, t := range tokens {
		if slices.Contains(there, t) {
			continue
		}
		if err := s.PutToken(ctx, t); err != nil {
			return fmt.Errorf("token %s: %w", t.Name, err)
		}
	}
	return nil
}

func taken(id string, number int) error {
	return fmt.Errorf("the store has nodes that the backup has not, or has otherwise: %s, among %d; restore into one without nodes", id, number)
}
