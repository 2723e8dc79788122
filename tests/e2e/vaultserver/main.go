// Command vaultserver is a real Vault core with the Transit engine, in memory, for the tests of the vault provider.
//
// It serves plain HTTP on the loopback address given, prints one JSON line with address and root token once it is
// unsealed, and keeps nothing. It is built from Vault 1.13, whose licence is still the MPL.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/builtin/logical/transit"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical/inmem"
	"github.com/hashicorp/vault/vault"
)

// builtins knows the one engine that is compiled in.
type builtins struct{}

func (builtins) Contains(name string, kind consts.PluginType) bool {
	return name == "transit" && kind == consts.PluginTypeSecrets
}

func (b builtins) Get(name string, kind consts.PluginType) (func() (interface{}, error), bool) {
	if !b.Contains(name, kind) {
		return nil, false
	}
	return func() (interface{}, error) { return logical.Factory(transit.Factory), nil }, true
}

func (builtins) Keys(consts.PluginType) []string { return []string{"transit"} }

func (b builtins) DeprecationStatus(name string, kind consts.PluginType) (consts.DeprecationStatus, bool) {
	return consts.Supported, b.Contains(name, kind)
}

func (builtins) IsBuiltinEntPlugin(string, consts.PluginType) bool { return false }

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: vaultserver ADDRESS")
		os.Exit(2)
	}
	if err := serve(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(address string) error {
	logger := hclog.New(&hclog.LoggerOptions{Output: os.Stderr, Level: hclog.Error})
	storage, err := inmem.NewInmem(nil, logger)
	if err != nil {
		return err
	}
	core, err := vault.NewCore(&vault.CoreConfig{
		Physical:        storage,
		LogicalBackends: map[string]logical.Factory{"transit": transit.Factory},
		BuiltinRegistry: builtins{},
		DisableMlock:    true,
		Logger:          logger,
	})
	if err != nil {
		return err
	}
	shares := &vault.SealConfig{SecretShares: 1, SecretThreshold: 1}
	started, err := core.Initialize(context.Background(), &vault.InitParams{BarrierConfig: shares, RecoveryConfig: shares})
	if err != nil {
		return err
	}
	if _, err := core.Unseal(started.SecretShares[0]); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	ready := map[string]string{"address": "http://" + listener.Addr().String(), "token": started.RootToken}
	if err := json.NewEncoder(os.Stdout).Encode(ready); err != nil {
		return err
	}
	return http.Serve(listener, vaulthttp.Handler.Handler(&vault.HandlerProperties{Core: core}))
}
