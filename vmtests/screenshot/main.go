// Command screenshot makes the picture of the deployer's web page that the README
// shows: of the real page, with a made-up fleet, in a real browser.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/server"
	"github.com/centra/plasmacloud/deployer/store/bolt"
)

func main() {
	if len(os.Args) < 2 || len(os.Args) > 3 {
		fmt.Fprintln(os.Stderr, "usage: screenshot FILE.png [PATH]")
		os.Exit(64)
	}
	path := "/"
	if len(os.Args) == 3 {
		path = os.Args[2]
	}
	if err := run(os.Args[1], path); err != nil {
		fmt.Fprintln(os.Stderr, "screenshot:", err)
		os.Exit(1)
	}
}

func run(file, path string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "screenshot")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	store, err := bolt.Open(bolt.Config{Path: filepath.Join(dir, "state.db")})
	if err != nil {
		return err
	}
	defer store.Close()
	clock := time.Date(2026, 3, 2, 8, 30, 0, 0, time.UTC)
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	registry, err := deployer.New(ctx, deployer.Config{
		Store: store, Logger: quiet, Now: func() time.Time { return clock }, ProvisioningTimeout: 20 * time.Minute,
	})
	if err != nil {
		return err
	}
	if err := fill(ctx, registry, &clock); err != nil {
		return err
	}
	web := httptest.NewServer(server.New(server.Config{Registry: registry, Logger: quiet, Version: "1.0", Now: func() time.Time { return clock }}))
	defer web.Close()
	return capture(ctx, web.URL+path, file)
}

const (
	expected = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
	older    = "sha256:2222222222222222222222222222222222222222222222222222222222222222"
)

func name(i int) string { return fmt.Sprintf("node%02d", i) }

// fill lets a morning go by in a fleet of 24 nodes.
func fill(ctx context.Context, r *deployer.Registry, clock *time.Time) error {
	var nodes []node.Declaration
	for i := 1; i <= 24; i++ {
		role := "worker"
		if i <= 3 {
			role = "control-plane"
		}
		nodes = append(nodes, node.Declaration{ID: name(i), Role: role, IP: netip.AddrFrom4([4]byte{10, 0, 0, byte(10 + i)}), ConfigHash: expected})
	}
	if _, err := r.Declare(ctx, nodes); err != nil {
		return err
	}
	front := []string{name(4), name(5), name(6), name(7)}
	var vips []deployer.VIPDeclaration
	for _, vip := range []string{"203.0.113.10/32", "203.0.113.11/32", "203.0.113.20/32", "203.0.113.30/32", "2001:db8:0:2::10/128", "2001:db8:0:2::20/128"} {
		vips = append(vips, deployer.VIPDeclaration{VIP: vip, Nodes: front})
	}
	if err := r.DeclareVIPs(vips); err != nil {
		return err
	}
	says := func(i int, phase node.Phase, change func(*node.Report)) error {
		report := node.Report{
			MachineID: fmt.Sprintf("4c4c4544-0044-4a10-8052-%012d", i), BootID: fmt.Sprintf("b%d", i), Phase: phase, Hash: expected,
			IP: netip.AddrFrom4([4]byte{10, 0, 0, byte(10 + i)}), Hostname: name(i),
		}
		for _, unit := range []string{"gobgpd.service", "plasmacloud-announcer.service"} {
			report.Services = append(report.Services, node.Service{Name: unit, State: "active"})
		}
		if change != nil {
			change(&report)
		}
		_, err := r.PhoneHome(ctx, name(i), report)
		return err
	}
	// What each of the nodes says when it is asked.
	speak := func(i, minute int) error {
		switch {
		case i == 22 && minute >= 2:
			return says(i, node.PhaseFailed, func(r *node.Report) { r.Error = "no disk larger than 20 GB" })
		case i == 23:
			return says(i, node.PhaseInstalling, nil)
		case i == 24, i == 19 && minute > 4:
			return nil // in its box; silent
		case i >= 4 && i <= 7:
			return says(i, node.PhaseReady, func(r *node.Report) {
				for j, vip := range vips {
					switch {
					case j == 3 && minute >= 8:
						r.VIPStates = append(r.VIPStates, node.VIPState{VIP: vip.VIP, State: node.VIPWithdrawn, Reason: "check tcp 10.0.3.1:443 is down: connection refused"})
					case i == 6 && j == 0:
						r.VIPStates = append(r.VIPStates, node.VIPState{VIP: vip.VIP, State: node.VIPDrained, Reason: "drained by uid 0: new kernel"})
					default:
						r.VIPs = append(r.VIPs, vip.VIP)
					}
				}
			})
		case i == 12 || i == 13:
			return says(i, node.PhaseReady, func(r *node.Report) { r.Hash = older })
		default:
			return says(i, node.PhaseReady, nil)
		}
	}
	for minute := range 11 {
		for second := 0; second < 60; second += 10 {
			for i := 1; i <= 24; i++ {
				if i > 2*(6*minute+second/10) {
					continue // not switched on yet
				}
				if err := speak(i, minute); err != nil {
					return err
				}
			}
			if err := r.Tick(ctx); err != nil {
				return err
			}
			*clock = clock.Add(10 * time.Second)
		}
	}
	*clock = clock.Add(-4 * time.Second)
	return nil
}

// capture writes the picture. As root a browser needs NoSandbox; it shows nothing but
// our own page.
func capture(ctx context.Context, url, file string) error {
	ctx, stop := chromedp.NewExecAllocator(ctx, append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox)...)
	defer stop()
	ctx, cancel := chromedp.NewContext(ctx)
	defer cancel()
	_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: os.Getenv("SCHEME")}},
	})
	if err != nil {
		return err
	}
	if err := chromedp.Do(ctx, chromedp.EmulateViewport(1180, 860), chromedp.Navigate(url), chromedp.WaitVisible(chromedp.CSS(".live.on"))); err != nil {
		return err
	}
	picture, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		return err
	}
	return os.WriteFile(file, picture, 0o644) //nolint:gosec // a picture for everybody
}
