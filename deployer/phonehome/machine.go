package phonehome

import (
	"bufio"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
)

// Machine is what this machine can say about itself.
type Machine struct {
	ID       string // "" when the machine has nothing that tells it from others
	IDSource string // where ID comes from, for the log
	BootID   string
	Hostname string
	MACs     []string          // of the network cards: lower case, with colons, sorted
	Serial   string            // of the machine; "" where it has none, or a vendor's filler
	Facts    map[string]string // kernel, arch, cpus, memory_bytes, macs (with commas), serial
}

const (
	productUUID   = "/sys/class/dmi/id/product_uuid" // readable by root alone
	etcMachineID  = "/etc/machine-id"
	kernelRelease = "/proc/sys/kernel/osrelease"
	bootID        = "/proc/sys/kernel/random/boot_id"
	meminfo       = "/proc/meminfo"
	netDevices    = "/sys/class/net"
	productSerial = "/sys/class/dmi/id/product_serial"            // readable by root alone
	boardSerial   = "/sys/firmware/devicetree/base/serial-number" // of machines without DMI
)

// ReadMachine collects from the file system under root ("/" but for tests).
//
// The machine id is the mainboard's UUID. Where that is missing or a vendor's
// default there is none, and the network cards tell the machine from others. Without
// cards it is derived from machine-id(5), which an installation makes for itself: the
// ISO and the installed system then look like two machines. Where the UUID exists and may not be read this is an error, not a reason to fall back:
// the same machine would be two, depending on who runs this program. The rest of the
// Machine is there with the error.
func ReadMachine(root string) (Machine, error) {
	m := Machine{Facts: map[string]string{
		"arch": runtime.GOARCH,
		"cpus": strconv.Itoa(runtime.NumCPU()),
	}}
	var err error
	m.ID, m.IDSource, err = readMachineID(root)
	m.BootID, _ = readLine(filepath.Join(root, bootID))
	if kernel, _ := readLine(filepath.Join(root, kernelRelease)); kernel != "" {
		m.Facts["kernel"] = kernel
	}
	if memory := memTotal(filepath.Join(root, meminfo)); memory > 0 {
		m.Facts["memory_bytes"] = strconv.FormatUint(memory, 10)
	}
	if name, err := os.Hostname(); err == nil {
		m.Hostname = name
	}
	if m.MACs = readMACs(root); len(m.MACs) > 0 {
		m.Facts["macs"] = strings.Join(m.MACs[:min(len(m.MACs), maxFactMACs)], ",")
	}
	if m.Serial = readSerial(root); m.Serial != "" {
		m.Facts["serial"] = m.Serial
	}
	if m.IDSource == etcMachineID && len(m.MACs) > 0 {
		m.ID, m.IDSource = "", netDevices
	}
	return m, err
}

// maxFactMACs is how many MAC addresses with commas a fact has room for.
const maxFactMACs = (api.MaxFactValue + 1) / len("00:00:00:00:00:00,")

// readMACs is the addresses of the network cards. What the kernel made up
// (bridges, bonds, VLANs) has no device behind it, and a card in a bond is known
// by the address that it had before.
func readMACs(root string) []string {
	cards, _ := filepath.Glob(filepath.Join(root, netDevices, "*", "device"))
	var macs []string
	for _, card := range cards {
		if _, err := os.Stat(filepath.Join(card, "physfn")); err == nil {
			continue // a virtual function, which this machine makes itself
		}
		bus, _ := os.Readlink(filepath.Join(card, "subsystem"))
		card = filepath.Dir(card)
		text, err := readLine(filepath.Join(card, "bonding_slave", "perm_hwaddr"))
		if err != nil {
			text, _ = readLine(filepath.Join(card, "address"))
		}
		mac, ok := node.CanonicalMAC(text)
		if !ok { // InfiniBand, or a card that has no address yet
			continue
		}
		// Towards its management controller many a board has a card on USB, with an
		// address that all boards of the kind have.
		if filepath.Base(bus) == "usb" && strings.ContainsRune("2367abef", rune(mac[1])) {
			continue
		}
		macs = append(macs, mac)
	}
	slices.Sort(macs)
	return slices.Compact(macs)
}

func readSerial(root string) string {
	for _, path := range []string{productSerial, boardSerial} {
		if raw, err := readLine(filepath.Join(root, path)); err == nil {
			if serial := node.CanonicalSerial(raw); serial != "" {
				return serial
			}
		}
	}
	return ""
}

func readMachineID(root string) (id, source string, err error) {
	raw, err := readLine(filepath.Join(root, productUUID))
	if errors.Is(err, fs.ErrPermission) {
		return "", "", fmt.Errorf("machine id: %w; run as root, or pass --machine-id", err)
	}
	if id, ok := node.CanonicalMachineID(raw); ok {
		return id, productUUID, nil
	}
	raw, err = readLine(filepath.Join(root, etcMachineID))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", "", fmt.Errorf("machine id: %w", err)
	}
	if key, err := hex.DecodeString(raw); err == nil && len(key) == 16 {
		return appSpecificID(key), etcMachineID, nil
	}
	return "", "", nil
}

// appID makes our derived machine ids differ from every other program's.
var appID = []byte("\x3c\x1e\x8a\x52\x0d\x4b\x4f\x6e\x9a\x27\x51\xc8\x70\xb3\x16\xfd")

// appSpecificID derives an id from a machine-id, which should not leave its
// machine as it is (machine-id(5)): HMAC-SHA256 keyed with it, in the form of a
// random UUID, as sd_id128_get_machine_app_specific(3) does.
func appSpecificID(machineID []byte) string {
	mac := hmac.New(sha256.New, machineID)
	mac.Write(appID)
	sum := mac.Sum(nil)
	sum[6] = sum[6]&0x0f | 0x40
	sum[8] = sum[8]&0x3f | 0x80
	id, _ := node.CanonicalMachineID(hex.EncodeToString(sum[:16]))
	return id
}

// readLine is the first line of a small file, without what cannot be shown.
func readLine(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, 256))
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(data), "\n")
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, line)), nil
}

// memTotal is the machine's memory in bytes, 0 when unknown (proc_meminfo(5)).
func memTotal(path string) uint64 {
	file, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) >= 2 && fields[0] == "MemTotal:" {
			kib, _ := strconv.ParseUint(fields[1], 10, 54)
			return kib << 10
		}
	}
	return 0
}
