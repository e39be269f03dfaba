package metrics

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"github.com/centra/plasmacloud/bgp"
)

// What GET /status answers.
type (
	// Status is what the last pass found.
	Status struct {
		NodeID    string     `json:"node_id"`
		Version   string     `json:"version"`
		At        *time.Time `json:"at"` // end of the last pass; null before the first
		Summary   string     `json:"summary"`
		Stopping  bool       `json:"stopping"`
		Error     string     `json:"error"`
		Refused   string     `json:"reload_refused"` // why; an older configuration is in force; "": it is the last one
		TableRead bool       `json:"table_read"`
		HostRead  bool       `json:"host_read"`
		Speaker   Speaker    `json:"speaker"`
		VIPs      []VIP      `json:"vips"`
	}
	// Speaker is the BGP daemon.
	Speaker struct {
		State      string `json:"state"`
		Generation int    `json:"generation"`
		Peers      []Peer `json:"peers"`
	}
	// Peer is a neighbour of the daemon.
	Peer struct {
		Address string     `json:"address"`
		ASN     uint32     `json:"asn"`
		State   string     `json:"state"`
		Since   *time.Time `json:"since"` // null while not established
	}
	// VIP is one that is configured, or that we announce or hold.
	VIP struct {
		Address   string `json:"address"`
		Want      string `json:"want"`
		Cause     string `json:"cause"`
		Why       string `json:"why"`
		Announced bool   `json:"announced"`
		Lowered   bool   `json:"lowered"`
		Held      bool   `json:"held"`
		HeldAs    string `json:"held_as"`
		Foreign   bool   `json:"foreign"`
		Conflict  string `json:"conflict"` // what is foreign, in words
		Draining  bool   `json:"draining"`

		Damping *Damping `json:"damping"` // null without a penalty

		Trouble   string   `json:"trouble"`    // why it is not announced although it is wanted, or not as it should be; "": nothing is wrong
		OfferedTo []string `json:"offered_to"` // the peers that gobgpd offers it to; null while that is not known, or it is not announced
	}
	// Damping is what a VIP has of penalties, as of the last pass.
	Damping struct {
		Penalty    int        `json:"penalty"`
		Suppressed bool       `json:"suppressed"`
		ReuseAt    *time.Time `json:"reuse_at"` // null unless suppressed
	}
)

func stamp(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// Status is what the last pass of the announcer found.
func (s *Server) Status() Status {
	now := s.announcer.Status()
	answer := Status{
		NodeID: s.nodeID, Version: s.version, At: stamp(now.At), Summary: now.String(), Stopping: now.Stopping, Error: now.Error, Refused: now.Refused,
		TableRead: now.TableRead, HostRead: now.HostRead,
		Speaker: Speaker{State: now.Speaker, Generation: s.announcer.SpeakerGeneration(), Peers: []Peer{}},
		VIPs:    []VIP{},
	}
	for _, p := range now.Peers {
		answer.Speaker.Peers = append(answer.Speaker.Peers, Peer{p.Address.String(), p.ASN, p.State, stamp(p.Since)})
	}
	peers := map[*netip.Addr][]string{} // by the first of a list, of which most VIPs have the same one
	for _, v := range now.VIPs {
		answer.VIPs = append(answer.VIPs, VIP{v.Address.String(), v.Want.String(), string(v.Cause), v.Why, v.Announced, v.Lowered, v.Held, v.As.String(), v.Foreign != "", v.Foreign, v.Draining, damping(v.Damping),
			v.Trouble, offered(v, peers)})
	}
	return answer
}

func offered(v bgp.VIPStatus, known map[*netip.Addr][]string) []string {
	switch {
	case !v.Looked:
		return nil
	case len(v.Offered) == 0:
		return []string{}
	}
	texts, is := known[&v.Offered[0]]
	if !is {
		for _, p := range v.Offered {
			texts = append(texts, p.String())
		}
		known[&v.Offered[0]] = texts
	}
	return texts
}

func damping(d bgp.DampingState) *Damping {
	if d.Penalty == 0 {
		return nil
	}
	return &Damping{int(d.Penalty), d.Suppressed, stamp(d.ReuseAt)}
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(s.Status()) // what fails here is the connection
}

// patience is how much longer than the interval between two passes one may take to
// come, before the announcer counts as stuck.
const patience = 30 * time.Second

func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if text, ok := alive(s.announcer.Status(), time.Now()); !ok {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, text)
		return
	}
	fmt.Fprintln(w, "ok")
}

// alive reports whether passes end. Whether they find all as it should be is another
// matter: see the metrics.
func alive(s bgp.Status, now time.Time) (text string, ok bool) {
	switch age := now.Sub(s.At); {
	case s.At.IsZero():
		return "no pass has ended yet", false
	case age > s.Interval+patience:
		return fmt.Sprintf("the last pass ended %s ago", age.Round(time.Second)), false
	default:
		return "", true
	}
}
