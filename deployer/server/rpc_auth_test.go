package server_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/centra/plasmacloud/deployer/api"
	deployerv1 "github.com/centra/plasmacloud/deployer/api/v1"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/server"
	"github.com/centra/plasmacloud/deployer/tokens"
)

func tokenFile(t *testing.T, kind tokens.Kind, lines string) *tokens.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(path, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := tokens.Open(kind, path)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestRPCAuthority: the same tokens, secrets and roles as in REST.
func TestRPCAuthority(t *testing.T) {
	t.Parallel()
	long := func(name string) string { return name + strings.Repeat("-", 30) }
	r := begin(t, file(t), server.Config{
		JoinTokens: tokenFile(t, tokens.Join, "all "+long("all")),
		Operators:  tokenFile(t, tokens.Operators, "v "+long("v")+" role=viewer\na "+long("a")+" role=admin"),
	}, 2, false)
	with := func(header ...string) context.Context {
		ctx, call := connect.NewClientContext(t.Context())
		for i := 0; i < len(header); i += 2 {
			call.RequestHeader().Set(header[i], header[i+1])
		}
		return ctx
	}
	bearer := func(token string) context.Context { return with("Authorization", "Bearer "+token) }
	client := r.client(true, connect.WithGRPC())
	report := &deployerv1.PhoneHomeRequest{NodeId: "node01", Phase: "ready"}
	for _, step := range []struct {
		ctx  context.Context
		code string // "" is accepted
		want connect.Code
	}{
		{with(), node.CodeJoinTokenRequired, connect.CodeUnauthenticated},
		{bearer("nonsense"), node.CodeJoinTokenWrong, connect.CodeUnauthenticated},
		{with("Authorization", "Bearer "+long("all"), node.SecretHeader, "short"), api.CodeBadRequest, connect.CodeInvalidArgument},
		{with("Authorization", "Bearer "+long("all"), node.SecretHeader, long("own")), "", 0},
		{with(node.SecretHeader, long("own")), "", 0},
		{with(node.SecretHeader, long("other")), node.CodeNodeSecretWrong, connect.CodeUnauthenticated},
	} {
		switch _, err := client.PhoneHome(step.ctx, report); {
		case step.code != "":
			wantProblem(t, step.code, err, step.want, step.code)
		case err != nil:
			t.Error(err)
		}
	}
	look := func(ctx context.Context) []error {
		_, list := client.ListNodes(ctx, &deployerv1.ListNodesRequest{})
		_, get := client.GetNode(ctx, &deployerv1.GetNodeRequest{NodeId: "node01"})
		_, events := client.ListEvents(ctx, &deployerv1.ListEventsRequest{})
		_, vips := client.ListVips(ctx, &deployerv1.ListVipsRequest{})
		_, fleet := client.GetStatus(ctx, &deployerv1.GetStatusRequest{})
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		all := []error{list, get, events, vips, fleet}
		watchNodes, err := client.WatchNodes(ctx, &deployerv1.WatchNodesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if !watchNodes.Receive() {
			all = append(all, watchNodes.Err())
		}
		watchEvents, err := client.WatchEvents(ctx, &deployerv1.WatchEventsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if !watchEvents.Receive() {
			all = append(all, watchEvents.Err())
		}
		return all
	}
	for token, code := range map[string]string{"": api.CodeOperatorTokenRequired, long("all"): api.CodeOperatorTokenWrong} {
		ctx := with()
		if token != "" {
			ctx = bearer(token)
		}
		for _, err := range look(ctx) {
			wantProblem(t, "look with "+token, err, connect.CodeUnauthenticated, code)
		}
	}
	if err := errors.Join(look(bearer(long("v")))...); err != nil {
		t.Error(err)
	}
	order := &deployerv1.OperateNodeRequest{NodeId: "node01", Reason: "new disks"}
	_, err := client.ResetNode(bearer(long("v")), order)
	wantProblem(t, "a viewer's order", err, connect.CodePermissionDenied, api.CodeOperatorRole)
	for _, step := range []struct {
		name    string
		verb    func(context.Context, *deployerv1.OperateNodeRequest) (*deployerv1.Node, error)
		refused string
	}{
		{"hold", client.HoldNode, ""}, {"release", client.ReleaseNode, ""}, {"retry", client.RetryNode, node.CodeWrongState},
		{"reinstall", client.ReinstallNode, ""}, {"reset-secret", client.ResetNodeSecret, ""},
		{"decommission", client.DecommissionNode, ""}, {"reset", client.ResetNode, ""},
	} {
		n, err := step.verb(bearer(long("a")), order)
		switch {
		case step.refused != "":
			wantProblem(t, step.name, err, connect.CodeFailedPrecondition, step.refused)
		case err != nil:
			t.Errorf("%s: %v", step.name, err)
		default:
			if last := n.History[len(n.History)-1]; last.Event != step.name || last.By != "a" || last.Remote != "127.0.0.1" {
				t.Errorf("%s: %v", step.name, last)
			}
		}
	}
	_, err = client.ApproveNode(bearer(long("a")), &deployerv1.ApproveNodeRequest{NodeId: "node99"})
	wantProblem(t, "approve", err, connect.CodeNotFound, api.CodeNotFound)

	made, err := client.CreateToken(bearer(long("a")), &deployerv1.CreateTokenRequest{Name: "row2", Uses: 3, Expires: timestamppb.New(time.Now().Add(time.Hour))})
	if err != nil || made.CreatedBy != "a" || !strings.HasPrefix(made.Token, "row2.") {
		t.Fatalf("%v, %v", made, err)
	}
	_, err = client.CreateToken(bearer(long("a")), &deployerv1.CreateTokenRequest{Name: "row2"})
	wantProblem(t, "a name twice", err, connect.CodeFailedPrecondition, api.CodeTokenExists)
	_, err = client.CreateToken(bearer(long("a")), &deployerv1.CreateTokenRequest{Name: "row 3"})
	wantProblem(t, "a bad name", err, connect.CodeInvalidArgument, api.CodeBadRequest)
	_, err = client.CreateToken(bearer(long("v")), &deployerv1.CreateTokenRequest{Name: "row4"})
	wantProblem(t, "a viewer's token", err, connect.CodePermissionDenied, api.CodeOperatorRole)
	if list, err := client.ListTokens(bearer(long("a")), &deployerv1.ListTokensRequest{}); err != nil || len(list.Tokens) != 1 || list.Tokens[0].Uses != 3 || strings.Contains(list.String(), made.Token) {
		t.Errorf("%v, %v", list, err)
	}
	if _, err := client.RevokeToken(bearer(long("a")), &deployerv1.RevokeTokenRequest{Name: "row2"}); err != nil {
		t.Error(err)
	}
	_, err = client.RevokeToken(bearer(long("a")), &deployerv1.RevokeTokenRequest{Name: "row2"})
	wantProblem(t, "no such token", err, connect.CodeNotFound, api.CodeNotFound)
	_, err = client.ListAudit(bearer(long("v")), &deployerv1.ListAuditRequest{})
	wantProblem(t, "a viewer's audit", err, connect.CodePermissionDenied, api.CodeOperatorRole)
	audit, err := client.ListAudit(bearer(long("a")), &deployerv1.ListAuditRequest{})
	if err != nil || len(audit.Entries) < 5 {
		t.Fatalf("%v, %v", audit, err)
	}
	if first, last := audit.Entries[0], audit.Entries[len(audit.Entries)-1]; first.Action != "reset" || first.Result != "refused" || first.By != "v" ||
		last.Action != "token-revoke" || last.Token != "row2" || last.Remote != "127.0.0.1" {
		t.Errorf("%v\n%v", first, last)
	}

	for range 40 {
		_, _ = client.ListNodes(bearer("guess"), &deployerv1.ListNodesRequest{})
	}
	_, err = client.ListNodes(bearer(long("v")), &deployerv1.ListNodesRequest{})
	wantProblem(t, "after many guesses", err, connect.CodeResourceExhausted, api.CodeTooManyAttempts)
	var failed *connect.Error
	if errors.As(err, &failed) {
		if failed.Meta().Get("Retry-After") != "10" || !hasRetry(failed) {
			t.Errorf("%v does not say when to come again", failed.Meta())
		}
	}
}
