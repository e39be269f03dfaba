package api

import (
	"fmt"
	"strings"
	"time"
)

// ProblemContentType is the media type of every error answer (RFC 9457).
const ProblemContentType = "application/problem+json"

// Codes of problems that the server itself makes; node.Code* are the others.
const (
	CodeBadRequest       = "bad_request" // the body breaks a rule; Field names where
	CodeUnsupportedMedia = "unsupported_media_type"
	CodeBodyTooLarge     = "body_too_large"
	CodeBodyTooSlow      = "body_too_slow" // try again
	CodeNotFound         = "not_found"
	CodeMethodNotAllowed = "method_not_allowed"
	CodeUnknownMethod    = "unknown_method" // of gRPC or Connect
	CodeBusy             = "busy"           // try again after Retry-After
	CodeUnavailable      = "store_unavailable"
	CodeInternal         = "internal"
	CodeCursorGone       = "cursor_gone" // begin anew without a cursor

	CodeTokenExists   = "token_exists"
	CodeTooManyTokens = "too_many_tokens"

	CodeTooManyAttempts       = "too_many_attempts" // try again after Retry-After
	CodeTooManyRequests       = "too_many_requests" // the same
	CodeOperatorTokenRequired = "operator_token_required"
	CodeOperatorTokenWrong    = "operator_token_wrong"
	CodeOperatorTokenExpired  = "operator_token_expired"
	CodeOperatorRole          = "operator_role"
	CodeOperatorsUnknown      = "operators_unknown"
	CodeCrossOrigin           = "cross_origin" // an order of another site's page, with an operator's certificate
)

// Problem is the body of an error answer.
type Problem struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"` // the reason, and what mends it
	Code   string `json:"code"`             // stable, for programs
	Field  string `json:"field,omitempty"`  // the key of the request that is wrong
}

// Error is an answer of the deployer that is not a success.
type Error struct {
	Problem
	RetryAfter time.Duration // what the server asked for; 0 when it did not
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "the deployer refuses (%d %s): %s", e.Status, e.Code, e.Title)
	if e.Detail != "" {
		b.WriteString(": " + e.Detail)
	}
	return b.String()
}

// Temporary says whether the same request may succeed later. Only a 4xx is final,
// and of those not 408 and 429, which ask for patience.
func (e *Error) Temporary() bool {
	return e.Status < 400 || e.Status >= 500 || e.Status == 408 || e.Status == 429
}
