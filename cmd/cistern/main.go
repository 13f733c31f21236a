package main

import (
	"context"
	"io"
	"os"

	"cistern/cmd/cistern/command"

	// The roots of Mozilla, for systems without any, such as an image of the binary alone.

	_ "golang.org/x/crypto/x509roots/fallback"
)

func main() {
	os.Exit(command.ExitCode(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr), os.Stderr))
}

// run is the whole program without the process around it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	a := &app{Process: command.Process{Stdin: os.Stdin, Stdout: stdout, Stderr: stderr,
		Environ: os.Environ(), Program: os.Args[0], Exit: os.Exit}}
	return a.run(ctx, args)
}
