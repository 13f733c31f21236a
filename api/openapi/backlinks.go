package openapi

// backlinks are the queries for links to a subject, and the older routes for them.
func backlinks() []Route {
	const json, path = "application/json", "/xrpc/blue.microcosm.links."
	const at = "at://" + exampleDID + "/" + exampleCollection + "/" + exampleRkey
	subject := Parameter{Name: "subject", Required: true, Example: at, Format: "uri",
		Summary: "What is linked to: an at-uri, a DID or another absolute URI."}
	source := Parameter{Name: "source", Required: true, Example: "app.bsky.feed.like:subject.uri",
		Summary: "Where the links are: a collection, a colon and a path in its records."}
	other := Parameter{Name: "pathToOther", Required: true, Example: "via.uri",
		Summary: "The path of the other subjects in the linking records."}
	others := Parameter{Name: "otherSubject", Repeated: true, Example: "at://" + exampleDID,
		Summary: "Only these other subjects, up to 1,000."}
	dids := func(name string) Parameter {
		return Parameter{Name: name, Repeated: true, Format: "did", Example: exampleDID,
			Summary: "Only records of these accounts, up to 1,000."}
	}
	page := []Parameter{limit(100, 1000), {Name: "cursor",
		Summary: "The cursor of the page before. A list ends with a page without a cursor."}}
	record := []Field{text("did"), text("collection"), text("rkey")}
	total, next := integer("total"), optional(text("cursor"))
	with := func(some []Parameter, more ...Parameter) []Parameter { return append(more, some...) }
	older := []Parameter{
		{Name: "target", Required: true, Example: at, Format: "uri", Summary: subject.Summary},
		{Name: "collection", Required: true, Example: "app.bsky.feed.like", Format: "nsid",
			Summary: "The collection of the linking records."},
		{Name: "path", Required: true, Example: ".subject.uri",
			Summary: "The path in them, with its first dot."}}
	routes := []Route{
		{Path: path + "getBacklinks",
			Summary: "The records that link to a subject, the newest link first.",
			Parameters: with(page, subject, source, dids("did"), Parameter{Name: "reverse",
				Summary: "The oldest link first.", Values: []string{"true", "false"}, Example: "true"}),
			Fields: []Field{total, list("records", record...), next}},
		{Path: path + "getBacklinksCount", Summary: "How many records link to a subject.",
			Parameters: []Parameter{subject, source}, Fields: []Field{total}},
		{Path: path + "getBacklinkDids", Summary: "The accounts whose records link to a subject.",
			Parameters: with(page, subject, source), Fields: []Field{total, texts("linking_dids"), next}},
		{Path: path + "getManyToMany",
			Summary:    "The records that link to a subject, with the other subjects of each.",
			Parameters: with(page, subject, source, other, dids("linkDid"), others),
			Fields:     []Field{list("items", object("linkRecord", record...), text("otherSubject")), next}},
		{Path: path + "getManyToManyCounts",
			Summary:    "How often the other subjects of the linking records occur.",
			Parameters: with(page, subject, source, other, dids("did"), others),
			Fields: []Field{list("counts_by_other_subject", text("subject"), total,
				integer("distinct")), next}},
		{Path: "/links", Summary: "The older form of getBacklinks.",
			Parameters: with(page, append(older, Parameter{Name: "from_dids", Example: exampleDID,
				Summary: "Only records of these accounts, up to 1,000, separated by commas."})...),
			Fields: []Field{total, list("linking_records", record...), next}},
		{Path: "/links/count", Summary: "The older form of getBacklinksCount.",
			Parameters: older, Fields: []Field{total}},
		{Path: "/links/distinct-dids", Summary: "The older form of getBacklinkDids.",
			Parameters: with(page, older...), Fields: []Field{total, texts("linking_dids"), next}},
		{Path: "/links/count/distinct-dids",
			Summary:    "How many accounts have records that link to a subject.",
			Parameters: older, Fields: []Field{total}},
		{Path: "/links/all",
			Summary:    "The number of records and accounts that link to a subject, by collection and path.",
			Parameters: older[:1], Fields: []Field{object("links")}},
		{Path: "/links/all/count",
			Summary:    "The number of records that link to a subject, by collection and path.",
			Parameters: older[:1], Fields: []Field{object("links")}},
	}
	for i := range routes {
		routes[i].Media, routes[i].Bare = json, true
	}
	return routes
}
