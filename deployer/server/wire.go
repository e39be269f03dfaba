package server

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/centra/plasmacloud/deployer/api"
	deployerv1 "github.com/centra/plasmacloud/deployer/api/v1"
	"github.com/centra/plasmacloud/deployer/node"
)

// strictJSON is JSON as REST has it: in snake_case, and a key that is not known is an
// error.
type strictJSON struct{ name string }

func (c strictJSON) Name() string { return c.name }

func (strictJSON) Marshal(message any) ([]byte, error) {
	m, ok := message.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("%T is no message of protobuf", message)
	}
	return protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
}

func (strictJSON) Unmarshal(data []byte, message any) error {
	m, ok := message.(proto.Message)
	if !ok {
		return fmt.Errorf("%T is no message of protobuf", message)
	}
	if len(data) == 0 {
		return fmt.Errorf("empty; want a JSON object")
	}
	return protojson.Unmarshal(data, m)
}

func each[From, To any](list []From, convert func(From) To) []To {
	if len(list) == 0 {
		return nil
	}
	made := make([]To, len(list))
	for i, one := range list {
		made[i] = convert(one)
	}
	return made
}

func reportOf(m *deployerv1.PhoneHomeRequest) api.PhoneHomeRequest {
	return api.PhoneHomeRequest{
		NodeID: m.NodeId, MachineID: m.MachineId, BootID: m.BootId, IP: m.Ip, Role: m.Role, Hostname: m.Hostname,
		ConfigHash: m.ConfigHash, Phase: node.Phase(m.Phase), Error: m.Error, Facts: m.Facts, VIPs: m.Vips, Acknowledges: m.Acknowledges, VIPsLeftOut: int(m.VipsLeftOut),
		VIPStates: each(m.VipStates, func(v *deployerv1.VipState) node.VIPState {
			return node.VIPState{VIP: v.GetVip(), State: v.GetState(), Reason: v.GetReason()}
		}),
		Services: each(m.Services, func(s *deployerv1.Service) node.Service {
			return node.Service{Name: s.GetName(), State: s.GetState(), Reason: s.GetReason()}
		}),
	}
}

func protoPhoneHome(r api.PhoneHomeResponse) *deployerv1.PhoneHomeResponse {
	return &deployerv1.PhoneHomeResponse{
		NodeId: r.NodeID, State: string(r.State), Message: r.Message, HeartbeatIntervalSeconds: int32(r.HeartbeatIntervalSeconds),
		ExpectedConfigHash: r.ExpectedConfigHash, Hold: r.Hold,
	}
}

func protoNodes(list api.NodeList) *deployerv1.ListNodesResponse {
	return &deployerv1.ListNodesResponse{Nodes: each(list.Nodes, protoNode), Next: list.Next}
}

func protoNode(n api.Node) *deployerv1.Node {
	m := &deployerv1.Node{
		NodeId: n.ID, Role: n.Role, Ip: n.IP, Declared: n.Declared,
		State: string(n.State), Since: protoTime(&n.Since), Deadline: protoTime(n.Deadline), Attempt: int32(n.Attempt),
		Reachability: string(n.Reachability), LastSeen: protoTime(n.LastSeen),
		Config: string(n.Config), ConfigHash: n.ConfigHash, ReportedHash: n.ReportedHash, ReportedIp: n.ReportedIP,
		Phase: string(n.Phase), Hold: n.Hold, Held: protoMark(n.Held), Waiting: n.Waiting, Machine: n.Machine,
		Approved: protoMark(n.Approved), Reinstall: protoMark(n.Reinstall), Acknowledged: protoTime(n.Acknowledged),
		Labels: n.Labels, MachineId: n.MachineID, Hostname: n.Hostname, Vips: n.VIPs, Facts: n.Facts,
		VipsLeftOut: int32(n.VIPsLeftOut),
		VipStates: each(n.VIPStates, func(v node.VIPState) *deployerv1.VipState {
			return &deployerv1.VipState{Vip: v.VIP, State: v.State, Reason: v.Reason}
		}),
		Services: each(n.Services, func(s node.Service) *deployerv1.Service {
			return &deployerv1.Service{Name: s.Name, State: s.State, Reason: s.Reason}
		}),
		History: each(n.History, func(t node.Transition) *deployerv1.Transition {
			return &deployerv1.Transition{At: protoTime(&t.At), From: string(t.From), To: string(t.To), Event: string(t.Event), Reason: t.Reason, By: t.By, Remote: t.Remote}
		}),
	}
	if n.LastError != nil {
		m.LastError = &deployerv1.NodeError{At: protoTime(&n.LastError.At), Phase: string(n.LastError.Phase), Message: n.LastError.Message}
	}
	return m
}

