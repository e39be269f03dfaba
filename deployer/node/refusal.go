package node

import (
	"fmt"
	"time"
)

// Codes of refusals. They are stable: clients and runbooks may match them.
const (
	CodeUnknownNode        = "unknown_node"
	CodeTooManyUnknown     = "too_many_unknown_nodes"
	CodeMachineConflict    = "machine_conflict"
	CodeRoleMismatch       = "role_mismatch"
	CodeAlreadyProvisioned = "already_provisioned"
	CodeDecommissioned     = "decommissioned"
	CodeIdentityMismatch   = "identity_mismatch"
	CodeJoinTokenRequired  = "join_token_required"
	CodeJoinTokenWrong     = "join_token_wrong"
	CodeJoinTokenExpired   = "join_token_expired"
	CodeJoinTokenScope     = "join_token_scope"
	CodeJoinTokenUsedUp    = "join_token_used_up"
	CodeNodeSecretRequired = "node_secret_required"
	CodeNodeSecretWrong    = "node_secret_wrong"
	CodeHeld               = "held"
	CodeApprovalRequired   = "approval_required"

	// Of what an operator orders.
	CodeWrongState   = "wrong_state"
	CodeWrongMachine = "wrong_machine"
)

// RefusedError is why a node may not do what it asked for.
type RefusedError struct {
	Code   string // one of the codes above
	Title  string // what was refused, in a few words
	Detail string // the reason, and what mends it
}

func (e *RefusedError) Error() string { return e.Title + ": " + e.Detail }

func refuse(code string, n Node, r Report) *RefusedError {
	e := &RefusedError{Code: code}
	switch code {
	case CodeIdentityMismatch:
		e.Title = "Not the machine that is declared"
		e.Detail = fmt.Sprintf("node %s: %s. Give this machine the configuration of its own node, or mend the declaration.", n.ID, n.Identity.Mismatch(n.ID, r.MACs, r.Serial))
	case CodeRoleMismatch:
		e.Title = "The role differs from the declared one"
		e.Detail = fmt.Sprintf("node %s says %q and the manifest declares %q. "+
			"Boot it from an image built from the same configuration as the deployer's manifest.", n.ID, r.Role, n.Role)
	case CodeAlreadyProvisioned:
		e.Title = "The node is already provisioned"
		e.Detail = fmt.Sprintf("machine %s was installed or active as %s and may hold data, so it is not installed again by itself. "+
			"Boot it from its disk, or let it be installed once more with plasmactl node reinstall %s.", n.machineName(), n.ID, n.ID)
	case CodeHeld:
		e.Title = "The node is held"
		e.Detail = fmt.Sprintf("node %s is held by %s since %s%s; it is not installed until it is released: plasmactl node release %s.",
			n.ID, n.Held.who(), n.Held.At.Format(time.RFC3339), n.Held.why(), n.ID)
	case CodeApprovalRequired:
		e.Title = "The machine waits for an operator's approval"
		e.Detail = fmt.Sprintf("machine %s waits to be node %s: plasmactl node approve %s. It may ask again until then.", n.machineName(), n.ID, n.ID)
	case CodeDecommissioned:
		e.Title = "The node is decommissioned"
		e.Detail = fmt.Sprintf("node %s was taken out at %s. Let it join again with plasmactl node reset %s.", n.ID, n.Since.Format("2006-01-02T15:04:05Z07:00"), n.ID)
	case CodeJoinTokenRequired:
		e.Title = "A join token is needed"
		e.Detail = fmt.Sprintf("node %s has not joined, or has to join anew. Make one with plasmactl token create, and give it to the node: plasmacloud-phone-home --join-token-file FILE.", n.ID)
	case CodeJoinTokenScope:
		e.Title = "The join token is for other nodes"
		token := r.Credentials.Token
		e.Detail = fmt.Sprintf("the token %s is for %s, and not for node %s. Give the node one that is, such as one of plasmactl token create.",
			token.Name, token.others(n), n.ID)
	case CodeNodeSecretRequired:
		e.Title = "The node's secret is needed"
		e.Detail = fmt.Sprintf("a report of node %s brings the node's own secret in the header %s. plasmacloud-phone-home keeps it in its --secret-file. %s",
			n.ID, SecretHeader, anew(n, r))
	case CodeNodeSecretWrong:
		e.Title = "The node's secret is another one"
		e.Detail = fmt.Sprintf("node %s joined with another secret than this report brings: this machine lost its own, or is not the one that joined. %s",
			n.ID, anew(n, r))
	}
	return e
}

