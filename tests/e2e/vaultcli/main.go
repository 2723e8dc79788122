// Command vaultcli is the Vault command-line client, for the test of the commands in docs/sealed-weights.md.
package main

import (
	"os"

	"github.com/hashicorp/vault/command"
)

func main() {
	os.Exit(command.Run(os.Args[1:]))
}
