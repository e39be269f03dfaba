package speaker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers the codec that requests are encoded with
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// listBatch is how many prefixes the daemon prepares before it sends them; unless told,
// it prepares its whole table first. A daemon that does not know of it does that.
const listBatch = 1000

// Fields of the daemon's messages, the same in both generations.
const (
	listPathDestination protowire.Number = 1 // of ListPathResponse

	destinationPrefix protowire.Number = 1
	destinationPaths  protowire.Number = 2

	pathBest             protowire.Number = 4
	pathFiltered         protowire.Number = 12
	pathStale            protowire.Number = 13
	pathNeighbor         protowire.Number = 15
	pathIdentifier       protowire.Number = 18
	pathAttributesBinary protowire.Number = 21
)

// listed is a path in a daemon's answer, valid until the next one is read. Of a big table
// most of the time would go into messages of which next to nothing is looked at, so it is
// read from the wire by hand, and its attributes on demand.
type listed struct {
	neighbor    []byte
	identifier  uint32
	best, stale bool
	filtered    bool     // by an export policy, of an Adj-RIB-Out
	message     []byte   // all of it
	binary      [][]byte // its attributes as BGP has them (RFC 4271, section 4.3)
	decode      func(message []byte, r *Route) error
}

// isLearned reports whether the daemon has p from a peer. A path of a local client
// has no neighbour, which the API writes as "<nil>" (v3) or "" (v4). Only local paths
// can be ours: with add-path a peer may choose any identifier, OwnPathID too.
func (p *listed) isLearned() bool {
	if len(p.neighbor) == 0 {
		return false
	}
	_, err := netip.ParseAddr(string(p.neighbor))
	return err == nil
}

// attributes fills in those that we know; others are left out. A daemon that is too old
// to give them as BGP has them (before 3.10) gives them as messages of its API.
func (p *listed) attributes(r *Route) error {
	if len(p.binary) == 0 {
		return p.decode(p.message, r)
	}
	for _, a := range p.binary {
		if err := decodeAttribute(a, r); err != nil {
			return fmt.Errorf("attribute of %s: %w", r.Prefix, err)
		}
	}
	return nil
}

// read makes p the path in message.
func (p *listed) read(message []byte) error {
	*p = listed{message: message, binary: p.binary[:0], decode: p.decode}
	return fields(message, func(n protowire.Number, number uint64, value []byte) error {
		switch n {
		case pathBest:
			p.best = number != 0
		case pathFiltered:
			p.filtered = number != 0
		case pathStale:
			p.stale = number != 0
		case pathNeighbor:
			p.neighbor = value
		case pathIdentifier:
			p.identifier = uint32(number)
		case pathAttributesBinary:
			p.binary = append(p.binary, value)
		}
		return nil
	})
}

// fields calls each for every field of a message that is a number or has a length.
func fields(message []byte, each func(n protowire.Number, number uint64, value []byte) error) error {
	for len(message) > 0 {
		n, kind, length := protowire.ConsumeTag(message)
		if length < 0 {
			return protowire.ParseError(length)
		}
		message = message[length:]
		var number uint64
		var value []byte
		switch kind {
		case protowire.VarintType:
			number, length = protowire.ConsumeVarint(message)
		case protowire.BytesType:
			value, length = protowire.ConsumeBytes(message)
		default:
			length = protowire.ConsumeFieldValue(n, kind, message)
		}
		if length < 0 {
			return protowire.ParseError(length)
		}
		message = message[length:]
		if err := each(n, number, value); err != nil {
			return err
		}
	}
	return nil
}

// frame is one message as it came.
type frame []byte

// frames is gRPC's codec, but that a frame is not decoded.
type frames struct{ encoding.CodecV2 }

func (c frames) Unmarshal(data mem.BufferSlice, v any) error {
	f, is := v.(*frame)
	if !is {
		return c.CodecV2.Unmarshal(data, v)
	}
	*f = slices.Grow((*f)[:0], data.Len())[:data.Len()]
	data.CopyTo(*f)
	return nil
}

// listPaths makes a ListPath request, and calls each for every path of the answer.
func listPaths(ctx context.Context, conn grpc.ClientConnInterface, method string, request any, decode func([]byte, *Route) error, each func(prefix string, p *listed) error) error {
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, method, grpc.ForceCodecV2(frames{encoding.GetCodecV2("proto")}))
	if err != nil {
		return err
	}
	if err := stream.SendMsg(request); err != nil && !errors.Is(err, io.EOF) { // of which Recv has the reason
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	path := listed{decode: decode}
	return receive(&reader{stream: stream}, func(f *frame) error {
		return fields(*f, func(n protowire.Number, _ uint64, destination []byte) error {
			if n != listPathDestination {
				return nil
			}
			return readDestination(destination, &path, each)
		})
	})
}

// reader reads every message into the same memory.
type reader struct {
	stream grpc.ClientStream
	frame  frame
}

func (r *reader) Recv() (*frame, error) {
	err := r.stream.RecvMsg(&r.frame)
	return &r.frame, err
}

func readDestination(destination []byte, path *listed, each func(string, *listed) error) error {
	var prefix string
	if err := fields(destination, func(n protowire.Number, _ uint64, value []byte) error {
		if n == destinationPrefix {
			prefix = string(value)
		}
		return nil
	}); err != nil {
		return err
	}
	return fields(destination, func(n protowire.Number, _ uint64, value []byte) error {
		if n != destinationPaths {
			return nil
		}
		if err := path.read(value); err != nil {
			return err
		}
		return each(prefix, path)
	})
}
