package server

import (
	"cmp"
	"net/http"
	"slices"
	"time"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
)

// Lists are asked for in pages, or whole. A whole one is cut from the fleet while it is
// written, a part after the other, so that it takes as little memory as a page, however
// large the fleet is and however slow the reader.
const (
	listPagesAtOnce  = 32
	pageBytes        = 1 << 20 // of a page; gRPC's clients take 4 MiB
	pageAge          = 10 * time.Second
	wholeListsAtOnce = 128
	partBytes        = 32 << 10 // of a whole list
)

// listed makes a page of what cut takes from the fleet. A first page has all that was
// answered before it was asked for.
func (s *server) listed(r *http.Request, after string, limit int, cut func(*fleetState) any) answer {
	if limit < 0 || limit > api.MaxList {
		return refused(*badLimit())
	}
	leave, ok := s.await(r, s.listPages)
	if !ok {
		return busy()
	}
	asked := time.Now()
	state, err := s.fleetState(r.Context(), func(f *fleetState) bool {
		return !f.began.Before(asked) || after != "" && asked.Sub(f.began) < pageAge
	})
	if err != nil {
		leave()
		return s.fail(r, err)
	}
	return answer{status: http.StatusOK, body: cut(state), written: leave}
}

// whole answers with all lines of the list name. cut gives those behind the line after,
// and what stands behind the last one.
func (s *server) whole(r *http.Request, name string, cut func(f *fleetState, after string) (lines any, next, end string)) answer {
	leave, ok := s.await(r, s.lists)
	if !ok {
		return busy()
	}
	enough := since(time.Now())
	if _, err := s.fleetState(r.Context(), enough); err != nil {
		leave()
		return s.fail(r, err)
	}
	write := func(w http.ResponseWriter) {
		text := []byte(`{"` + name + `":[`)
		for after := ""; r.Method != http.MethodHead; {
			state, err := s.fleetState(r.Context(), enough)
			if err != nil {
				if r.Context().Err() == nil {
					s.logFailure(r, err)
				}
				panic(http.ErrAbortHandler) // half a list must not look like a list
			}
			lines, next, end := cut(state, after)
			part := encode(lines) // [...] and a line's end
			part = part[1 : len(part)-2]
			if after != "" && len(part) > 0 {
				text = append(text, ',')
			}
			text = append(text, part...)
			if next == "" {
				_, _ = w.Write(append(text, end...))
				return
			}
			if _, err := w.Write(text); err != nil {
				return
			}
			text, after = text[:0], next
		}
	}
	return answer{status: http.StatusOK, written: leave, header: http.Header{"Content-Type": {"application/json"}}, stream: write}
}

// nodes has no turnstile: lists have bounds of their own, and those who wait for one keep
// no report out.
func (s *server) nodes(_ http.ResponseWriter, r *http.Request) answer {
	after, limit, problem := listQuery(r)
	switch {
	case problem != nil:
		return refused(*problem)
	case after != "" || limit != 0:
		return s.nodesAfter(r, after, limit)
	}
	return s.whole(r, "nodes", func(f *fleetState, after string) (lines any, next, end string) {
		part := f.nodesAfter(after, api.MaxList, partBytes)
		return part.Nodes, part.Next, "]}\n"
	})
}

// nodesAfter answers with up to limit nodes behind the node after, or less where they are
// large.
func (s *server) nodesAfter(r *http.Request, after string, limit int) answer {
	if after != "" && !node.ValidID(after) {
		return refused(*badQuery("after", "want next of the page before, which is the id of a node"))
	}
	return s.listed(r, after, limit, func(f *fleetState) any {
		return f.nodesAfter(after, cmp.Or(limit, api.MaxList), pageBytes)
	})
}

func (f *fleetState) nodesAfter(after string, limit, bytes int) api.NodeList {
	at, found := slices.BinarySearchFunc(f.views, after, func(v deployer.View, id string) int { return cmp.Compare(v.ID, id) })
	if found {
		at++
	}
	list := api.NodeList{Nodes: []api.Node{}}
	for i := range f.views[at:] {
		if len(list.Nodes) == limit || bytes < 0 {
			list.Next = list.Nodes[len(list.Nodes)-1].ID
			break
		}
		n := wireNode(f.views[at+i])
		list.Nodes = append(list.Nodes, n)
		bytes -= roughSize(n)
	}
	return list
}

// roughSize is about how many bytes a node without history takes.
func roughSize(n api.Node) int {
	size := 512 + len(n.Hold) + len(n.Hostname)
	if n.LastError != nil {
		size += len(n.LastError.Message)
	}
	for key, value := range n.Facts {
		size += len(key) + len(value) + 8
	}
	for _, vip := range n.VIPs {
		size += len(vip) + 4
	}
	for _, v := range n.VIPStates {
		size += len(v.VIP) + len(v.State) + len(v.Reason) + 32
	}
	for _, s := range n.Services {
		size += len(s.Name) + len(s.State) + len(s.Reason) + 32
	}
	return size
}
