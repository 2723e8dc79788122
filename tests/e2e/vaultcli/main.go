// Command vaultcli is the Vault command-line client, for the test of the commands in docs/sealed-weights.md.
//
// A client of Snowflake in it parses a certificate with a negative serial number, which newer versions of Go reject.

//go:debug x509negativeserial=1
package main

import (
	"os"

	"github.com/hashicorp/vault/command"
)

func main() {
	os.Exit(command.Run(os.Args[1:]))
}
