package command_test

import (
	"bytes"
	"strings"
	"testing"

	"cistern/cmd/cistern/command"

	"github.com/urfave/cli/v3"
)

// TestManual: a page begins with the version and the day of its commit, and no character of a text
// is a request to the formatter.
func TestManual(t *testing.T) {
	t.Parallel()
	var page bytes.Buffer
	m := command.Manual{Root: &cli.Command{Version: "v1.2.3", Description: ".so it's"},
		Committed: "2026-12-01T12:00:00Z", Purpose: "a program", ExitCodes: [][2]string{{"64", `wrong \n`}}}
	if err := m.Write(&page); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`.TH CISTERN 1 "2026\-12\-01" "cistern v1.2.3" "Cistern"` + "\n",
		"cistern \\- a program\n", "\n" + `\&.so it\(aqs` + "\n", ".TP\n.B 64\nwrong \\en\n"} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("the page lacks %q:\n%s", want, &page)
		}
	}
}
