package openapi

// filters are the parameters that choose events of accounts.
func filters(collections, dids string) []Parameter {
	return []Parameter{
		{Name: collections, Summary: "Events of records of these collections only, such as " +
			"app.bsky.feed.post or app.bsky.*.", Repeated: true, Example: exampleCollection},
		{Name: dids, Summary: "Events of these accounts only.", Format: "did", Repeated: true,
			Example: exampleDID},
	}
}

// others are the streams, and the routes that belong to the server.
func others() []Route {
	const json, binary = "application/json", "application/octet-stream"
	return []Route{
		{Path: "/stream", Summary: "Every change of every record, one event of JSON a message.",
			Errors: []string{"FutureCursor", "OutdatedCursor"},
			Parameters: append(filters("collections", "dids"), []Parameter{
				{Name: "cursor", Summary: "Begin at the event with this id; 0: at the oldest one.",
					Example: "0"},
				{Name: "since", Summary: "Begin at the first event of this time, in RFC 3339 or in " +
					"unix microseconds. Not with cursor."},
				{Name: "epoch",
					Summary: "The epoch of the store that gave the cursor, from the header Cistern-Epoch."},
				{Name: "kinds", Repeated: true, Summary: "Events of these kinds only.",
					Values: []string{"record", "account", "identity", "repo"}, Example: "record"},
				{Name: "actions", Repeated: true, Summary: "Events of records with these actions only.",
					Values: []string{"create", "update", "delete"}, Example: "create"},
				{Name: "live", Summary: "Events of records from the firehose only, or from backfills only.",
					Values: []string{"true", "false"}, Example: "false"},
				{Name: "include", Summary: "With each record its DAG-CBOR.",
					Values: []string{"cbor"}, Example: "cbor"},
				{Name: "batch", Summary: "Each message is an array of up to this many events.",
					Usual: 1, Most: 1000, Example: "10"},
				{Name: "compress", Summary: "Each message is a zstd frame with the dictionary of " +
					"/stream/dictionary.", Values: []string{"zstd"}, Example: "zstd"},
				{Name: "snapshot", Summary: "First all current records. Not with cursor.",
					Values: []string{"true", "false"}},
				{Name: "resume", Summary: "Go on behind the message with this token, of a snapshot."},
			}...)},
		{Path: "/stream/dictionary", Summary: "The dictionary of compress=zstd.", Media: binary},
		{Path: "/subscribe", Summary: "The stream for clients of Jetstream v1.",
			Parameters: append(filters("wantedCollections", "wantedDids"), []Parameter{
				{Name: "cursor", Summary: "Begin at this time, in unix microseconds.", Example: "1"},
				{Name: "maxMessageSizeBytes", Summary: "Leave longer messages out.", Example: "100000"},
				{Name: "requireHello", Summary: "Send nothing before the first message of the client.",
					Values: []string{"true", "false"}, Example: "true"},
				{Name: "compress", Summary: "Compress messages, if the server has the dictionary.",
					Values: []string{"true", "false"}},
			}...)},
		{Path: "/xrpc/network.bsky.jetstream.subscribeEvents",
			Summary: "The stream for clients of Jetstream v2.",
			Errors:  []string{"CursorTooOld", "UnknownZstdDictionary"},
			Parameters: append(filters("collections", "dids"), []Parameter{
				{Name: "cursor", Summary: "Begin at this event, or at this time in unix microseconds.",
					Example: "1"},
				{Name: "kinds", Repeated: true, Summary: "Events of these kinds only.",
					Values: []string{"commit", "identity", "account", "sync"}, Example: "commit"},
				{Name: "maxMessageSizeBytes", Summary: "Leave longer messages out.", Example: "100000"},
				{Name: "zstdDictionary",
					Summary: "Each message is a zstd frame with the dictionary of this id."},
			}...)},
		{Path: "/xrpc/network.bsky.jetstream.getZstdDictionary", Media: binary,
			Summary: "A dictionary of Jetstream v2.", Errors: []string{"DictionaryNotFound"},
			Parameters: []Parameter{{Name: "id", Summary: "Its id. Without it, the current one is sent."}}},
		{Path: "/export",
			Summary: "All current records, or those of some collections or accounts, as one file; " +
				"or whole repositories, each as a CAR of a tar archive.",
			Media: "application/x-ndjson",
			Medias: map[string]string{"parquet": "application/vnd.apache.parquet",
				"car": "application/x-tar"},
			Errors: []string{"OutdatedCursor"},
			Parameters: []Parameter{
				{Name: "collections",
					Summary: "Records of these collections only, such as app.bsky.feed.post " +
						"or app.bsky.*.", Repeated: true, Example: exampleCollection},
				{Name: "dids", Summary: "Records of these accounts only.", Format: "did", Repeated: true,
					Example: exampleDID},
				{Name: "format", Summary: "The form of the file. car: a tar archive of whole repositories, " +
					"without collections and include.", Values: []string{"ndjson", "parquet", "car"},
					Example: "ndjson"},
				{Name: "include", Summary: "With each record its DAG-CBOR.", Values: []string{"cbor"},
					Example: "cbor"},
				{Name: "limit", Summary: "Number of records, or of repositories with format=car, at most.",
					Usual: 1_000_000_000, Most: 1_000_000_000,
					Example: "2"},
				{Name: "tokens",
					Summary: "Between the lines of NDJSON, lines with a token to go on from, and at " +
						"the end one that says that the file is complete.", Values: []string{"true", "false"},
					Example: "true"},
				{Name: "resume", Summary: "Go on behind the line or file with this token."},
			}},
		{Path: "/xrpc/_health", Summary: "The version of the server.", Media: json,
			Fields: []Field{text("version")}},
		{Path: "/stats", Summary: "Counts and sizes, the bounds of the log, the state of the firehose.",
			Media: json},
		{Path: "/openapi.json", Summary: "This document.", Media: json},
		{Path: "/", Summary: "A short text about the server, or a page for browsers (Accept: text/html).",
			Media: "text/plain"},
	}
}
