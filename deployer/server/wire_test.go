package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/centra/plasmacloud/deployer/api"
	deployerv1 "github.com/centra/plasmacloud/deployer/api/v1"
)

// fill gives every field of v a value of its own.
func fill(v reflect.Value, n *int) {
	*n++
	if v.Type() == reflect.TypeFor[time.Time]() {
		v.Set(reflect.ValueOf(time.Date(2026, 3, 1, 12, 0, *n, 340_000_000, time.UTC)))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).Tag.Get("json") != "-" {
				fill(v.Field(i), n)
			}
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), n)
		fill(v.Index(1), n)
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, n)
		fill(value, n)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.String:
		v.SetString(fmt.Sprint("text ", *n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int:
		v.SetInt(int64(*n))
	default:
		panic(v.Type())
	}
}

// sameJSON holds what REST sends of Body against the message that gRPC and Connect send:
// each is read as the other one, with every field that either of them has.
func sameJSON[Body any, Message proto.Message](t *testing.T, convert func(Body) Message) {
	t.Helper()
	var body, back Body
	n := 0
	fill(reflect.ValueOf(&body).Elem(), &n)
	message := convert(body)
	read := message.ProtoReflect().New().Interface()
	if err := protojson.Unmarshal(encode(body), read); err != nil {
		t.Errorf("%T as %T: %v", body, message, err)
	} else if !proto.Equal(read, message) {
		t.Errorf("%T is read as\n%v\nnot as\n%v", body, read, message)
	}
	text, err := strictJSON{}.Marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	strict := json.NewDecoder(bytes.NewReader(text))
	strict.DisallowUnknownFields()
	if err := strict.Decode(&back); err != nil {
		t.Errorf("%T as %T: %v", message, body, err)
	} else if !reflect.DeepEqual(back, body) {
		t.Errorf("%T is read as\n%+v\nnot as\n%+v", message, back, body)
	}
	fields := message.ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		if !message.ProtoReflect().Has(fields.Get(i)) {
			t.Errorf("%s is never set", fields.Get(i).FullName())
		}
	}
}

// TestSameJSON: one definition. A field that REST has and protobuf has not, or the other
// way round, fails here.
func TestSameJSON(t *testing.T) {
	sameJSON(t, protoNode)
	sameJSON(t, protoNodes)
	sameJSON(t, protoEvents)
	sameJSON(t, protoStatus)
	sameJSON(t, protoVIPs)
	sameJSON(t, protoToken)
	sameJSON(t, protoNewToken)
	sameJSON(t, protoAudit)
	sameJSON(t, protoPhoneHome)
	sameJSON(t, protoProblem)
	sameJSON(t, protoHealth)

	var report api.PhoneHomeRequest
	n := 0
	fill(reflect.ValueOf(&report).Elem(), &n)
	var message deployerv1.PhoneHomeRequest
	if err := protojson.Unmarshal(encode(report), &message); err != nil || !reflect.DeepEqual(reportOf(&message), report) {
		t.Errorf("a report is read as\n%+v\nnot as\n%+v, %v", reportOf(&message), report, err)
	}
}
