package vip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Watch implements Holder. It calls changed once at the start, when it listens. It
// ends when another namespace has taken the place of the one that it watches.
func (n *Netlink) Watch(ctx context.Context, changed func()) error {
	sock, moved, err := n.subscribe()
	if err != nil {
		return fmt.Errorf("watch %s: %w", n.where(), err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var closing sync.Once
	closeSock := func() { closing.Do(sock.Close) }
	defer closeSock()
	defer context.AfterFunc(ctx, closeSock)()
	go func() {
		select {
		case <-moved:
			cancel()
		case <-ctx.Done():
		}
	}()
	changed()
	for {
		messages, _, err := sock.Receive()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, unix.ENOBUFS): // more than we could read; something changed
			changed()
		case err != nil:
			return fmt.Errorf("watch %s: %w", n.where(), err)
		}
		for _, m := range messages {
			if n.concerns(m) {
				changed()
				break
			}
		}
	}
}

// concerns reports whether a message may be about what is held. A router's thousands
// of routes are not. When an interface goes down, the kernel takes routes away and
// tells only of the interface.
func (n *Netlink) concerns(m syscall.NetlinkMessage) bool {
	switch m.Header.Type {
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		return len(m.Data) >= unix.SizeofRtMsg && isLocal(nl.DeserializeRtMsg(m.Data), Protocol)
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		if len(m.Data) < unix.SizeofIfInfomsg {
			return false
		}
		ours := false
		err := attributes(m.Data[unix.SizeofIfInfomsg:], func(kind uint16, value []byte) {
			ours = ours || kind == unix.IFLA_IFNAME && string(bytes.TrimRight(value, "\x00")) == n.cfg.Interface
		})
		return ours || err != nil
	case unix.RTM_NEWADDR:
		// A renewal changes nothing; of 10,000 addresses it would start pass after pass.
		a, err := parseAddress(m.Data)
		return err != nil || !a.ours() || !a.renewed
	default:
		return true
	}
}

func (n *Netlink) subscribe() (sock *nl.NetlinkSocket, moved <-chan struct{}, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.enter(); err != nil {
		return nil, nil, err
	}
	sock, err = nl.SubscribeAt(n.ns, netns.None(), unix.NETLINK_ROUTE,
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_LINK)
	return sock, n.moved, err
}
