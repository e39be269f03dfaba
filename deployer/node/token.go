package node

import (
	"crypto/subtle"
	"fmt"
	"regexp"
	"time"
)

// Token is a join token that the store keeps. Of the token itself it has the hash alone.
type Token struct {
	Name      string    `json:"name"`
	Hash      string    `json:"hash"`           // HashSecret of the whole token
	Node      string    `json:"node,omitempty"` // the one node that may join with it; "" is any
	Role      string    `json:"role,omitempty"` // the role of the nodes that may; "" is any
	Expires   time.Time `json:"expires,omitzero"`
	Uses      int       `json:"uses,omitempty"` // how many machines may join with it; 0 is any number
	Used      int       `json:"used,omitempty"` // how many have
	Created   time.Time `json:"created"`
	CreatedBy string    `json:"created_by,omitempty"` // the operator's name
	LastUsed  time.Time `json:"last_used,omitzero"`
	LastNode  string    `json:"last_node,omitempty"` // that joined then
}

var tokenName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$`)

// ValidTokenName says whether name may be that of a token in the store: letters, digits,
// dash and underscore, at most 63. There is no dot in it, which ends it within the token.
func ValidTokenName(name string) bool { return tokenName.MatchString(name) }

// MaxTokenUses bounds Token.Uses.
const MaxTokenUses = 1_000_000

// Check says what is wrong with t, which is new.
func (t Token) Check(now time.Time) error {
	switch {
	case !ValidTokenName(t.Name):
		return &FieldError{"name", "want letters, digits, dash and underscore, at most 63"}
	case t.Node != "" && !ValidID(t.Node):
		return &FieldError{"node", "want the node's name in plasmacloud.cluster.nodes"}
	case t.Role != "" && t.Role != "control-plane" && t.Role != "worker":
		return &FieldError{"role", "want control-plane or worker"}
	case !t.Expires.IsZero() && !t.Expires.After(now):
		return &FieldError{"expires", "want a time to come"}
	case t.Uses < 0 || t.Uses > MaxTokenUses:
		return &FieldError{"uses", fmt.Sprintf("want 1 to %d, or leave it out for any number", MaxTokenUses)}
	}
	return nil
}

// FieldError is a rule that one field breaks.
type FieldError struct{ Field, Reason string }

func (e *FieldError) Error() string { return e.Field + ": " + e.Reason }

// Offer is a token that came with a report, and that the store may have.
type Offer struct{ Name, Hash string }

// Needs says whether a token that was offered has to be judged before n can be told from
// a stranger.
func (n Node) Needs(c *Credentials) bool {
	return c != nil && c.Offer.Name != "" && !n.Knows(c.SecretHash)
}

// Judge is c with what the token that was offered allows; t is the store's of that name,
// the zero one where there is none.
func (c Credentials) Judge(t Token, now time.Time) *Credentials {
	switch {
	case subtle.ConstantTimeCompare([]byte(t.Hash), []byte(c.Offer.Hash)) != 1:
		c.Refusal = JoinTokenWrong()
	case !t.Expires.IsZero() && !now.Before(t.Expires):
		c.Refusal = JoinTokenExpired(t.Name, t.Expires)
	default:
		c.Token = JoinToken{Name: t.Name, Node: t.Node, Role: t.Role, hash: t.Hash}
		if t.Uses > 0 && t.Used >= t.Uses {
			c.Token.usedUp = joinTokenUsedUp(t)
		}
	}
	return &c
}

// After is t after a report that made after of before.
func (t Token) After(before, after Node) Token {
	if t.Hash == "" || after.TokenHash != t.Hash || before.TokenHash == t.Hash && before.Joined.Equal(after.Joined) {
		return t
	}
	t.Used++
	t.LastUsed, t.LastNode = after.Joined, after.ID
	return t
}

func joinTokenUsedUp(t Token) *RefusedError {
	return &RefusedError{
		Code: CodeJoinTokenUsedUp, Title: "The join token is used up",
		Detail: fmt.Sprintf("the token %s has let %d machines join, and lets no more. Give the node another one: plasmactl token create.", t.Name, t.Used),
	}
}
