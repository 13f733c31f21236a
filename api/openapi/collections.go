package openapi

// aboutCollections are the routes about collections over all accounts.
func aboutCollections() []Route {
	const json = "application/json"
	inPath := collection
	inPath.InPath = true
	days := Parameter{Name: "days", Summary: "What arrived on this many days, up to that of the " +
		"newest event. Days on which nothing arrived are left out.", Usual: 30, Most: 400, Example: "7"}
	arrivals := list("days", text("day"), integer("created"), integer("updated"), integer("deleted"))
	total := []Field{text("collection"), integer("repositories"), integer("records")}
	record := []Field{text("did"), text("collection"), text("rkey"), text("cid"), text("rev"),
		optional(object("value")), optional(text("unrepresentable"))}
	return []Route{
		{Path: "/collections", Media: json,
			Summary: "The collections of which active accounts show records, in order of name.",
			Parameters: []Parameter{{Name: "prefix", Summary: "Only names that begin with this.",
				Example: "app.bsky."}, limit(100, 1000), cursor},
			Fields: []Field{optional(text("cursor")), list("collections", total...)}},
		{Path: "/collections/{collection}", Summary: "The total of a collection, and its arrivals.",
			Media: json, Parameters: []Parameter{inPath, days},
			Fields: append(total, arrivals)},
		{Path: "/collections/{collection}/records", Media: json, Errors: []string{"TooManyRepositories"},
			Summary: "The current records of a collection, over all active accounts.",
			Parameters: []Parameter{inPath, limit(100, 1000), cursor,
				{Name: "order", Summary: "By repository, in the order of first imports, or by record key, " +
					"the newest TID first.", Values: []string{"repo", "time"}, Example: "time"},
				{Name: "reverse", Summary: "With order=time: the oldest TID first; true or false."},
				{Name: "did", Summary: "With order=time: only records of this account. Up to 100.",
					Format: "did", Repeated: true},
				{Name: "format", Summary: "json, or ndjson for a record a line and the cursor in " +
					"the header Cistern-Next-Cursor. Without it, the header Accept decides."}},
			Fields: []Field{optional(text("cursor")), list("records", record...)}},
		{Path: "/counts", Summary: "The total over all collections, and what arrived.", Media: json,
			Parameters: []Parameter{days},
			Fields: []Field{integer("collections"), integer("repositories"), integer("records"),
				arrivals}},
	}
}
