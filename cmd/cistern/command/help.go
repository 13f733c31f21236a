package command

import (
	"strings"

	"github.com/urfave/cli/v3"
)

// HelpTemplate is the help page of every command up to its examples, which the command appends. The
// usage of a flag is the placeholder of its value and, on the next line, what the flag does.
const HelpTemplate = `Usage:
  {{.UsageText}}

{{.Description}}
{{- if .VisibleCommands}}

Commands:{{range .VisibleCommands}}
  {{.Name}}{{"\t"}}{{.Usage}}{{end}}{{end}}
{{- if .Flags}}

Options:{{range .Flags}}
  {{range $i, $name := .Names}}{{if $i}}, {{end -}}
  {{if eq (len $name) 1}}-{{else}}--{{end}}{{$name}}{{end}}{{wrap .GetUsage 6}}{{end}}{{end}}

Examples:
`

// helpColumns is the width that help pages are wrapped at.
const helpColumns = 80

// Page executes a template of the command-line library on data. Its function wrap breaks lines at
// columns.
func Page(template string, data any, columns int) string {
	var b strings.Builder
	funcs := map[string]any{"wrapAt": func() int { return columns }}
	cli.DefaultPrintHelpCustom(&b, template, data, funcs)
	return b.String()
}
