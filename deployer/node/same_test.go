package node

import (
	"net/netip"
	"reflect"
	"testing"
	"time"
)

// TestSame: every field counts, those that are yet to come too.
func TestSame(t *testing.T) {
	one := New("node01", start)
	for _, f := range reflect.VisibleFields(reflect.TypeOf(one)) {
		other, again := one, one
		for _, n := range []*Node{&other, &again} {
			fill(t, reflect.ValueOf(n).Elem().FieldByIndex(f.Index))
		}
		if !Same(&other, &again) {
			t.Errorf("a %s that is alike makes a difference", f.Name)
		}
		if Same(&one, &other) || Same(&other, &one) {
			t.Errorf("another %s makes no difference", f.Name)
		}
		if got, want := SameButHeard(&one, &other), f.Name == "LastSeen"; got != want {
			t.Errorf("another %s: the same but when it was heard is %v", f.Name, got)
		}
	}
}

// fill gives v a value that no new node has.
func fill(t *testing.T, v reflect.Value) {
	t.Helper()
	switch v.Interface().(type) {
	case time.Time:
		v.Set(reflect.ValueOf(start.Add(time.Hour)))
		return
	case netip.Addr:
		v.Set(reflect.ValueOf(netip.MustParseAddr("192.0.2.1")))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString("other")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(t, v.Index(0))
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(t, key)
		fill(t, value)
		v.SetMapIndex(key, value)
	default:
		t.Fatalf("no value for a %s", v.Type())
	}
}
