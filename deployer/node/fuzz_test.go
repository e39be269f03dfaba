package node

import "testing"

// FuzzCanonical: what is canonical stays as it is when it is read again, since machines
// are compared by it.
func FuzzCanonical(f *testing.F) {
	f.Add("8D7F3A52-91C4-4E0B-A6D3-5B2F0C9E7A14")
	f.Add("52:54:00:12:34:56,52-54-00-12-34-57")
	f.Add("203.0.113.10/32")
	f.Add("To be filled by O.E.M.")
	f.Fuzz(func(t *testing.T, text string) {
		if id, ok := CanonicalMachineID(text); ok {
			if again, ok := CanonicalMachineID(id); !ok || again != id {
				t.Fatalf("machine id %q becomes %q, then %q, %v", text, id, again, ok)
			}
		}
		if mac, ok := CanonicalMAC(text); ok {
			if again, ok := CanonicalMAC(mac); !ok || again != mac {
				t.Fatalf("MAC %q becomes %q, then %q, %v", text, mac, again, ok)
			}
		}
		if vip, ok := CanonicalVIP(text); ok {
			if again, ok := CanonicalVIP(vip); !ok || again != vip {
				t.Fatalf("VIP %q becomes %q, then %q, %v", text, vip, again, ok)
			}
		}
		if serial := CanonicalSerial(text); CanonicalSerial(serial) != serial {
			t.Fatalf("serial %q becomes %q, then %q", text, serial, CanonicalSerial(serial))
		}
		_, _ = CanonicalMACs(text)
	})
}
