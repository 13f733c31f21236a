package status

import "cistern/console"

// copiesMax bounds the destinations of one kind that are shown.
const copiesMax = 3

// backup says when the daemon made its last backup, and how each last 'cistern backup' ended.
func (a *Answer) backup() part {
	p := part{"Backup", []line{{{console.Dim, "not on a schedule (--backup)"}}}}
	for _, o := range a.Maintenance.Operations {
		if o.Name != "backup" {
			continue
		}
		l := plain(a.ago(o.Succeeded))
		if o.Error != "" && o.Failures > 0 {
			l = append(l, span{console.Red, ", failed " + a.ago(o.Ended) + ": " + o.Error})
		} else if o.Due != "" {
			l = append(l, span{"", ", next " + a.ago(o.Due)})
		}
		p.lines[0] = l
	}
	return a.copied(p, "backup", "by command to ")
}

// exports says how each last 'cistern export' ended. It has no lines if no export was recorded.
func (a *Answer) exports() part {
	return a.copied(part{name: "Export"}, "export", "to ")
}

// copied adds the destinations of one kind to p, the most recently used first. A line says when the
// last complete copy ended. Lines below it say that a copy is under way, and how the last copy
// failed.
func (a *Answer) copied(p part, kind, preposition string) part {
	n := 0
	for _, c := range a.Copies {
		if c.Kind != kind {
			continue
		}
		if n++; n > copiesMax {
			continue
		}
		done := "no complete copy"
		if c.Succeeded != "" {
			done = a.ago(c.Succeeded) + ", " + size(c.Bytes)
		}
		p.lines = append(p.lines, plain(done+", "+preposition+c.Destination))
		if c.Running > 0 {
			p.lines = append(p.lines, line{{console.Green, "  under way, began " + a.ago(c.Since)}})
		}
		if c.Failures > 0 {
			p.lines = append(p.lines, line{{console.Red, "  failed " + a.ago(c.Ended) + ": " + c.Error}})
		}
	}
	return p.more(n - copiesMax)
}
