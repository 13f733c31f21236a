package main

import (
	"context"
	"fmt"
	"io"
	"os"

	// The roots of Mozilla, for systems without any, such as an image of the binary alone.
	_ "golang.org/x/crypto/x509roots/fallback"
)

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "cistern:", err)
		os.Exit(1)
	}
}

// run is the whole program without the process around it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	a := &app{stdin: os.Stdin, stdout: stdout, stderr: stderr, environ: os.Environ(),
		program: os.Args[0], exit: os.Exit}
	return a.run(ctx, args)
}
