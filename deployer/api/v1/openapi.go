// Package deployerv1 is the API of the deployer as messages of protobuf, generated from
// deployer.proto beside it, and as OpenAPI. deployerv1connect has its client, for gRPC,
// gRPC-Web and Connect.
package deployerv1

import (
	_ "embed"
	"encoding/json"
)

// OpenAPI describes the REST of the API, in OpenAPI 3.1.
//
//go:embed openapi.json
var OpenAPI json.RawMessage
