package openapi

import "slices"

// The examples of all routes are about one account, one of its records and its host.
const (
	exampleDID        = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
	exampleHandle     = "atproto.com"
	exampleHost       = "enoki.us-east.host.bsky.network"
	exampleCollection = "app.bsky.feed.post"
	exampleRkey       = "3jzfcijpj2z2a"
	exampleCID        = "bafyreif6ty2jknvhupkc2woqfysct6csl2iroputsqi4yddjatoh46rcnu"
)

var (
	repo = Parameter{Name: "repo", Summary: "The account, by its DID or its handle.",
		Format: "at-identifier", Required: true, Example: exampleDID}
	did = Parameter{Name: "did", Summary: "The account.", Format: "did", Required: true,
		Example: exampleDID}
	collection = Parameter{Name: "collection", Summary: "The collection of records.", Format: "nsid",
		Required: true, Example: exampleCollection}
	cursor = Parameter{Name: "cursor", Summary: "The cursor of the page before. A list ends with an " +
		"empty page, which has no cursor."}
	document = object("didDoc")
)

func limit(usual, most int) Parameter {
	return Parameter{Name: "limit", Summary: "Number of items of the page, at most.", Usual: usual,
		Most: most, Example: "2"}
}

// hidden are the errors for accounts whose contents are not shown.
var hidden = []string{"RepoNotFound", "RepoTakendown", "RepoSuspended", "RepoDeactivated"}

// Routes returns the table of all routes.
func Routes() []Route {
	return slices.Concat(queries(), microcosm(), backlinks(), aboutCollections(), others())
}

// queries are the methods of com.atproto.
func queries() []Route {
	const repoIs, syncIs = "/xrpc/com.atproto.repo.", "/xrpc/com.atproto.sync."
	const identityIs, json = "/xrpc/com.atproto.identity.", "application/json"
	const car = "application/vnd.ipld.car"
	record := []Field{text("uri"), text("cid"), optional(object("value")),
		optional(text("unrepresentable"))}
	host := []Field{text("hostname"), optional(integer("seq")),
		integer("accountCount"), text("status")}
	return []Route{
		{Path: repoIs + "getRecord", Summary: "One record.", Media: json, Fields: record,
			Errors: []string{"RecordNotFound", "HandleNotFound"},
			Parameters: []Parameter{repo, collection,
				{Name: "rkey", Summary: "The key of the record.", Format: "record-key",
					Required: true, Example: exampleRkey},
				{Name: "cid", Summary: "The version of the record. An older one is not found.",
					Format: "cid"}}},
		{Path: repoIs + "listRecords", Summary: "The records of a collection, by descending key.",
			Media: json, Fields: []Field{optional(text("cursor")), list("records", record...)},
			Errors: []string{"HandleNotFound"},
			Parameters: []Parameter{repo, collection, limit(50, 100), cursor,
				{Name: "reverse", Summary: "By ascending key instead.",
					Values: []string{"true", "false"}, Example: "true"}}},
		{Path: repoIs + "describeRepo", Summary: "The identity of an account, and its collections.",
			Media: json, Parameters: []Parameter{repo},
			Errors: append([]string{"HandleNotFound"}, hidden...),
			Fields: []Field{text("handle"), text("did"), document, texts("collections"),
				boolean("handleIsCorrect")}},
		{Path: syncIs + "getLatestCommit", Summary: "The newest commit that is held.", Media: json,
			Parameters: []Parameter{did}, Errors: hidden, Fields: []Field{text("cid"), text("rev")}},
		{Path: syncIs + "getRepo", Summary: "A repository as a CAR.", Media: car,
			Errors: append([]string{"RepoIncomplete"}, hidden...),
			Parameters: []Parameter{did, {Name: "since", Format: "tid",
				Summary: "Leave out records that were written up to this rev.", Example: "2222222222222"},
				{Name: "prefix", Example: exampleCollection,
					Summary: "Only the records of a collection, or of a collection, a slash and the " +
						"beginning of record keys, with the nodes that prove that these are all."}}},
		{Path: syncIs + "getRecord", Summary: "A proof of a record or of its absence, as a CAR.",
			Media: car, Errors: append([]string{"RepoIncomplete"}, hidden...),
			Parameters: []Parameter{did, collection, {Name: "rkey", Summary: "The key of the record.",
				Format: "record-key", Required: true, Example: exampleRkey}}},
		{Path: syncIs + "getBlocks", Summary: "Blocks of the newest commit, as a CAR without roots.",
			Media: car, Errors: append([]string{"BlockNotFound", "RepoIncomplete"}, hidden...),
			Parameters: []Parameter{did, {Name: "cids", Summary: "The blocks, up to 1,000.",
				Format: "cid", Required: true, Repeated: true, Example: exampleCID}}},
		{Path: syncIs + "getRepoStatus", Summary: "The status of an account.", Media: json,
			Parameters: []Parameter{did}, Errors: hidden[:1],
			Fields: []Field{text("did"), boolean("active"), optional(text("status")),
				optional(text("rev"))}},
		{Path: syncIs + "listRepos", Summary: "All repositories that are held.", Media: json,
			Parameters: []Parameter{limit(500, 1000), cursor},
			Fields: []Field{optional(text("cursor")), list("repos", text("did"), text("head"),
				text("rev"), boolean("active"), optional(text("status")))}},
		{Path: syncIs + "listReposByCollection",
			Summary: "The active accounts with visible records in a collection.", Media: json,
			Parameters: []Parameter{
				{Name: "collection", Summary: "Repeat it for accounts with any of several " +
					"collections, up to 32. Without it all active accounts are listed.",
					Format: "nsid", Repeated: true, Example: exampleCollection},
				limit(500, 2000), cursor},
			Fields: []Field{optional(text("cursor")), list("repos", text("did"))}},
		{Path: syncIs + "listHosts", Summary: "All known hosts, in the order of discovery.",
			Media: json, Parameters: []Parameter{limit(200, 1000), cursor},
			Fields: []Field{optional(text("cursor")), list("hosts", host...)}},
		{Path: syncIs + "getHostStatus", Summary: "One host.", Media: json, Fields: host,
			Errors: []string{"HostNotFound"},
			Parameters: []Parameter{{Name: "hostname", Summary: "Its name, with a port if it has one.",
				Required: true, Example: exampleHost}}},
		{Path: identityIs + "resolveHandle", Media: json, Fields: []Field{text("did")},
			Summary: "The DID that a handle leads to. The account may not claim the handle.",
			Errors:  []string{"HandleNotFound"},
			Parameters: []Parameter{{Name: "handle", Summary: "The handle.", Format: "handle",
				Required: true, Example: exampleHandle}}},
		{Path: identityIs + "resolveDid", Media: json, Fields: []Field{document},
			Summary: "The document of a DID, as far as it is used: handle, key and host.",
			Errors:  []string{"DidNotFound", "DidDeactivated"}, Parameters: []Parameter{did}},
		{Path: identityIs + "resolveIdentity", Media: json,
			Summary: "DID, handle and document, verified in both directions.",
			Errors:  []string{"HandleNotFound", "DidNotFound", "DidDeactivated"},
			Fields:  []Field{text("did"), text("handle"), document},
			Parameters: []Parameter{{Name: "identifier", Summary: "The account, by its DID or its handle.",
				Format: "at-identifier", Required: true, Example: exampleHandle}}},
	}
}