func protoVIPs(list api.VIPList) *deployerv1.ListVipsResponse {
	return &deployerv1.ListVipsResponse{LeftOut: int32(list.LeftOut), Next: list.Next, Vips: each(list.VIPs, func(v api.VIP) *deployerv1.Vip {
		return &deployerv1.Vip{
			Vip: v.VIP, Declared: v.Declared, Status: string(v.Status), Since: protoTime(v.Since), Announced: int32(v.Announced),
			Nodes: each(v.Nodes, func(n api.VIPNode) *deployerv1.VipNode {
				return &deployerv1.VipNode{NodeId: n.ID, Declared: n.Declared, State: n.State, Reason: n.Reason, Reachability: string(n.Reachability)}
			}),
		}
	})}
}

func protoToken(t api.Token) *deployerv1.Token {
	return &deployerv1.Token{
		Name: t.Name, Node: t.Node, Role: t.Role, Expires: protoTime(t.Expires), Uses: int32(t.Uses), Used: int32(t.Used),
		Created: protoTime(&t.Created), CreatedBy: t.CreatedBy, LastUsed: protoTime(t.LastUsed), LastNode: t.LastNode,
	}
}

func protoNewToken(t api.NewToken) *deployerv1.NewToken {
	return &deployerv1.NewToken{
		Name: t.Name, Node: t.Node, Role: t.Role, Expires: protoTime(t.Expires), Uses: int32(t.Uses), Used: int32(t.Used),
		Created: protoTime(&t.Created), CreatedBy: t.CreatedBy, LastUsed: protoTime(t.LastUsed), LastNode: t.LastNode, Token: t.Secret,
	}
}

func protoAudit(log api.AuditLog) *deployerv1.ListAuditResponse {
	return &deployerv1.ListAuditResponse{Next: log.Next, More: log.More, Entries: each(log.Entries, func(e api.AuditEntry) *deployerv1.AuditEntry {
		return &deployerv1.AuditEntry{
			Cursor: e.Cursor, At: protoTime(&e.At), By: e.By, Remote: e.Remote, Action: string(e.Action), NodeId: e.NodeID, Token: e.Token,
			Result: e.Result, Code: e.Code, Reason: e.Reason,
		}
	})}
}

// protoStatus reads what REST sends.
func protoStatus(s api.Status) *deployerv1.Status {
	status := new(deployerv1.Status)
	if err := protojson.Unmarshal(encode(s), status); err != nil {
		panic(err) // it has a field that is not in the definition
	}
	return status
}

func protoMark(m *node.Mark) *deployerv1.Mark {
	if m == nil {
		return nil
	}
	return &deployerv1.Mark{At: protoTime(&m.At), By: m.By, Reason: m.Reason}
}

func protoEvent(e api.Event) *deployerv1.Event {
	return &deployerv1.Event{
		Cursor: e.Cursor, At: protoTime(&e.At), NodeId: e.NodeID, Event: string(e.Event),
		From: string(e.From), To: string(e.To), Code: e.Code, Reason: e.Reason, By: e.By, Vip: e.VIP,
	}
}

// eventBytes of events fit into a message that gRPC's clients take, with the next one.
const eventBytes = 2 << 20

func protoEvents(list api.EventList) *deployerv1.ListEventsResponse {
	size := 0
	for i, e := range list.Events {
		if size += len(e.Reason) + 256; size > eventBytes {
			list.Events, list.Next, list.More = list.Events[:i+1], e.Cursor, true
			break
		}
	}
	return &deployerv1.ListEventsResponse{Events: each(list.Events, protoEvent), Next: list.Next, More: list.More}
}

func protoHealth(h api.Health) *deployerv1.Health {
	return &deployerv1.Health{Status: h.Status, Version: h.Version, Reason: h.Reason}
}

func protoProblem(p api.Problem) *deployerv1.Problem {
	return &deployerv1.Problem{Title: p.Title, Status: int32(p.Status), Detail: p.Detail, Code: p.Code, Field: p.Field}
}

func protoTime(t *time.Time) *timestamppb.Timestamp {
	if t == nil {
		return nil
	}
	return timestamppb.New(*t)
}
