package bgp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/centra/plasmacloud/bgp/health"
)

// check reads one entry of a VIP's checks.
func (r *reader) check(path string, item any, vip netip.Addr) health.Check {
	o := r.object(path, item)
	c := health.Check{Kind: health.Kind(o.text("type"))}
	var host, field string
	switch c.Kind {
	case health.HTTP:
		field = "url"
		c.URL = o.text(field)
		if c.URL != "" {
			u, err := parseCheckURL(c.URL)
			if err != nil {
				r.add(o.at(field), "%v", err)
			} else {
				host = u.Hostname()
			}
		}
	case health.TCP:
		field = "address"
		c.Address = o.text(field)
		if c.Address != "" {
			if err := checkDialAddress(c.Address, false); err != nil {
				r.add(o.at(field), "%v", err)
			} else {
				host, _, _ = net.SplitHostPort(c.Address)
			}
		}
	default:
		if o.has("type") && c.Kind != "" {
			r.add(o.at("type"), "%s is not a type of check; want \"http\" or \"tcp\"", quote(string(c.Kind)))
		}
		o.ignoreRest()
	}
	if host != "" && vip.IsValid() {
		switch addr, err := netip.ParseAddr(host); {
		case err != nil:
			c.NotAddr = vip // seen when the name is dialled
		case addr.WithZone("").Unmap() == vip:
			r.add(o.at(field), "dials the VIP itself, which is held only while it is announced; dial the service at 127.0.0.1 or at the node's own address")
		}
	}
	c.Interval = o.duration("interval", 2*time.Second)
	c.Timeout = o.duration("timeout", time.Second)
	if c.Timeout > c.Interval && c.Interval > 0 {
		r.add(o.at("timeout"), "%s is longer than the interval, %s; make it at most that", c.Timeout, c.Interval)
	}
	c.Rise = o.count("rise", 2)
	c.Fall = o.count("fall", 3)
	o.end()
	return c
}

func parseCheckURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	const want = "want one such as \"http://127.0.0.1:8080/healthz\""
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s is not a URL; %s", quote(s), want)
	case u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		return nil, fmt.Errorf("%s is not an http or https URL; %s", quote(s), want)
	case u.User != nil:
		return nil, errors.New("has a user name or password in its URL, and this file is no place for secrets; remove it")
	}
	if p := u.Port(); p != "" {
		if err := checkPort(p); err != nil {
			return nil, fmt.Errorf("%s: %w", quote(s), err)
		}
	}
	return u, nil
}

// checkDialAddress wants host:port, or with unix also unix:///path.
func checkDialAddress(s string, unix bool) error {
	if path, ok := strings.CutPrefix(s, "unix://"); ok && unix {
		if !filepath.IsAbs(path) {
			return fmt.Errorf("%s has no absolute path; want one such as \"unix:///run/gobgpd.sock\"", quote(s))
		}
		return nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" || strings.ContainsAny(host, "/ \t\n") {
		return fmt.Errorf("%s is not an address and a port; want one such as \"127.0.0.1:80\" or \"[::1]:80\"", quote(s))
	}
	if err := checkPort(port); err != nil {
		return fmt.Errorf("%s: %w", quote(s), err)
	}
	return nil
}

func checkPort(s string) error {
	if n, err := strconv.ParseUint(s, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("port %s is not a number from 1 to 65535", quote(s))
	}
	return nil
}

// parseAddr reads an address without prefix length, zone or IPv4-in-IPv6.
func parseAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	switch {
	case err != nil && strings.Contains(s, "/"):
		return a, fmt.Errorf("%s has a prefix length; write the address alone, it is announced as a host prefix", quote(s))
	case err != nil:
		return a, fmt.Errorf("%s is not an IP address; want one such as \"203.0.113.10\" or \"2001:db8::10\"", quote(s))
	case a.Zone() != "":
		return a, fmt.Errorf("%s has a zone; write it without %%%s", quote(s), cut(a.Zone(), 60))
	case a.Is4In6():
		return a, fmt.Errorf("%s is an IPv4 address written as IPv6; write %s", quote(s), a.Unmap())
	}
	return a, nil
}
