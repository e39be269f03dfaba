// Package lab runs hosts on one machine: each is a network namespace with
// links, addresses and real daemons of its own. Nothing of a lab outlives
// [Lab.Close], and what a lab left behind because it was killed goes away when
// the next one of its name starts.
//
// It needs iproute2 and root, or root of a user namespace.
package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Lab is a set of hosts.
type Lab struct {
	Dir        string // configurations, sockets and logs of the daemons; goes with the lab
	SwitchHost *Host  // what [Lab.Switch] joins hosts by; its port to one is to-<host>

	id    string   // part of the names of its namespaces
	lock  *os.File // Dir, locked for as long as the lab's process lives
	hosts []*Host
	ports int // of switches
}

// New makes an empty lab, and removes those of the same name whose process is
// no more. Several of one name may run side by side.
func New(name string) (*Lab, error) {
	if err := RemoveStale(name); err != nil {
		return nil, err
	}
	dir, lock, err := newDir(name)
	if err != nil {
		return nil, err
	}
	return &Lab{Dir: dir, id: labID(dir), lock: lock}, nil
}

// newDir makes a lab's folder, locked from its first moment on: another lab takes
// one that is not for what a killed one has left.
func newDir(name string) (string, *os.File, error) {
	half, err := os.MkdirTemp("", making+prefix+name+"-")
	if err != nil {
		return "", nil, err
	}
	dir := filepath.Join(os.TempDir(), strings.TrimPrefix(filepath.Base(half), making))
	lock, err := os.Open(half)
	if err == nil {
		err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	if err == nil {
		err = os.Chmod(half, 0o755) // FRR's daemons run as a user of their own
	}
	if err == nil {
		err = os.Rename(half, dir)
	}
	if err != nil {
		return "", nil, errors.Join(err, os.RemoveAll(half))
	}
	return dir, lock, nil
}

// prefix begins the names of all labs' folders.
const prefix = "plasmacloud-lab-"

// making comes before it until the folder is locked.
const making = ".making-"

// labID begins the names of the namespaces of the lab in this folder, and of no other one.
func labID(dir string) string { return strings.TrimPrefix(filepath.Base(dir), "plasmacloud-") + "." }

// folders are those of labs of this name, running or left behind; the name may be a pattern.
func folders(name string) ([]string, error) {
	found, err := filepath.Glob(filepath.Join(os.TempDir(), prefix+name+"-*"))
	return slices.DeleteFunc(found, func(dir string) bool {
		_, number, _ := cutLast(dir, "-") // a-b is another name than a
		return strings.Trim(number, "0123456789") != "" || name != "*" && filepath.Base(dir) != prefix+name+"-"+number
	}), err
}

func cutLast(s, separator string) (before, after string, found bool) {
	if i := strings.LastIndex(s, separator); i >= 0 {
		return s[:i], s[i+len(separator):], true
	}
	return s, "", false
}

// runs tells whether the process of a lab's folder is alive. With one that is
// not, it returns the folder's lock.
func runs(dir string) (bool, *os.File) {
	lock, err := os.Open(dir)
	if err != nil {
		return false, nil // gone by now
	}
	if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		lock.Close()
		return true, nil
	}
	return false, lock
}

// RemoveStale removes what labs of this name have left behind whose process is no
// more: namespaces with all that runs in them, and files. "*" is every name.
func RemoveStale(name string) error {
	dirs, err := folders(name)
	if err != nil {
		return err
	}
	namespaces, err := ip("-o", "netns", "list")
	if err != nil {
		return fmt.Errorf("a lab needs iproute2 and root: %w", err)
	}
	errs := []error{removeHalfMade(name)}
	for _, dir := range dirs {
		if !ours(dir) {
			continue // gone by now, or another user's
		}
		alive, lock := runs(dir)
		if alive || lock == nil {
			continue
		}
		for line := range strings.Lines(namespaces) {
			if namespace, _, _ := strings.Cut(strings.TrimSpace(line), " "); strings.HasPrefix(namespace, labID(dir)) {
				errs = append(errs, removeNamespace(namespace))
			}
		}
		errs = append(errs, os.RemoveAll(dir), lock.Close())
	}
	return errors.Join(errs...)
}

