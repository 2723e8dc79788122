//go:build tools

// Package bandwidth pins the CNI bandwidth plugin that the tests of egress limits run.
package bandwidth

import _ "github.com/containernetworking/plugins/plugins/meta/bandwidth"
