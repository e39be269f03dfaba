package health

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode"

	"github.com/godbus/dbus/v5"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// serveBytes answers every connection with what say gives it, and hangs up.
func serveBytes(f *testing.F, network, address string, say func(net.Conn)) net.Addr {
	f.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
				say(conn)
			}()
		}
	}()
	return l.Addr()
}

// judge asks as a check does, and looks at what becomes of the answer.
func judge(t *testing.T, c Check, probe func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	r := &runner{check: c, state: State{Status: Unknown}}
	r.observe(c, probe(ctx), time.Now())
	if reason := r.state.Reason; len(reason) > maxAnswerReason+100 || strings.ContainsFunc(reason, func(r rune) bool { return !unicode.IsPrint(r) }) {
		t.Errorf("reason is %q", reason)
	}
}

// FuzzHTTPAnswer takes any bytes for the answer to an HTTP check, FiberLB's own among them:
// it is good only with a status and a body as wanted.
func FuzzHTTPAnswer(f *testing.F) {
	answers := make(chan []byte, 1)
	address := serveBytes(f, "tcp", "127.0.0.1:0", func(conn net.Conn) {
		data := <-answers
		for lines := bufio.NewReader(conn); ; {
			if line, err := lines.ReadString('\n'); err != nil || line == "\r\n" {
				break
			}
		}
		_, _ = conn.Write(data)
	})
	for _, text := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nok", "HTTP/1.0 503 no\r\n\r\n", "HTTP/1.1 302 x\r\nLocation: http://\x7f/\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b", "HTTP/1.1 101 Switching Protocols\r\n\r\n", "SSH-2.0-OpenSSH\x1b[31m\r\n", "",
		"HTTP/1.1 " + strings.Repeat("9", 5000),
	} {
		f.Add([]byte(text))
	}
	c := Check{Kind: HTTP, URL: "http://" + address.String() + "/", Body: "ok", Rise: 1, Fall: 1, Timeout: time.Second}
	f.Fuzz(func(t *testing.T, data []byte) {
		answers <- data
		judge(t, c, func(ctx context.Context) error {
			err := Probe(ctx, c)
			if err == nil && !strings.Contains(string(data), "ok") && !strings.Contains(strings.ToLower(string(data)), "chunked") {
				t.Errorf("good is %q", data)
			}
			return err
		})
		select {
		case <-answers: // nobody came for it
		default:
		}
	})
}

// FuzzGRPCAnswer takes any bytes for the frames that answer a gRPC check, once its request is
// there: it is good only with a SERVING.
func FuzzGRPCAnswer(f *testing.F) {
	var answer atomic.Pointer[[]byte]
	address := serveBytes(f, "tcp", "127.0.0.1:0", func(conn net.Conn) {
		if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		framer := http2.NewFramer(conn, conn)
		if framer.WriteSettings() != nil {
			return
		}
		for {
			frame, err := framer.ReadFrame()
			if err != nil {
				return
			}
			if request, ok := frame.(*http2.DataFrame); ok && request.StreamEnded() {
				_, _ = conn.Write(*answer.Load())
				_ = conn.(*net.TCPConn).CloseWrite()
				_, _ = io.Copy(io.Discard, conn) // or what is written may be lost
				return
			}
		}
	})
	frames := func(message string, trailer ...string) []byte {
		var text, block bytes.Buffer
		framer, encoder := http2.NewFramer(&text, nil), hpack.NewEncoder(&block)
		headers := func(end bool, fields ...string) {
			block.Reset()
			for i := 0; i < len(fields); i += 2 {
				_ = encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
			}
			_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: end})
		}
		headers(false, ":status", "200", "content-type", "application/grpc")
		_ = framer.WriteData(1, false, []byte("\x00\x00\x00\x00"+string(rune(len(message)))+message))
		headers(true, trailer...)
		return text.Bytes()
	}
	good := frames("\x08\x01", "grpc-status", "0")
	for _, seed := range [][]byte{
		good, frames("\x08\x02", "grpc-status", "0"), frames("", "grpc-status", "0"), frames("\x08", "grpc-status", "0"),
		frames("\x08\x01", "grpc-status", "5"), frames("", "grpc-status", "12", "grpc-message", "no\x1b[31m%0a"), frames("\x08\x01", "grpc-status", "x"), frames("\x08\x01"), nil,
	} {
		f.Add(seed)
	}
	c := Check{Kind: GRPC, Address: address.String(), Rise: 1, Fall: 1, Timeout: time.Second}
	f.Fuzz(func(t *testing.T, data []byte) {
		answer.Store(&data)
		judge(t, c, func(ctx context.Context) error {
			err := Probe(ctx, c)
			if err == nil && !bytes.Contains(data, []byte{8}) || err != nil && bytes.Equal(data, good) { // the field of the status
				t.Errorf("%q: %v", data, err)
			}
			return err
		})
	})
}