// Close ends every process and removes every namespace and file of the lab.
func (l *Lab) Close() error {
	var errs []error
	for _, h := range l.hosts {
		for _, r := range h.relays {
			errs = append(errs, r.close()) // a socket keeps its namespace
		}
		for _, p := range h.processes {
			errs = append(errs, p.Kill())
		}
		errs = append(errs, removeNamespace(h.Namespace))
	}
	l.hosts = nil
	errs = append(errs, os.RemoveAll(l.Dir), l.lock.Close())
	return errors.Join(errs...)
}

// removeNamespace ends what runs in the namespace before it removes the name,
// since a namespace lives on as long as a process is in it.
func removeNamespace(namespace string) error {
	_ = killAll(namespace)
	_, err := ip("netns", "del", namespace)
	return err
}

// killAll spares this process, which counts as one of the namespace while Inside has its
// first thread.
func killAll(namespace string) error {
	pids, err := ip("netns", "pids", namespace)
	for pid := range strings.FieldsSeq(pids) {
		if n, err := strconv.Atoi(pid); err == nil && n != os.Getpid() {
			_ = syscall.Kill(n, syscall.SIGKILL) // it may have ended by itself
		}
	}
	return err
}

// KillAll ends every process in the host at once, and waits for those that were
// started there.
func (h *Host) KillAll() error {
	errs := []error{killAll(h.Namespace)}
	for _, p := range h.processes {
		errs = append(errs, p.Kill())
	}
	h.processes = nil
	return errors.Join(errs...)
}

// Host is one network namespace with its loopback up.
type Host struct {
	Name      string
	Namespace string // as in `ip netns`
	Dir       string // folder of this host's files

	processes []*Process
	cables    map[string]cable // by the name of our interface
	relays    map[string]*relay
}

// cable is what joins an interface of a host to a switch.
type cable struct {
	to   *Host  // the switch
	port string // its interface
}

// longestDir is how long the folder of a host may be called: sockets are in it,
// and the path of a socket has at most 107 bytes.
const longestDir = 24

// Host makes a host.
func (l *Lab) Host(name string) (*Host, error) {
	dir := name
	if len(dir) > longestDir {
		dir = fmt.Sprintf("%s-%d", dir[:longestDir-4], len(l.hosts))
	}
	h := &Host{Name: name, Namespace: l.id + name, Dir: filepath.Join(l.Dir, dir), cables: map[string]cable{}, relays: map[string]*relay{}}
	if err := os.MkdirAll(h.Dir, 0o755); err != nil {
		return nil, err
	}
	if _, err := ip("netns", "add", h.Namespace); err != nil {
		return nil, err
	}
	l.hosts = append(l.hosts, h)
	_, err := h.IP("link", "set", "lo", "up")
	return h, err
}

// Hosts are all hosts of the lab, switches too.
func (l *Lab) Hosts() []*Host { return slices.Clone(l.hosts) }

// HostAt is a host of a lab of another process, to look into.
func HostAt(name, namespace string) *Host { return &Host{Name: name, Namespace: namespace} }

// Path is the namespace as a file, for programs that open one.
func (h *Host) Path() string { return "/run/netns/" + h.Namespace }

// IP runs iproute2's ip in the host.
func (h *Host) IP(args ...string) (string, error) {
	return ip(append([]string{"-n", h.Namespace}, args...)...)
}

// Run runs a command in the host until it ends and returns its stdout.
func (h *Host) Run(args ...string) (string, error) {
	return ip(append([]string{"netns", "exec", h.Namespace}, args...)...)
}

