package vip

import "testing"

func TestCheckRelease(t *testing.T) {
	for release, ok := range map[string]bool{
		"5.17.15": false, "4.19.0-27-amd64": false, "5.18.0": true, "5.18-rc1": true, "6.1.0-44-cloud-amd64": true, "10.0": true, "odd": false,
	} {
		if err := checkRelease(release); (err == nil) != ok {
			t.Errorf("%s: %v", release, err)
		}
	}
}
