package page

import (
	"slices"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
)

// Verbs are what the page can order: what an operator can take back.
var Verbs = []node.Event{node.EventApprove, node.EventHold, node.EventRelease, node.EventRetry}

// verbsFor are those that make sense now.
func verbsFor(v deployer.View) []node.Event {
	sense := map[node.Event]bool{
		node.EventApprove: v.Waiting,
		node.EventHold:    v.Held == nil && v.State != node.Decommissioned,
		node.EventRelease: v.Held != nil,
		node.EventRetry:   v.State == node.Failed,
	}
	return slices.DeleteFunc(slices.Clone(Verbs), func(verb node.Event) bool { return !sense[verb] })
}

var meanings = map[node.Event]string{
	node.EventApprove: "The machine below may be this node.",
	node.EventHold:    "The node is not installed until it is released. An installation under way goes on, and so does a node that runs.",
	node.EventRelease: "The node may be installed again.",
	node.EventRetry:   "The node has another attempt, with a new deadline.",
}

// OrderPage asks whether the verb is meant, and why.
func OrderPage(f Frame, v deployer.View, verb node.Event) []byte {
	f.Cursor = "" // what is asked stays as it is
	return render("order", view{f, title(verb) + " " + v.ID, "nodes", struct {
		deployer.View
		Verb, Title, Meaning string
		Machine              string // that is approved, and no other
		MaxReason            int
	}{v, string(verb), title(verb), meanings[verb], v.MachineName(), api.MaxReason}})
}

func title(verb node.Event) string {
	return string(verb[0]-'a'+'A') + string(verb[1:])
}