// Link joins two hosts by a veth pair. The interfaces are called eth-<other>, where
// such a name is short enough.
func (l *Lab) Link(a *Host, addrA []netip.Prefix, b *Host, addrB []netip.Prefix) error {
	name := func(other *Host) string {
		if len(other.Name) <= 11 { // an interface's name has at most 15
			return "eth-" + other.Name
		}
		l.ports++
		return fmt.Sprintf("eth-%.6s-%d", other.Name, l.ports)
	}
	nameA, nameB := name(b), name(a)
	if _, err := ip("link", "add", nameA, "netns", a.Namespace, "type", "veth",
		"peer", "name", nameB, "netns", b.Namespace); err != nil {
		return err
	}
	for _, end := range []struct {
		host  *Host
		iface string
		addrs []netip.Prefix
	}{{a, nameA, addrA}, {b, nameB, addrB}} {
		lines := []string{fmt.Sprintf("link set %s up", end.iface)}
		for _, addr := range end.addrs {
			lines = append(lines, addressLine(end.iface, addr))
		}
		if err := end.host.Batch(lines...); err != nil {
			return err
		}
	}
	return nil
}

// Switch joins hosts to one Ethernet segment. Their interfaces are called eth0.
func (l *Lab) Switch(addrs map[*Host][]netip.Prefix) (err error) {
	l.SwitchHost, err = l.Segment("switch", "eth0", addrs)
	return err
}

// Segment joins hosts by a switch of this name. Their interfaces are called iface.
func (l *Lab) Segment(name, iface string, addrs map[*Host][]netip.Prefix) (*Host, error) {
	bridge, err := l.Host(name)
	if err != nil {
		return nil, err
	}
	if _, err := bridge.IP("link", "add", "br0", "up", "type", "bridge"); err != nil {
		return nil, err
	}
	return bridge, l.Join(bridge, iface, addrs)
}

// Join joins more hosts to a switch that [Lab.Segment] made.
func (l *Lab) Join(bridge *Host, iface string, addrs map[*Host][]netip.Prefix) error {
	var cables, ports []string
	for host := range addrs {
		port := "to-" + host.Name
		if len(port) > 15 { // an interface's name has no more
			l.ports++
			port = fmt.Sprintf("to-%.6s-%d", host.Name, l.ports)
		}
		host.cables[iface] = cable{bridge, port}
		cables = append(cables, fmt.Sprintf("link add %s netns %s type veth peer name %s netns %s", iface, host.Namespace, port, bridge.Namespace))
		ports = append(ports, fmt.Sprintf("link set %s up master br0", port))
	}
	if err := errors.Join(batch("", cables), batch(bridge.Namespace, ports)); err != nil {
		return err
	}
	for host, own := range addrs {
		lines := []string{fmt.Sprintf("link set %s up", iface)}
		for _, addr := range own {
			lines = append(lines, addressLine(iface, addr))
		}
		if err := host.Batch(lines...); err != nil {
			return err
		}
	}
	return nil
}

// Plug takes out the cable of an interface that [Lab.Segment] has joined, or puts it back.
func (h *Host) Plug(iface string, in bool) error {
	c, has := h.cables[iface]
	if !has {
		return fmt.Errorf("%s has no cable at %s", h.Name, iface)
	}
	state := "down"
	if in {
		state = "up"
	}
	_, err := c.to.IP("link", "set", c.port, state)
	return err
}

// Batch runs many lines of iproute2's ip in the host at once.
func (h *Host) Batch(lines ...string) error { return batch(h.Namespace, lines) }

func batch(namespace string, lines []string) error {
	if len(lines) == 0 {
		return nil
	}
	args := []string{"-batch", "-"}
	if namespace != "" {
		args = append([]string{"-n", namespace}, args...)
	}
	_, err := ipFed(strings.Join(lines, "\n")+"\n", args...)
	return err
}

func addressLine(iface string, addr netip.Prefix) string {
	line := fmt.Sprintf("addr add %s dev %s", addr, iface)
	if addr.Addr().Is6() {
		line += " nodad"
	}
	return line
}