// FuzzSystemBus takes any bytes for what the system's bus says after its greeting.
func FuzzSystemBus(f *testing.F) {
	dir, err := os.MkdirTemp("", "bus")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { os.RemoveAll(dir) })
	answers := make(chan []byte, 1)
	socket := filepath.Join(dir, "bus")
	serveBytes(f, "unix", socket, func(conn net.Conn) {
		data := <-answers
		lines := bufio.NewReader(conn)
		_, _ = lines.ReadByte()
		for {
			line, err := lines.ReadString('\n')
			switch {
			case err != nil:
				return
			case strings.HasPrefix(line, "AUTH"):
				fmt.Fprint(conn, "OK 1234deadbeef\r\n")
			case strings.HasPrefix(line, "NEGOTIATE"):
				fmt.Fprint(conn, "ERROR\r\n")
			case strings.HasPrefix(line, "BEGIN"):
				_, _ = conn.Write(data)
				return
			}
		}
	})
	reply := func(serial uint32, body ...any) string {
		m := &dbus.Message{Type: dbus.TypeMethodReply, Headers: map[dbus.HeaderField]dbus.Variant{
			dbus.FieldReplySerial: dbus.MakeVariant(serial), dbus.FieldSender: dbus.MakeVariant("org.freedesktop.DBus"),
			dbus.FieldSignature: dbus.MakeVariant(dbus.SignatureOf(body...)),
		}, Body: body}
		var text strings.Builder
		if err := m.EncodeTo(&text, binary.LittleEndian); err != nil {
			f.Fatal(err)
		}
		data := []byte(text.String())
		data[8] = byte(serial) // which nobody can set
		return string(data)
	}
	hello := reply(1, ":1.7")
	for _, state := range []string{"active", "failed", "", "\x1b[31m"} {
		f.Add([]byte(hello + reply(2, dbus.MakeVariant(state)) + reply(3, dbus.MakeVariant("masked"))))
	}
	f.Add([]byte(hello + reply(2, dbus.MakeVariant(uint32(7)))))
	f.Add([]byte(hello[:20]))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		answers <- data
		judge(t, Check{Kind: Systemd, Rise: 1, Fall: 1}, func(ctx context.Context) error {
			err := probeSystemd(ctx, socket, "nginx.service")
			if err == nil && !strings.Contains(string(data), "active") && !strings.Contains(string(data), "reloading") && !strings.Contains(string(data), "refreshing") {
				t.Errorf("good is %q", data)
			}
			return err
		})
		select {
		case <-answers:
		default:
		}
	})
}

// FuzzExecOutput takes any bytes for what a program says, and any status for its end.
func FuzzExecOutput(f *testing.F) {
	f.Add([]byte("no database\nmore"), true)
	f.Add([]byte("\x1b[31m\xff"+strings.Repeat("é", 1000)), false)
	f.Fuzz(func(t *testing.T, output []byte, fails bool) {
		judge(t, Check{Kind: Exec, Rise: 1, Fall: 1}, func(context.Context) error {
			var said firstLine
			_, _ = io.Copy(&said, strings.NewReader(string(output)))
			if fails {
				return fmt.Errorf("%w: %s", errors.New("exit status 1"), said.String())
			}
			return nil
		})
	})
}
