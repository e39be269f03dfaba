package node

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"time"
)

// Credentials are what a report proves of its sender, on a deployer that wants
// proof. A node makes a secret of its own and sends it with each report; the first
// time a token of the operator vouches for it. Nothing is lost with an answer that
// is lost on the way, since the node knew its secret before the deployer did.
type Credentials struct {
	SecretHash string        // HashSecret of the node's secret; "" when none came
	Token      JoinToken     // zero: none came, or none that counts
	Refusal    *RefusedError // why the token that came does not count
	Offer      Offer         // zero, or the token that came and is still to be judged, see Judge
}

// JoinToken is what a token allows.
type JoinToken struct {
	Name string
	Node string // the one node that may join with it; "" is any
	Role string // the role of the nodes that may; "" is any

	hash   string        // of a token of the store
	usedUp *RefusedError // for a machine that has not joined with it yet
}

// others are the nodes that the token is for, where n is none of them.
func (t JoinToken) others(n Node) string {
	if t.Node != "" && t.Node != n.ID {
		return "node " + t.Node
	}
	return "nodes with the role " + t.Role
}

// HashSecret is what a record keeps of a secret: "sha256:" and hex. Secrets are
// random and long, so that a hash without salt gives none away.
func HashSecret(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Authenticate says whether by may speak as n; why not is a *RefusedError.
//
// The secret that n joined with always may. Else a token lets it join, anew with
// another secret as long as it was neither installed nor Active: an ISO that is
// booted again has forgotten its secret. Who was has it on its disk. Without it the
// general token does not do, which a machine that was broken into has too: it takes
// a token for this node alone, or a reset. What n said while it waits does not count.
func (r Rules) Authenticate(n Node, by Report) error {
	c := by.Credentials
	if c == nil || n.Knows(c.SecretHash) {
		return nil
	}
	n.Provisioned = r.settled(n)
	role := n.Role
	if !n.Declared {
		role = by.Role
	}
	switch token := c.Token; {
	case n.SecretHash != "" && n.Provisioned && token.Node != n.ID:
		if c.SecretHash == "" {
			return refuse(CodeNodeSecretRequired, n, by)
		}
		return refuse(CodeNodeSecretWrong, n, by)
	case c.Refusal != nil:
		return c.Refusal
	case token.Name == "" && n.SecretHash == "":
		return refuse(CodeJoinTokenRequired, n, by)
	case token.Name == "" && c.SecretHash != "":
		return refuse(CodeNodeSecretWrong, n, by)
	case token.Node != "" && token.Node != n.ID, token.Role != "" && token.Role != role:
		return refuse(CodeJoinTokenScope, n, by)
	case c.SecretHash == "":
		return refuse(CodeNodeSecretRequired, n, by)
	}
	return nil
}

// Knows says whether n joined with the secret of that hash.
func (n Node) Knows(secretHash string) bool {
	return n.SecretHash != "" && subtle.ConstantTimeCompare([]byte(n.SecretHash), []byte(secretHash)) == 1
}

// proves says whether r brings the secret that n joined with.
func (n Node) proves(r Report) bool {
	return r.Credentials != nil && n.Knows(r.Credentials.SecretHash)
}

// joined notes with which token a node joined whose report is accepted. A machine that
// joins anew with the token that it joined with before, since an ISO forgets its secret,
// does not use it twice; another machine in its place does.
func (c *change) joined(r Report, before Node) error {
	if r.Credentials == nil {
		return nil
	}
	n, token := &c.node, r.Credentials.Token
	if !before.Knows(r.Credentials.SecretHash) {
		if token.hash != "" && n.TokenHash != token.hash {
			if token.usedUp != nil {
				return token.usedUp
			}
			n.Joined = c.now
		}
		how := "joins with the token "
		if before.SecretHash != "" {
			how = "joins anew, its secret before is void, with the token "
		}
		c.note(Event(r.Phase), how+token.Name)
		n.TokenHash = token.hash
	}
	n.SecretHash = r.Credentials.SecretHash
	return nil
}

// JoinTokenWrong refuses a token that the deployer does not have.
func JoinTokenWrong() *RefusedError {
	return &RefusedError{
		Code: CodeJoinTokenWrong, Title: "The join token is not one of the deployer's",
		Detail: "neither plasmactl token list nor the deployer's file of join tokens (tokens.join_file) has it, or it was revoked. " +
			"Give the node the right one; after a change of the file the deployer reads it at SIGHUP.",
	}
}

// JoinTokenExpired refuses the token name, whose time was over at end.
func JoinTokenExpired(name string, end time.Time) *RefusedError {
	return &RefusedError{
		Code: CodeJoinTokenExpired, Title: "The join token has expired",
		Detail: fmt.Sprintf("the token %s was good until %s. Give the node another one, such as one of plasmactl token create; "+
			"one of the deployer's file of join tokens may get more time there.",
			name, end.UTC().Format(time.RFC3339)),
	}
}