// Addresses adds addresses to an interface, usable at once.
func (h *Host) Addresses(iface string, addrs ...netip.Prefix) error {
	var lines []string
	for _, addr := range addrs {
		lines = append(lines, addressLine(iface, addr))
	}
	return h.Batch(lines...)
}

// Held is the set of addresses on the host's interfaces.
func (h *Host) Held() (map[netip.Addr]bool, error) {
	out, err := h.IP("-o", "addr", "show")
	return Held(out), err
}

// Held is the set of addresses in what `ip -o addr show` says.
func Held(shown string) map[netip.Addr]bool {
	held := map[netip.Addr]bool{}
	for field := range strings.FieldsSeq(shown) {
		if prefix, err := netip.ParsePrefix(field); err == nil {
			held[prefix.Addr()] = true
		}
	}
	return held
}

// Process is a daemon. Its output goes to a file of its own.
type Process struct {
	Name string
	Log  string // path

	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

// Start starts a command in the host. It ends with the lab.
func (h *Host) Start(name string, args ...string) (*Process, error) {
	p, err := Start(h.Dir, name, append([]string{"ip", "netns", "exec", h.Namespace}, args...)...)
	if err == nil {
		h.processes = append(h.processes, p)
	}
	return p, err
}

// Start starts a command on this machine with its output in <dir>/<name>.log.
// It gets no signal from the terminal, and is killed when we end, however we end.
func Start(dir, name string, args ...string) (*Process, error) {
	p := &Process{Name: name, Log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd = exec.CommandContext(context.Background(), args[0], args[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := startOnLastingThread(p.cmd); err != nil {
		return nil, err
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

var starter struct {
	once sync.Once
	jobs chan func()
}

// startOnLastingThread starts cmd from a thread that lives as long as we do:
// the parent-death signal fires when the starting thread ends, not the process.
func startOnLastingThread(cmd *exec.Cmd) error {
	starter.once.Do(func() {
		starter.jobs = make(chan func())
		go func() {
			runtime.LockOSThread()
			for job := range starter.jobs {
				job()
			}
		}()
	})
	result := make(chan error)
	starter.jobs <- func() { result <- cmd.Start() }
	return <-result
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Ended tells whether the process has ended.
func (p *Process) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Err is how the process ended: nil for exit status 0. It waits for the end.
func (p *Process) Err() error {
	<-p.done
	return p.err
}

// PID is its process id, and that of its process group.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Signal sends sig to the process.
func (p *Process) Signal(sig syscall.Signal) error { return p.cmd.Process.Signal(sig) }

// SignalGroup sends sig to the process and all that it started.
func (p *Process) SignalGroup(sig syscall.Signal) error {
	return syscall.Kill(-p.cmd.Process.Pid, sig)
}

// Kill ends the process at once and waits for its end.
func (p *Process) Kill() error {
	_ = p.Signal(syscall.SIGCONT)
	if err := p.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-p.done
	return nil
}

// Stop sends SIGTERM and waits for the end. A process that is not done in time
// is killed, which is an error.
func (p *Process) Stop(within time.Duration) error {
	if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.done:
		return p.err
	case <-time.After(within):
		return errors.Join(fmt.Errorf("%s still runs %s after SIGTERM", p.Name, within), p.Kill())
	}
}

// Output is what the process has written so far.
func (p *Process) Output() string {
	out, err := os.ReadFile(p.Log)
	if err != nil {
		return err.Error()
	}
	return string(out)
}

// Eventually calls check until it returns nil or the time is over, and returns
// its last error then.
func Eventually(within time.Duration, check func() error) error {
	deadline := time.Now().Add(within)
	for {
		err := check()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not so within %s: %w", within, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// commandTimeout bounds one call of ip, birdc, vtysh and the like.
const commandTimeout = 10 * time.Second

// ip runs iproute2, and by `ip netns exec` whatever else runs in a host.
func ip(args ...string) (string, error) { return ipFed("", args...) }

func ipFed(input string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "ip", args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}