// machineConflict refuses a machine that is not the one that n is bound to. stays says
// that n is bound to that one until an operator resets it.
func machineConflict(n Node, r Report, stays bool) *RefusedError {
	mend := "Give this machine a node id of its own, or switch that one off: once it is offline this machine may take its place."
	if stays {
		mend = fmt.Sprintf("That one was installed, active or approved as %s, so no other takes its place by itself. "+
			"Give this machine a node id of its own; or, where it replaces that one, switch that one off, then plasmactl node reset %s.", n.ID, n.ID)
	}
	if r.MachineID != "" && r.MachineID == n.MachineID {
		mend += " Both have the same machine id, which some vendors write into many mainboards alike."
	}
	return &RefusedError{
		Code: CodeMachineConflict, Title: "Another machine is this node",
		Detail: fmt.Sprintf("node %s is machine %s, last heard %s; this report comes from a machine %s. %s",
			n.ID, n.machineName(), n.LastSeen.Format(time.RFC3339), r.machineName(), mend),
	}
}

// NotApproved refuses an installation of n, whose machine waits for an approval.
func NotApproved(n Node) *RefusedError { return refuse(CodeApprovalRequired, n, Report{}) }

// wrongState refuses what an operator orders of n as it is.
func wrongState(n Node, event Event) *RefusedError {
	e := &RefusedError{Code: CodeWrongState, Title: "Not as the node is now"}
	var mend string
	switch event {
	case EventApprove:
		mend = "no machine waits for an approval there; one does once it has phoned home, where the deployer's approval wants it"
	case EventRetry:
		mend = "only a Failed node is retried"
	case EventReinstall:
		mend = "nothing is installed on its machine that this would lift: it may be installed as it is"
	}
	if event == EventReinstall && n.Held != nil {
		mend = "it is held; release it first: plasmactl node release " + n.ID
	}
	if n.State == Decommissioned {
		mend = "it is decommissioned; let it join again with plasmactl node reset " + n.ID
	}
	e.Detail = fmt.Sprintf("%s: node %s is %s: %s.", event, n.ID, n.State, mend)
	return e
}

// wrongMachine refuses to approve another machine than the operator meant.
func wrongMachine(n Node, meant string) *RefusedError {
	return &RefusedError{
		Code: CodeWrongMachine, Title: "Another machine waits now",
		Detail: fmt.Sprintf("approve: node %s is now machine %s, and %s was to be approved. Look at the node again, then approve what is there.", n.ID, n.machineName(), meant),
	}
}

// SecretHeader carries a node's secret in each of its reports.
const SecretHeader = "Plasmacloud-Node-Secret"

// anew says how the machine of r may join as n with another secret.
func anew(n Node, r Report) string {
	switch {
	case n.Provisioned && !n.sameMachine(r):
		return fmt.Sprintf("This is another machine than the one that was installed as %s. Where it replaces that one, switch that one off, then plasmactl node reset %s.", n.ID, n.ID)
	case n.Provisioned:
		return fmt.Sprintf("If it is the right one, and its secret is lost: let it join anew with plasmactl node reset-secret %s, or with a join token that is for it alone (node=%s).", n.ID, n.ID)
	default:
		return "If it is the right one, and its secret is lost: let it join anew with a join token."
	}
}

// UnknownNode refuses a node that the manifest does not have.
func UnknownNode(id string) *RefusedError {
	return &RefusedError{
		Code: CodeUnknownNode, Title: "The node is not declared",
		Detail: fmt.Sprintf("node %s is not in the manifest. Declare it in plasmacloud.cluster.nodes and load the new manifest, "+
			"or set allow_unknown_nodes in the deployer's configuration.", id),
	}
}

// TooManyUnknown refuses one undeclared node more than limit.
func TooManyUnknown(id string, limit int) *RefusedError {
	return &RefusedError{
		Code: CodeTooManyUnknown, Title: "Too many undeclared nodes",
		Detail: fmt.Sprintf("node %s is not in the manifest and %d undeclared nodes have joined already. "+
			"Declare it in plasmacloud.cluster.nodes, or raise max_unknown_nodes in the deployer's configuration.", id, limit),
	}
}
