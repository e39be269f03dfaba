package server

import (
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/secretfile"
	"github.com/centra/plasmacloud/deployer/tokens"
)

// credentials is what the headers of a report prove, of the token only where tokens
// count; nil for a deployer that wants no proof.
func (s *server) credentials(r *http.Request, tokensCount bool) (*node.Credentials, *api.Problem) {
	if !s.wantsTokens() {
		return nil, nil
	}
	var c node.Credentials
	if secret := r.Header.Get(node.SecretHeader); secret != "" {
		if err := secretfile.CheckToken(secret); err != nil {
			return nil, badRequest(node.SecretHeader, "want 22 to 256 characters of A-Z a-z 0-9 - . _ ~ + / =; "+
				"make the secret from 32 random bytes")
		}
		c.SecretHash = node.HashSecret(secret)
	}
	bearer, sent := bearer(r)
	if !sent || !tokensCount {
		return &c, nil
	}
	if s.cfg.JoinTokens != nil {
		if token, ok := s.cfg.JoinTokens.Find(bearer); ok {
			c.Token = node.JoinToken{Name: token.Name, Node: token.Node, Role: token.Role}
			if token.Expired(s.cfg.Now()) {
				c.Token, c.Refusal = node.JoinToken{}, node.JoinTokenExpired(token.Name, token.Expires)
			}
			return &c, nil
		}
	}
	if name, _, dotted := strings.Cut(bearer, "."); dotted && node.ValidTokenName(name) && len(bearer) <= maxBearer {
		c.Offer = node.Offer{Name: name, Hash: node.HashSecret(bearer)} // the store may have it
	} else {
		c.Refusal = node.JoinTokenWrong()
	}
	return &c, nil
}

// maxBearer is far longer than any token.
const maxBearer = 512

// wantsTokens says whether machines join with tokens alone.
func (s *server) wantsTokens() bool { return s.cfg.JoinTokens != nil || s.cfg.TokensRequired }

// bearer is the token in the header Authorization (RFC 6750 section 2.1).
func bearer(r *http.Request) (token string, sent bool) {
	header := r.Header.Get("Authorization")
	scheme, token, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		token = ""
	}
	return strings.TrimSpace(token), header != ""
}

// operator lets those in who have role, or everybody where the deployer has no
// operators' tokens.
func (s *server) operator(role tokens.Role, h handler) handler {
	return func(w http.ResponseWriter, r *http.Request) answer {
		if s.cfg.Operators == nil {
			return h(w, r)
		}
		if _, no := s.who(r, role); no != nil {
			return *no
		}
		return h(w, r)
	}
}

// who is the operator that asks, and where that is none with role, the answer to them. A
// deployer without operators' tokens takes orders from nobody: it cannot tell who gives them.
func (s *server) who(r *http.Request, role tokens.Role) (deployer.Operator, *answer) {
	no := func(status int, code, title, detail string) *answer {
		a := refused(api.Problem{Status: status, Code: code, Title: title, Detail: detail})
		return &a
	}
	if s.cfg.Operators == nil {
		return deployer.Operator{}, no(http.StatusForbidden, api.CodeOperatorsUnknown, "The deployer knows no operators",
			"it takes no orders over the API before tokens.operators_file in its configuration says who may give them")
	}
	var by deployer.Operator
	logged := func(status int, code, title, detail string) (deployer.Operator, *answer) {
		ok, unlogged := s.refusals.Take(s.cfg.Now())
		if unlogged > 0 {
			s.log.WarnContext(r.Context(), "more operators were refused than logged", "count", unlogged)
		}
		if ok {
			s.log.WarnContext(r.Context(), "operator refused", "remote", r.RemoteAddr, "code", code)
		}
		return by, no(status, code, title, detail)
	}
	given, sent := bearer(r)
	var token tokens.Token
	var found bool
	switch {
	case !sent:
		if token, found = s.certified(r); !found {
			return by, no(http.StatusUnauthorized, api.CodeOperatorTokenRequired, "An operator's token is needed",
				"send one of the deployer's operators' tokens as Authorization: Bearer TOKEN; plasmactl has --token-file, or --cert-file for an operator's certificate")
		}
		// A browser shows the certificate to us for any page that asks it to.
		if s.ui.cross.Check(r) != nil {
			return logged(http.StatusForbidden, api.CodeCrossOrigin, "From another site",
				"this order was sent by another site's page, of which the operator whose certificate came with it may know nothing")
		}
	case s.operators.exhausted(r, s.cfg.Now()):
		a := tooManyAttempts()
		return by, &a
	default:
		token, found = s.cfg.Operators.Find(given)
	}
	switch {
	case !found:
		s.operators.failed(r, s.cfg.Now())
		return logged(http.StatusUnauthorized, api.CodeOperatorTokenWrong, "The token is not an operator's",
			"the deployer's file of operators' tokens (tokens.operators_file) does not have it")
	case token.Expired(s.cfg.Now()):
		return logged(http.StatusUnauthorized, api.CodeOperatorTokenExpired, "The token has expired",
			"the token "+token.Name+" was good until "+token.Expires.UTC().Format(time.RFC3339))
	}
	by = deployer.Operator{Name: token.Name, Remote: remote(r)}
	sender := askerOf(r)
	sender.known, sender.role = true, tokens.Role(token.Role)
	if !tokens.Role(token.Role).May(role) {
		return logged(http.StatusForbidden, api.CodeOperatorRole, "The token's role is too small",
			"the token "+token.Name+" has the role "+token.Role+", and this takes "+string(role))
	}
	return by, nil
}

// certified is the operator whose certificate the client of r has shown. That it is one of
// the client CA's the handshake has seen to.
func (s *server) certified(r *http.Request) (tokens.Token, bool) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return tokens.Token{}, false
	}
	return s.cfg.Operators.Certificate(r.TLS.VerifiedChains[0][0].Subject.CommonName)
}

// remote is the address that r came from, without its port.
func remote(r *http.Request) string {
	if from, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		return from.Addr().Unmap().String()
	}
	return ""
}

func tooManyAttempts() answer {
	a := refused(api.Problem{
		Status: http.StatusTooManyRequests, Code: api.CodeTooManyAttempts, Title: "Too many wrong tokens or secrets",
		Detail: "this address sent too many that were wrong, so its tokens are not looked at now; try again in ten seconds",
	})
	a.retryAfter = "10"
	return a
}

// guessed says whether a refusal may have been the answer to a guess.
func guessed(code string) bool {
	return code == node.CodeJoinTokenWrong || code == node.CodeNodeSecretWrong
}

// How many wrong tokens and secrets an address may send: guessBurst at once, and one
// more each guessRefill. A node that is set up wrongly asks less often than that.
const (
	guessBurst  = 30
	guessRefill = time.Second
)

func newGuesses() *allowance { return newAllowance(guessBurst, guessRefill) }
